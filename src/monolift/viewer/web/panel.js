// The column beside the images: filters, the numbers of the chosen object, the lists.

import { byId, element } from "./dom.js";
import { degrees } from "./geometry.js";
import { isShown } from "./store.js";

const LAYERS = {
  labels: "Labels", meshes: "Meshes", points: "Points", uncertainty: "Uncertainty", photo: "Photo in 3D", grid: "Grid",
};

/** The class, and the id of a tracked object. */
const named = (object) => (object.track === undefined ? object.class : `${object.class} #${object.track}`);

export class Panel {
  constructor(store, review) {
    this.store = store;
    this.review = review;
    byId("score").addEventListener("input", (event) => store.set({ score: Number(event.target.value) }));
    store.on(["score"], () => {
      byId("score").value = store.score;
      byId("score-value").textContent = store.score.toFixed(2);
    });
    store.on(["frame", "hiddenClasses"], () => this.classes());
    store.on(["frame", "layers"], () => this.layers());
    store.on(["frame", "layers", "score", "hiddenClasses", "geometryVersion", "reviewVersion"], () => this.lists());
    store.on(["frame", "selected", "geometryVersion", "reviewVersion"], () => this.details());
    store.on(["selected", "hovered"], () => this.mark()); // after the details have their height: it scrolls
  }

  classes() {
    const { frame, hiddenClasses } = this.store;
    if (!frame) return;
    byId("score-row").hidden = !frame.found.some((object) => object.score !== null);
    const counts = new Map();
    for (const object of frame.all) {
      const entry = counts.get(object.class) ?? { color: object.color, found: 0, label: 0 };
      entry[object.kind] += 1;
      counts.set(object.class, entry);
    }
    const both = frame.labels.length > 0;
    const chip = ([name, { color, found, label }]) => {
      const dot = element("span", { class: "dot" });
      dot.style.background = color;
      const counted = both ? [`${name} ${found}`, element("span", { class: "dot label" }), `${label}`] : [`${name} ${found}`];
      const words = `${name}: ${found} found` + (both ? `, ${label} labelled` : "");
      return element(
        "button",
        { class: "chip", "data-class": name, "aria-pressed": String(!hiddenClasses.has(name)), title: words, "aria-label": words, onclick: () => this.#toggleClass(name) },
        dot, ...counted,
      );
    };
    byId("classes").replaceChildren(...[...counts].sort(([a], [b]) => a.localeCompare(b)).map(chip));
  }

  #toggleClass(name) {
    const hidden = new Set(this.store.hiddenClasses);
    if (!hidden.delete(name)) hidden.add(name);
    this.store.set({ hiddenClasses: hidden });
  }

  layers() {
    const { frame, layers } = this.store;
    if (!frame) return;
    const there = {
      labels: frame.labels.length, meshes: frame.all.some((o) => o.mesh), points: frame.points, uncertainty: frame.all.some((o) => o.sigma),
      photo: frame.image && frame.camera, grid: true,
    };
    const chip = (name) =>
      element(
        "button",
        {
          class: "chip", "data-layer": name, "aria-pressed": String(layers[name]),
          onclick: () => this.store.set({ layers: { ...layers, [name]: !layers[name] } }),
        },
        name === "labels" ? element("span", { class: "dot label" }) : null,
        LAYERS[name],
      );
    byId("layers").replaceChildren(...Object.keys(LAYERS).filter((name) => there[name]).map(chip));
  }

  // -- lists ---------------------------------------------------------------------------------------------------------------

