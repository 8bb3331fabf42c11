// What stands round the boxes: the photograph in front of its camera, the edges of its sight, measured points.

import {
  BufferAttribute, BufferGeometry, Color, DoubleSide, LineBasicMaterial, LineSegments, Mesh, MeshBasicMaterial, Points,
  PointsMaterial, SRGBColorSpace, Texture,
} from "three";

import { bytes } from "./bytes.js";
import { pixel } from "./geometry.js";

const BOARD_METRES = 2.2; // from the camera to the photograph

/** The point at a depth that is seen at a pixel: the inverse of geometry's `pixel`. */
function seenAt(camera, u, v, depth) {
  return [((u - camera.cx) * depth) / camera.fx - camera.tx, ((v - camera.cy) * depth) / camera.fy - camera.ty, depth - camera.tz];
}

function boardCorners({ camera, width, height }, depth) {
  return [[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]].map(([u, v]) => seenAt(camera, u, v, depth));
}

/** The photograph where its pixels belong. It is drawn behind everything, so that seen from the camera boxes lie on it. */
export function imageBoard(frame, request) {
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(boardCorners(frame, BOARD_METRES).flat()), 3));
  geometry.setAttribute("uv", new BufferAttribute(new Float32Array([0, 1, 1, 1, 1, 0, 0, 0]), 2));
  geometry.setIndex([0, 2, 1, 0, 3, 2]);
  const material = new MeshBasicMaterial({ depthTest: false, depthWrite: false, side: DoubleSide, fog: false });
  const board = new Mesh(geometry, material);
  board.renderOrder = -1;
  board.visible = false;
  photograph(frame).then((image) => {
    const map = new Texture(image);
    map.colorSpace = SRGBColorSpace;
    map.needsUpdate = true;
    material.map = map;
    material.needsUpdate = true;
    board.ready = board.visible = true;
    request();
  }, () => {});
  return board;
}

/** The camera's pyramid, and on the ground the edges of what it sees. */
export function sightLines(frame) {
  const { camera } = frame;
  const eye = [-camera.tx, -camera.ty, -camera.tz];
  const [a, b, c, d] = boardCorners(frame, BOARD_METRES);
  const far = 70;
  const ends = [-0.5, frame.width - 0.5].map((u) => seenAt(camera, u, camera.cy, far));
  const ground = ends.map((p) => [p[0], frame.ground, p[2]]);
  const foot = [eye[0], frame.ground, eye[2]];
  const lines = [eye, a, eye, b, eye, c, eye, d, a, b, b, c, c, d, d, a, foot, ground[0], foot, ground[1], eye, foot];
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(lines.flat()), 3));
  return new LineSegments(geometry, new LineBasicMaterial({ transparent: true, opacity: 0.75 }));
}

/** Measured points: in the photograph's colours where it shows them, else by height. */
export function pointCloud(frame, request) {
  const steps = new Int16Array(bytes(frame.points.data));
  const positions = Float32Array.from(steps, (value) => value * frame.points.step);
  const colors = new Float32Array(positions.length);
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(positions, 3));
  geometry.setAttribute("color", new BufferAttribute(colors, 3));
  const paint = (sample) => {
    const color = new Color();
    for (let k = 0; k < positions.length; k += 3) {
      const point = [positions[k], positions[k + 1], positions[k + 2]];
      if (!sample?.(color, point)) color.setHSL(0.6 - 0.08 * (frame.ground - point[1]), 0.45, 0.55);
      color.toArray(colors, k);
    }
    geometry.attributes.color.needsUpdate = true;
    request();
  };
  paint(null);
  if (frame.image && frame.camera) photograph(frame).then((image) => paint(sampler(frame, image)), () => {});
  const material = new PointsMaterial({ size: 2.2, sizeAttenuation: false, vertexColors: true, fog: false });
  const points = new Points(geometry, material);
  points.name = "points";
  return points;
}

function sampler({ camera, width, height }, image) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
  return (color, point) => {
    if (point[2] + camera.tz < 0.1) return false;
    const [u, v] = pixel(camera, point);
    const column = Math.floor(((u + 0.5) * canvas.width) / width);
    const row = Math.floor(((v + 0.5) * canvas.height) / height);
    if (column < 0 || row < 0 || column >= canvas.width || row >= canvas.height) return false;
    const k = 4 * (row * canvas.width + column);
    color.setRGB(data[k] / 255, data[k + 1] / 255, data[k + 2] / 255, SRGBColorSpace);
    return true;
  };
}

/** The frame's image, decoded once. */
function photograph(frame) {
  if (!frame.image) return Promise.reject(new Error("no image"));
  frame.decoded ??= (async () => {
    const image = new Image();
    image.src = frame.image;
    await image.decode();
    return image;
  })();
  return frame.decoded;
}
