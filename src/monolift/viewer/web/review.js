// Looking through labels: accept, reject, nudge. The server writes what was accepted.

import { byId, element } from "./dom.js";
import { wrap } from "./geometry.js";

const STEPS = { center: 0.05, size: 0.05, yaw: Math.PI / 180 }; // metres, metres, radians
const SMALLEST = 0.1; // metres

export class Review {
  constructor(store, config) {
    this.store = store;
    this.on = config.review;
    byId("review").hidden = !this.on;
    if (!this.on) return;
    this.unsaved = new Set();
    this.message = element("p");
    this.count = element("p");
    const accept = element("button", { id: "accept-rest", title: "Accept all that is open (Shift+A)", onclick: () => this.acceptRest() }, "Accept the rest");
    const save = element("button", { id: "save", title: "Save (S)", onclick: () => this.save() }, "Save");
    byId("review").replaceChildren(element("h2", {}, "Review"), this.count, element("div", { class: "row" }, accept, save), this.message);
    store.on(["frame", "reviewVersion"], () => this.tell());
    addEventListener("beforeunload", (event) => this.unsaved.size && event.preventDefault());
  }

  tell() {
    const { frame } = this.store;
    if (!frame) return;
    const count = (status) => frame.found.filter((object) => object.status === status).length;
    this.count.textContent = `${count("accepted")} accepted, ${count("rejected")} rejected, ${count("open")} open`;
    byId("save").disabled = !this.unsaved.has(frame);
  }

  canEdit(object) {
    return this.on && object.kind === "found";
  }

  #chosen() {
    const object = this.store.frame?.byId.get(this.store.selected);
    return object && this.canEdit(object) ? object : null;
  }

  #changed(geometry = false) {
    this.unsaved.add(this.store.frame);
    this.message.textContent = "";
    this.store.set({ reviewVersion: this.store.reviewVersion + 1 });
    if (geometry) this.store.set({ geometryVersion: this.store.geometryVersion + 1 });
  }

  // -- decisions -----------------------------------------------------------------------------------------------------------

  decide(status) {
    const object = this.#chosen();
    if (!object) return;
    object.status = object.status === status ? "open" : status;
    this.#changed();
  }

  acceptRest() {
    if (!this.on) return;
    for (const object of this.store.frame.found) if (object.status === "open") object.status = "accepted";
    this.#changed();
  }

  /** Moves one number of the chosen object by `count` steps: field is center, size or yaw. */
  nudge([field, axis], count) {
    const object = this.#chosen();
    if (!object) return;
    const step = STEPS[field] * count;
    if (field === "yaw") object.yaw = wrap(object.yaw + step);
    else {
      object[field] = [...object[field]];
      object[field][axis] = Math.round((object[field][axis] + step) * 1e4) / 1e4;
      if (field === "size") object.size[axis] = Math.max(object.size[axis], SMALLEST);
    }
    this.#derive(object);
    this.#changed(true);
  }

  reset() {
    const object = this.#chosen();
    if (!object) return;
    Object.assign(object, structuredClone(object.original));
    this.#derive(object);
    this.#changed(true);
  }

  #derive(object) {
    const [x, , z] = object.center;
    object.distance = Math.hypot(x, z);
    object.alpha = wrap(object.yaw - Math.atan2(x, z));
    object.match = null; // was of the box before
  }

  // -- buttons -------------------------------------------------------------------------------------------------------------

  steppers(object, edit) {
    const button = (text, count) =>
      element("button", { "data-nudge": `${edit.join(" ")} ${count}`, "aria-label": `${edit[0]} ${text}`, onclick: () => this.nudge(edit, count) }, text);
    return [button("−", -1), button("+", 1)];
  }

  verdict(object) {
    if (!this.canEdit(object)) return [];
    const button = (status, text) =>
      element("button", { class: text.toLowerCase(), "aria-pressed": String(object.status === status), onclick: () => this.decide(status) }, text);
    return [
      element("div", { class: "verdict" }, button("accepted", "Accept"), button("rejected", "Reject"),
        element("button", { title: "As it was (0)", onclick: () => this.reset() }, "Reset")),
    ];
  }

  // -- saving --------------------------------------------------------------------------------------------------------------

  /** Sends the decisions of a frame; resolves to whether they are saved. */
  async save(frame = this.store.frame) {
    if (!this.on || !this.unsaved.has(frame)) return true;
    const objects = frame.found.map(({ status, center, size, yaw }) => ({ status, center, size, yaw }));
    this.unsaved.delete(frame);
    try {
      const answer = await fetch(`api/frames/${frame.index}/review`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ objects }),
      });
      const content = await answer.json();
      if (!answer.ok) throw new Error(content.error);
      this.#say(`saved ${content.written} ${content.written === 1 ? "label" : "labels"} to ${content.file}`, false);
    } catch (error) {
      this.unsaved.add(frame);
      this.#say(`not saved: ${error.message}`, true);
    }
    this.tell();
    return !this.unsaved.has(frame);
  }

  #say(text, failed) {
    this.message.textContent = text;
    this.message.classList.toggle("failed", failed);
  }
}
