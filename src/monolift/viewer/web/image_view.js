// The photograph with the boxes projected onto it, as SVG: every box is an element that can be pointed at.

import { byId, element, shape } from "./dom.js";
import { corners, edges, frontCross, frontFace, outline, projectedLine } from "./geometry.js";
import { isShown } from "./store.js";

const CROWDED = 560; // CSS pixels: on a narrower image only the chosen object is named
const MOST_ZOOM = 12;

export class ImageView {
  constructor(store) {
    this.store = store;
    this.root = byId("image");
    this.groups = new Map();
    store.on(["frame", "layers", "score", "hiddenClasses", "geometryVersion"], () => this.draw());
    store.on(["selected", "hovered", "reviewVersion"], () => this.mark());
    new ResizeObserver(() => this.nameObjects()).observe(this.root);
    this.#listenForZoom();
  }

  draw() {
    const { frame } = this.store;
    this.root.hidden = !frame?.camera;
    if (this.root.hidden) return;
    const { width, height } = frame;
    this.root.style.aspectRatio = `${width} / ${height}`;
    byId("stage").classList.toggle("tall", width < 1.25 * height);
    if (this.shownFrame?.width !== width || this.shownFrame?.height !== height) this.window = null;
    this.shownFrame = frame;
    const photo = frame.image
      ? shape("image", { href: frame.image, x: -0.5, y: -0.5, width, height, preserveAspectRatio: "none" })
      : null;
    const visible = frame.all.filter((object) => isShown(this.store, object));
    visible.sort((a, b) => b.center[2] - a.center[2]);
    this.groups = new Map();
    for (const object of visible) {
      const group = this.#object(object, frame.camera);
      if (group) this.groups.set(object.id, group);
    }
    this.boxes = shape("g", {}, ...this.groups.values());
    this.svg = shape("svg", {}, photo, this.boxes);
    this.root.replaceChildren(this.svg);
    this.#applyWindow();
    this.mark();
  }

