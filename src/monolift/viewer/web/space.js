// The 3D scene. Data stay in the camera frame; one group, turned half a turn about x, stands them upright for three.js (y up).

import {
  BufferAttribute, BufferGeometry, CanvasTexture, Color, DirectionalLight, Fog, Group, HemisphereLight,
  LineBasicMaterial, LineSegments, PerspectiveCamera, Raycaster, Scene, Sprite, SpriteMaterial, Vector2, Vector3, WebGLRenderer,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";

import { byId, element } from "./dom.js";
import { BoxView } from "./boxview.js";
import { degrees } from "./geometry.js";
import { imageBoard, pointCloud, sightLines } from "./surroundings.js";
import { isShown } from "./store.js";

const VIEWS = { orbit: "Behind", camera: "Camera", top: "Above" };
const TURN_MS = 350;

export class Space {
  constructor(store) {
    this.store = store;
    this.root = byId("space");
    const canvas = this.root.querySelector("canvas");
    try {
      this.renderer = new WebGLRenderer({ canvas, antialias: true });
    } catch {
      this.root.replaceChildren(element("p", { class: "float top-left hint" }, "This browser shows no 3D (WebGL is off)."));
      return;
    }
    this.scene = new Scene();
    this.world = new Group(); // the camera frame of the data
    this.world.rotation.x = Math.PI;
    this.scene.add(this.world, new HemisphereLight(0xffffff, 0x8a8f98, 2.2));
    const sun = new DirectionalLight(0xffffff, 1.4);
    sun.position.set(-4, 10, 6);
    this.scene.add(sun);
    this.eye = new PerspectiveCamera(50, 1, 0.05, 500);
    this.controls = new OrbitControls(this.eye, canvas);
    this.controls.zoomToCursor = true;
    this.controls.maxDistance = 220;
    this.controls.addEventListener("change", () => this.request());
    this.views = new Map();
    this.#buttons();
    this.#listen(canvas);
    new ResizeObserver(() => this.resize()).observe(this.root);
    store.on(["frame"], () => this.load());
    store.on(["theme"], () => this.paint());
    store.on(["layers", "score", "hiddenClasses", "selected", "hovered", "reviewVersion"], () => this.mark());
    store.on(["geometryVersion"], () => this.rebuildObjects());
  }

  // -- what is there -------------------------------------------------------------------------------------------------------

  load() {
    const { frame } = this.store;
    if (!frame) return;
    for (const child of [...this.world.children]) discard(child);
    this.world.clear();
    this.grid = this.#ground(frame);
    this.cloud = frame.points ? pointCloud(frame, () => this.request()) : null;
    this.board = frame.camera ? imageBoard(frame, () => this.request()) : null;
    this.sight = frame.camera ? sightLines(frame) : null;
    this.world.add(...[this.board, this.sight, this.grid, this.cloud].filter(Boolean));
    this.rebuildObjects();
    this.paint();
    if (!this.placed) this.look("orbit", false);
    this.placed = true;
  }

  rebuildObjects() {
    const { frame } = this.store;
    if (!frame) return;
    for (const view of this.views.values()) {
      discard(view.group);
      this.world.remove(view.group);
    }
    this.views = new Map();
    for (const object of frame.all) {
      const view = new BoxView(object, () => this.request());
      this.views.set(object.id, view);
      this.world.add(view.group);
    }
    this.resize();
    this.mark();
  }

  #ground(frame) {
    const farthest = Math.max(30, ...frame.all.map((object) => object.center[2] + 8));
    const far = Math.min(Math.ceil(farthest / 10) * 10, 150);
    const side = 40;
    const y = frame.ground;
    const [fine, coarse] = [[], []];
    for (let x = -side; x <= side; x += 5) (x % 10 ? fine : coarse).push(x, y, 0, x, y, far);
    for (let z = 0; z <= far; z += 5) (z % 10 ? fine : coarse).push(-side, y, z, side, y, z);
    const group = new Group();
    for (const [name, numbers] of [["fine", fine], ["coarse", coarse]]) {
      const geometry = new BufferGeometry();
      geometry.setAttribute("position", new BufferAttribute(new Float32Array(numbers), 3));
      const lines = new LineSegments(geometry, new LineBasicMaterial({ transparent: true, depthWrite: false }));
      lines.name = name;
      group.add(lines);
    }
    // along the right edge of what the camera sees, where few boxes stand
    const edge = (z) => (frame.camera ? ((frame.width - 0.5 - frame.camera.cx) / frame.camera.fx) * z + 1.5 : 0);
    for (let z = 10; z <= far; z += z < 40 ? 10 : 20) group.add(distanceMark(edge(z), y, z));
    return group;
  }

  paint() {
    const dark = this.store.theme === "dark";
    const background = new Color(dark ? "#12171d" : "#eceff3");
    this.scene.background = background;
    this.scene.fog = new Fog(background, 60, 190);
    for (const child of this.grid?.children ?? []) {
      if (child.name === "fine") child.material.color.set(dark ? "#222a33" : "#dde2e8");
      else if (child.name === "coarse") child.material.color.set(dark ? "#37424f" : "#c3cad3");
      else child.material.color.set(dark ? "#8b98a8" : "#66717f");
    }
    this.sight?.material.color.set(dark ? "#9fb4cc" : "#51647c");
    this.cloud?.material.color.set("#ffffff");
    for (const view of this.views.values()) view.paint(dark);
    this.request();
  }

  mark() {
    const { frame, layers, selected, hovered } = this.store;
    if (!frame || !this.grid) return;
    this.grid.visible = layers.grid;
    if (this.cloud) this.cloud.visible = layers.points;
    if (this.board) this.board.visible = layers.photo && this.board.ready === true;
    for (const [id, view] of this.views) {
      view.group.visible = isShown(this.store, view.object);
      view.mark({ selected: id === selected, hovered: id === hovered, layers, other: selected !== null && id !== selected });
    }
    this.request();
  }

  // -- where one stands ----------------------------------------------------------------------------------------------------

  #buttons() {
    const buttons = Object.entries(VIEWS).map(([view, text], k) =>
      element("button", { "data-view": view, title: `${text} (${k + 1})`, onclick: () => this.look(view) }, text),
    );
    byId("views").append(...buttons);
    byId("hint").textContent = "drag to turn, wheel to zoom, right drag to move";
  }

  /** Moves the eye to one of the three points of view. */
  look(view, smooth = true) {
    if (!this.renderer) return;
    const { frame } = this.store;
    const camera = frame.camera;
    const near = frame.all.filter((object) => isShown(this.store, object)).map((object) => object.center[2]);
    const middle = near.length ? near.sort((a, b) => a - b)[near.length >> 1] : 15;
    this.eye.fov = 50;
    if (view === "camera" && camera) {
      const from = [-camera.tx, -camera.ty, -camera.tz];
      // wide enough for the farther edges, for the principal point need not be the middle
      const across = Math.max(camera.cx + 0.5, frame.width - 0.5 - camera.cx) / camera.fx;
      const down = Math.max(camera.cy + 0.5, frame.height - 0.5 - camera.cy) / camera.fy;
      this.eye.fov = 2 * degrees(Math.atan(1.02 * Math.max(across / this.eye.aspect, down)));
      this.#turn(from, [from[0], from[1], 20], smooth);
    } else if (view === "top") {
      const height = Math.min(Math.max(middle * 1.9, 32), 120);
      this.#turn([0, -height, middle - 0.02], [0, frame.ground, middle], smooth);
    } else if (!camera) {
      this.#turn([middle * 0.25, -middle * 0.3 - 1.5, middle * 0.25], [0, 0, middle], smooth);
    } else {
      this.#turn([0, -8, -7.5], [0, frame.ground, Math.min(Math.max(middle, 15), 20)], smooth);
    }
  }

  /** Flies to the chosen object. */
  focus() {
    const object = this.store.frame?.byId.get(this.store.selected);
    if (!object || !this.renderer) return;
    const reach = 1.6 * Math.hypot(...object.size) + 2;
    const [x, y, z] = object.center;
    this.eye.fov = 50;
    this.#turn([x * 0.8 - 0.3 * reach, y - 0.55 * reach, z - reach], object.center, true);
  }

  #turn(from, to, smooth) {
    const target = this.world.localToWorld(new Vector3(...to));
    const position = this.world.localToWorld(new Vector3(...from));
    this.eye.updateProjectionMatrix();
    const still = !smooth || matchMedia("(prefers-reduced-motion: reduce)").matches;
    const start = { position: this.eye.position.clone(), target: this.controls.target.clone(), time: performance.now() };
    const step = () => {
      const t = still ? 1 : Math.min((performance.now() - start.time) / TURN_MS, 1);
      const ease = t * t * (3 - 2 * t);
      this.eye.position.lerpVectors(start.position, position, ease);
      this.controls.target.lerpVectors(start.target, target, ease);
      this.controls.update();
      this.request();
      if (t < 1) requestAnimationFrame(step);
    };
    step();
  }

  // -- pointing and drawing ------------------------------------------------------------------------------------------------

  #listen(canvas) {
    let down = null;
    canvas.addEventListener("pointerdown", (event) => (down = event));
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) return;
      const hovered = this.#hit(event);
      canvas.style.cursor = hovered ? "pointer" : "grab";
      this.store.set({ hovered });
    });
    canvas.addEventListener("pointerleave", () => this.store.set({ hovered: null }));
    canvas.addEventListener("pointerup", (event) => {
      const still = down && Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) < 6;
      if (still && event.button === 0) this.store.set({ selected: this.#hit(event) });
      down = null;
    });
    canvas.addEventListener("dblclick", () => this.focus());
  }

  #hit(event) {
    const bounds = this.root.getBoundingClientRect();
    const x = ((event.clientX - bounds.left) / bounds.width) * 2 - 1;
    const y = 1 - ((event.clientY - bounds.top) / bounds.height) * 2;
    const ray = new Raycaster();
    ray.setFromCamera(new Vector2(x, y), this.eye);
    const bodies = [...this.views.values()].filter((view) => view.group.visible).map((view) => view.body);
    return ray.intersectObjects(bodies, false)[0]?.object.userData.id ?? null;
  }

  /** Where a point of the camera frame stands on the page, in CSS pixels of the window. */
  screenOf(point) {
    this.eye.updateMatrixWorld();
    const p = this.world.localToWorld(new Vector3(...point)).project(this.eye);
    const bounds = this.root.getBoundingClientRect();
    return [bounds.left + ((p.x + 1) / 2) * bounds.width, bounds.top + ((1 - p.y) / 2) * bounds.height];
  }

  resize() {
    const { width, height } = this.root.getBoundingClientRect();
    if (!width || !height) return;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.setSize(width, height, false);
    this.eye.aspect = width / height;
    this.eye.updateProjectionMatrix();
    for (const view of this.views.values()) view.resize(width, height);
    const size = Math.max(1, 400 / height); // as large on a phone as on a desk
    for (const mark of this.grid?.children ?? []) if (mark.isSprite) mark.scale.set(0.09 * size, 0.034 * size, 1);
    this.request();
  }

  request() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = null;
      this.renderer.render(this.scene, this.eye);
    });
  }
}

function distanceMark(x, y, z) {
  const canvas = element("canvas", { width: 128, height: 48 });
  const pen = canvas.getContext("2d");
  pen.font = "600 30px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillStyle = "#fff"; // tinted by the material
  pen.fillText(`${z} m`, 64, 24);
  const material = new SpriteMaterial({ map: new CanvasTexture(canvas), transparent: true, depthWrite: false, sizeAttenuation: false });
  const mark = new Sprite(material);
  mark.position.set(x, y, z);
  mark.renderOrder = 1;
  return mark;
}

/** Gives the memory of what is no longer shown back to the graphics card. */
function discard(root) {
  root.traverse((node) => {
    node.geometry?.dispose();
    node.material?.map?.dispose();
    node.material?.dispose();
  });
}
