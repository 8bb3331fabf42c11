// Boxes and the pinhole camera in the frame of the data: x right, y down, z forward, metres; pixel centres at integers.
// The order of corners and edges comes with the page from monolift.geometry, which these few formulas repeat.

let order;

export function useOrder(geometry) {
  order = geometry;
}

/** The eight corners of a box: size is length, height, width along its own x, y, z; yaw turns about +y. */
export function corners({ center, size, yaw }) {
  const [c, s] = [Math.cos(yaw), Math.sin(yaw)];
  return order.signs.map((sign) => {
    const [x, y, z] = sign.map((value, axis) => (value * size[axis]) / 2);
    return [c * x + s * z + center[0], y + center[1], -s * x + c * z + center[2]];
  });
}

export function edges() {
  return order.edges;
}

/** The two diagonals of the front face: they mark the heading. */
export function frontCross() {
  const [a, b, c, d] = order.front;
  return [[a, c], [b, d]];
}

export function frontFace() {
  return order.front;
}

/** The pixel of a point in front of the camera: K (X + t). */
export function pixel(camera, [x, y, z]) {
  const depth = z + camera.tz;
  return [(camera.fx * (x + camera.tx)) / depth + camera.cx, (camera.fy * (y + camera.ty)) / depth + camera.cy];
}

/** A line in space as two pixels, cut at the near plane; null where all of it is behind. */
export function projectedLine(camera, a, b) {
  const [za, zb] = [a[2] + camera.tz, b[2] + camera.tz];
  if (za < order.near && zb < order.near) return null;
  const cut = () => a.map((value, axis) => value + ((order.near - za) / (zb - za)) * (b[axis] - value));
  return [pixel(camera, za < order.near ? cut() : a), pixel(camera, zb < order.near ? cut() : b)];
}

/** The convex outline of points in the plane, by Andrew's monotone chain. */
export function outline(points) {
  const sorted = [...points].sort((p, q) => p[0] - q[0] || p[1] - q[1]);
  const turn = (o, p, q) => (p[0] - o[0]) * (q[1] - o[1]) - (p[1] - o[1]) * (q[0] - o[0]);
  const half = (list) => {
    const chain = [];
    for (const p of list) {
      while (chain.length > 1 && turn(chain.at(-2), chain.at(-1), p) <= 0) chain.pop();
      chain.push(p);
    }
    return chain.slice(0, -1);
  };
  return [...half(sorted), ...half(sorted.reverse())];
}

export function wrap(angle) {
  return angle - 2 * Math.PI * Math.floor((angle + Math.PI) / (2 * Math.PI));
}

export function degrees(angle) {
  return (angle * 180) / Math.PI;
}
