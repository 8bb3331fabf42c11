// One object in 3D: its wireframe, a body that can be pointed at, its mesh and the ellipsoid of its uncertainty.

import {
  BoxGeometry, BufferAttribute, BufferGeometry, Color, DoubleSide, Group, Matrix4, Mesh, MeshBasicMaterial, MeshLambertMaterial,
  SRGBColorSpace, SphereGeometry, TextureLoader,
} from "three";
import { LineMaterial } from "three/addons/lines/LineMaterial.js";
import { LineSegments2 } from "three/addons/lines/LineSegments2.js";
import { LineSegmentsGeometry } from "three/addons/lines/LineSegmentsGeometry.js";

import { bytes } from "./bytes.js";
import { corners, edges, frontCross } from "./geometry.js";

const SIGMAS = 2; // of the ellipsoid

export class BoxView {
  constructor(object, request) {
    this.object = object;
    this.group = new Group();
    this.label = object.kind === "label";
    this.#lines();
    this.#body();
    if (object.mesh) this.#mesh(request);
    if (object.sigma?.ellipsoid) this.#ellipsoid();
  }

  #lines() {
    const c = corners(this.object);
    const ends = [...edges(), ...frontCross()].flatMap(([a, b]) => [...c[a], ...c[b]]);
    const geometry = new LineSegmentsGeometry().setPositions(ends);
    const dashes = this.label ? { dashed: true, dashSize: 0.22, gapSize: 0.16 } : {};
    this.lines = new LineSegments2(geometry, new LineMaterial({ linewidth: 2, transparent: true, fog: false, ...dashes }));
    if (this.label) this.lines.computeLineDistances();
    this.group.add(this.lines);
  }

  #body() {
    const { size, center, yaw, id } = this.object;
    const material = new MeshBasicMaterial({ transparent: true, depthWrite: false, side: DoubleSide, fog: false });
    this.body = new Mesh(new BoxGeometry(...size), material);
    this.body.position.set(...center);
    this.body.rotation.y = yaw; // about the data's +y, for the group around all this is the data's frame
    this.body.userData.id = id;
    this.group.add(this.body);
  }

  #mesh(request) {
    const { mesh, color } = this.object;
    const vertices = new Float32Array(bytes(mesh.vertices));
    const faces = new Uint32Array(bytes(mesh.faces));
    const positions = new Float32Array(faces.length * 3); // texture coordinates are per corner, so corners are not shared
    faces.forEach((vertex, k) => positions.set(vertices.subarray(3 * vertex, 3 * vertex + 3), 3 * k));
    const geometry = new BufferGeometry();
    geometry.setAttribute("position", new BufferAttribute(positions, 3));
    geometry.computeVertexNormals();
    let material = new MeshLambertMaterial({ color, side: DoubleSide, fog: false });
    if (mesh.texture) {
      geometry.setAttribute("uv", new BufferAttribute(new Float32Array(bytes(mesh.uvs)), 2));
      const map = new TextureLoader().load(mesh.texture, request);
      map.flipY = false; // its first row is at v = 0
      map.colorSpace = SRGBColorSpace;
      material = new MeshBasicMaterial({ map, side: DoubleSide, fog: false }); // a fitted texture holds its light already
    }
    this.mesh = new Mesh(geometry, material);
    // A nudged box takes its mesh along: from where the mesh was fitted to where the box is now.
    const { center, yaw, size, original } = this.object;
    const place = (box) =>
      new Matrix4().makeTranslation(...box.center)
        .multiply(new Matrix4().makeRotationY(box.yaw))
        .multiply(new Matrix4().makeScale(...box.size));
    this.mesh.applyMatrix4(place({ center, yaw, size }).multiply(place(original).invert()));
    this.group.add(this.mesh);
  }

  #ellipsoid() {
    const { sigma, center } = this.object;
    const m = sigma.ellipsoid.map((value) => value * SIGMAS);
    const material = new MeshBasicMaterial({ wireframe: true, transparent: true, opacity: 0.25, fog: false });
    this.ellipsoid = new Mesh(new SphereGeometry(1, 20, 12), material);
    const matrix = new Matrix4().set(m[0], m[1], m[2], center[0], m[3], m[4], m[5], center[1], m[6], m[7], m[8], center[2], 0, 0, 0, 1);
    this.ellipsoid.matrixAutoUpdate = false;
    this.ellipsoid.matrix.copy(matrix);
    this.group.add(this.ellipsoid);
  }

  paint(dark) {
    const ink = new Color(dark ? "#ffffff" : "#12161c");
    const color = this.label ? ink : new Color(this.object.color);
    if (!dark && !this.label) color.lerp(new Color("#101820"), 0.28); // light colours need weight on a light ground
    this.lines.material.color.copy(color);
    this.body.material.color.copy(color);
    this.ellipsoid?.material.color.copy(color);
  }

  mark({ selected, hovered, layers, other }) {
    const rejected = this.object.status === "rejected";
    this.lines.material.linewidth = selected ? 4 : hovered ? 3 : this.label ? 1.6 : 2.2;
    this.lines.material.opacity = rejected ? 0.25 : other && !hovered ? 0.5 : 1;
    const solid = this.mesh && layers.meshes;
    if (this.mesh) this.mesh.visible = solid && !rejected;
    const fill = this.label ? 0.02 : solid ? 0.03 : 0.12;
    this.body.material.opacity = rejected ? 0.02 : selected ? Math.max(fill, 0.3) : hovered ? fill + 0.1 : fill;
    if (this.ellipsoid) this.ellipsoid.visible = layers.uncertainty;
  }

  resize(width, height) {
    this.lines.material.resolution.set(width, height);
  }
}