  lists() {
    const { frame } = this.store;
    if (!frame) return;
    const shown = (objects) => objects.filter((object) => isShown(this.store, object));
    const found = shown(frame.found);
    const labels = shown(frame.labels);
    this.visible = [...found, ...labels];
    const both = frame.labels.length > 0;
    const parts = [this.#list(both ? "Found" : "Objects", found, frame.found.length)];
    if (both) parts.push(this.#list("Labels", labels, frame.labels.length));
    byId("lists").replaceChildren(...parts.flat());
    const count = (a, b) => (a === b ? `${b}` : `${a} of ${b}`);
    byId("summary").textContent =
      `${count(found.length, frame.found.length)} ${frame.found.length === 1 ? "object" : "objects"}` +
      (both ? `, ${count(labels.length, frame.labels.length)} ${frame.labels.length === 1 ? "label" : "labels"}` : "");
    this.mark();
  }

  #list(title, objects, all) {
    const empty = all ? "none at this filter" : "none in this image";
    const rows = objects.length ? objects.map((object) => this.#row(object)) : [element("li", { class: "empty" }, empty)];
    return [element("h2", {}, title), element("ul", {}, ...rows)];
  }

  #row(object) {
    const dot = element("span", { class: `dot ${object.kind}` });
    dot.style.background = object.color;
    const mark = { accepted: " ✓", rejected: " ✕", open: "" }[object.status];
    const scored = object.score !== null;
    const bar = element("i");
    bar.style.width = `${100 * (object.score ?? 0)}%`;
    return element(
      "li",
      {
        "data-id": object.id, class: object.status === "rejected" ? "rejected" : null,
        onclick: () => this.store.set({ selected: object.id }),
        onpointerenter: () => this.store.set({ hovered: object.id }),
        onpointerleave: () => this.store.set({ hovered: null }),
      },
      dot,
      element("span", { class: "name" }, named(object), mark ? element("b", {}, mark) : null),
      scored ? element("span", { class: "bar" }, bar) : element("span"),
      element("span", { class: "number" }, scored ? object.score.toFixed(2) : ""),
      element("span", { class: "number" }, `${object.distance.toFixed(1)} m`),
    );
  }

  mark() {
    const { selected, hovered } = this.store;
    for (const row of byId("lists").querySelectorAll("li[data-id]")) {
      row.classList.toggle("hovered", row.dataset.id === hovered);
      const chosen = row.dataset.id === selected;
      if (chosen && !row.classList.contains("selected") && matchMedia("(min-width: 801px)").matches) {
        row.scrollIntoView({ block: "nearest" });
      }
      row.classList.toggle("selected", chosen);
    }
  }

  /** The next object of the lists, for the arrow keys. */
  step(by) {
    if (!this.visible?.length) return;
    const at = this.visible.findIndex((object) => object.id === this.store.selected);
    const next = at < 0 ? (by > 0 ? 0 : this.visible.length - 1) : (at + by + this.visible.length) % this.visible.length;
    this.store.set({ selected: this.visible[next].id });
  }

  // -- the chosen object ---------------------------------------------------------------------------------------------------

  details() {
    const root = byId("details");
    const object = this.store.frame?.byId.get(this.store.selected);
    root.classList.toggle("on", Boolean(object));
    if (!object) return root.replaceChildren();
    const dot = element("span", { class: `dot ${object.kind}` });
    dot.style.background = object.color;
    const head = element(
      "div", { class: "head" }, dot, object.kind === "label" ? `${object.class}, label` : named(object),
      element("span", { class: "score" }, object.score === null ? "" : `score ${object.score.toFixed(2)}`),
      element("button", { class: "quiet close", "aria-label": "Close", onclick: () => this.store.set({ selected: null }) }, "×"),
    );
    return root.replaceChildren(head, element("table", {}, ...this.#rows(object)), ...this.review.verdict(object));
  }

  #rows(object) {
    const { sigma, match } = object;
    const nudge = this.review.canEdit(object);
    const row = (name, field, text, unit, spread, edit) => {
      const value = [element("span", { "data-field": field }, text), element("span", { class: "unit" }, unit ? ` ${unit}` : "")];
      if (spread !== undefined && spread !== null) value.push(element("span", { class: "sigma" }, `± ${spread}`));
      return element(
        "tr", {}, element("td", {}, name), element("td", { class: "value" }, ...value),
        nudge ? element("td", { class: "step" }, ...(edit ? this.review.steppers(object, edit) : [])) : null,
      );
    };
    const metres = (value) => value.toFixed(2);
    const spread = (list, k) => (list && list[k] !== null ? metres(list[k]) : null); // null: the method does not know
    const rows = [row("distance", "distance", metres(object.distance), "m")];
    ["x right", "y down", "z ahead"].forEach((name, k) =>
      rows.push(row(name, "xyz"[k], metres(object.center[k]), "m", spread(sigma?.center, k), ["center", k])));
    ["length", "height", "width"].forEach((name, k) =>
      rows.push(row(name, name, metres(object.size[k]), "m", spread(sigma?.size, k), ["size", k])));
    const turn = sigma && sigma.yaw !== null ? `${degrees(sigma.yaw).toFixed(1)}°` : null;
    rows.push(row("yaw", "yaw", `${degrees(object.yaw).toFixed(1)}°`, "", turn, ["yaw"]));
    rows.push(row("alpha", "alpha", `${degrees(object.alpha).toFixed(1)}°`, ""));
    if (object.speed !== undefined && object.speed !== null) {
      rows.push(row(object.relative ? "speed, relative" : "speed", "speed", (3.6 * object.speed).toFixed(0), "km/h"));
    }
    if (object.box2d) rows.push(row("2D box", "box2d", object.box2d.map((v) => v.toFixed(0)).join(" "), "px"));
    if (match) {
      rows.push(row("label: 3D IoU", "iou", match.iou.toFixed(2), ""));
      rows.push(row("label: apart", "apart", metres(match.apart), "m", null));
      rows.push(row("label: turned", "turned", `${degrees(match.turned).toFixed(1)}°`, ""));
    } else if (object.kind === "found" && this.store.frame.labels.length) {
      rows.push(row("label", "match", "none within 4 m", ""));
    }
    return rows;
  }
}