  #object(object, camera) {
    const c = corners(object);
    const line = ([a, b]) => projectedLine(camera, c[a], c[b]);
    const lines = [...edges(), ...frontCross()].map(line).filter(Boolean);
    if (!lines.length) return null;
    const number = (value) => value.toFixed(2);
    const path = lines.map(([a, b]) => `M${number(a[0])} ${number(a[1])}L${number(b[0])} ${number(b[1])}`).join("");
    const list = (points) => points.map((p) => p.map(number).join(",")).join(" ");
    const hull = outline(lines.flat());
    const [a, b, d, e] = frontFace();
    const front = [line([a, b]), line([d, e])];
    const whole = front.every(Boolean) && [a, b, d, e].every((k) => c[k][2] + camera.tz > 0.1);
    const color = object.kind === "label" ? null : object.color;
    object.hull = hull;
    return shape(
      "g",
      {
        class: `object ${object.kind}`,
        "data-id": object.id,
        onpointerenter: () => this.store.set({ hovered: object.id }),
        onpointerleave: () => this.store.set({ hovered: null }),
      },
      shape("polygon", { class: "face", points: list(hull), fill: color ?? "#fff" }),
      whole ? shape("polygon", { class: "front", points: list(front.flat()), fill: color }) : null,
      shape("path", { class: "halo", d: path }),
      shape("path", { class: "edges", d: path, stroke: color }),
      shape("polygon", { class: "hit", points: list(hull) }),
    );
  }

  mark() {
    if (!this.boxes) return;
    const { selected, hovered, frame } = this.store;
    this.boxes.classList.toggle("any", this.groups.has(selected));
    for (const [id, group] of this.groups) {
      group.classList.toggle("selected", id === selected);
      group.classList.toggle("hovered", id === hovered);
      group.classList.toggle("rejected", frame.byId.get(id)?.status === "rejected");
    }
    this.nameObjects();
  }

  /** Names over the boxes, as many as fit without touching: the chosen one first, then the nearest. */
  nameObjects() {
    this.root.querySelectorAll(".tag").forEach((tag) => tag.remove());
    const matrix = this.svg?.getScreenCTM();
    if (!matrix || this.root.hidden) return;
    const { selected, hovered, frame } = this.store;
    const bounds = this.root.getBoundingClientRect();
    const chosen = (id) => id === selected || id === hovered;
    const candidates = [...this.groups.keys()].map((id) => frame.byId.get(id));
    candidates.sort((a, b) => chosen(b.id) - chosen(a.id) || a.distance - b.distance);
    const taken = [];
    for (const object of candidates) {
      if (!chosen(object.id) && (object.kind === "label" || bounds.width < CROWDED)) continue;
      const score = object.score === null ? "" : ` ${object.score.toFixed(2)}`;
      const tag = element("span", { class: `tag ${object.kind}` }, `${object.class}${object.track === undefined ? score : ` #${object.track}`}`);
      if (object.kind !== "label") tag.style.background = object.color;
      this.root.append(tag);
      if (!this.#place(tag, object, matrix, bounds, taken, chosen(object.id))) tag.remove();
    }
  }

  #place(tag, object, matrix, bounds, taken, must) {
    const xs = object.hull.map((p) => p[0]);
    const top = Math.min(...object.hull.map((p) => p[1]));
    const left = (Math.min(...xs) + Math.max(...xs)) / 2;
    const [width, height] = [tag.offsetWidth, tag.offsetHeight];
    const wanted = { x: left * matrix.a + matrix.e - bounds.left, y: top * matrix.d + matrix.f - bounds.top };
    if (!must && (wanted.x < 0 || wanted.x > bounds.width || wanted.y > bounds.height)) return false;
    const x = Math.min(Math.max(wanted.x, width / 2 + 2), bounds.width - width / 2 - 2);
    const y = Math.min(Math.max(wanted.y, height + 5), bounds.height);
    const area = { x1: x - width / 2 - 2, x2: x + width / 2 + 2, y1: y - height - 4, y2: y - 1 };
    const meets = (o) => area.x1 < o.x2 && o.x1 < area.x2 && area.y1 < o.y2 && o.y1 < area.y2;
    if (!must && taken.some(meets)) return false;
    taken.push(area);
    tag.style.left = `${x}px`;
    tag.style.top = `${y}px`;
    return true;
  }

  // -- zoom: wheel, pinch, drag; a double click shows all again ------------------------------------------------------------

  #applyWindow() {
    const { width, height } = this.shownFrame;
    this.window ??= { x: -0.5, y: -0.5, scale: 1 };
    const { x, y, scale } = this.window;
    this.svg.setAttribute("viewBox", `${x} ${y} ${width / scale} ${height / scale}`);
    this.root.classList.toggle("zoomed", scale > 1);
    this.nameObjects();
  }

  #zoomAt(clientX, clientY, factor) {
    const { width, height } = this.shownFrame;
    const bounds = this.root.getBoundingClientRect();
    const [right, down] = [(clientX - bounds.left) / bounds.width, (clientY - bounds.top) / bounds.height];
    const old = this.window;
    const scale = Math.min(Math.max(old.scale * factor, 1), MOST_ZOOM);
    const shift = 1 / old.scale - 1 / scale;
    this.window = { scale, x: old.x + right * width * shift, y: old.y + down * height * shift };
    this.#hold();
  }

  #hold() {
    const { width, height } = this.shownFrame;
    const limit = (value, size) => Math.min(Math.max(value, -0.5), size * (1 - 1 / this.window.scale) - 0.5);
    this.window.x = limit(this.window.x, width);
    this.window.y = limit(this.window.y, height);
    this.#applyWindow();
  }

  #listenForZoom() {
    const fingers = new Map();
    let moved = 0;
    this.root.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#zoomAt(event.clientX, event.clientY, Math.exp(-event.deltaY / 400));
    }, { passive: false });
    this.root.addEventListener("dblclick", () => {
      this.window = null;
      this.#applyWindow();
    });
    this.root.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, event);
      moved = 0;
    });
    this.root.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const others = [...fingers.values()].filter((finger) => finger.pointerId !== event.pointerId);
      fingers.set(event.pointerId, event);
      moved += Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY);
      if (others.length) {
        const span = (finger) => Math.hypot(finger.clientX - others[0].clientX, finger.clientY - others[0].clientY);
        this.#zoomAt(event.clientX, event.clientY, span(event) / Math.max(span(before), 1));
      } else if (this.window.scale > 1) {
        const perPixel = this.shownFrame.width / this.window.scale / this.root.clientWidth;
        this.window.x -= (event.clientX - before.clientX) * perPixel;
        this.window.y -= (event.clientY - before.clientY) * perPixel;
        this.#hold();
      }
    });
    for (const kind of ["pointerup", "pointercancel", "pointerleave"]) {
      this.root.addEventListener(kind, (event) => fingers.delete(event.pointerId));
    }
    // What a drag ends on is not chosen by it.
    this.root.addEventListener("click", (event) => {
      if (moved > 6) return;
      this.store.set({ selected: event.target.closest(".object")?.dataset.id ?? null });
    });
  }
}
