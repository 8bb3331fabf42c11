// From frame to frame: slider, steps, play.

import { byId } from "./dom.js";

const PLAY_MS = 150; // per frame at least

export class Player {
  constructor(store, frames, review) {
    Object.assign(this, { store, frames, review, index: -1, playing: false });
    byId("player").hidden = frames.length < 2;
    const slider = byId("frame");
    slider.max = frames.length - 1;
    slider.addEventListener("input", () => this.show(Number(slider.value)));
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    byId("play").addEventListener("click", () => this.toggle());
  }

  step(by) {
    return this.show(Math.min(Math.max(this.index + by, 0), this.frames.length - 1));
  }

  /** Shows a frame; what was decided on the one before is saved first. */
  async show(index) {
    if (index === this.index || !(index in this.frames.names)) return;
    const before = this.store.frame;
    this.index = index;
    byId("frame").value = index;
    byId("place").textContent = `${this.frames.names[index]} (${index + 1} of ${this.frames.length})`;
    if (before) this.review.save(before);
    const notice = byId("notice");
    try {
      const frame = await this.frames.get(index);
      if (this.index !== index) return; // another one was asked for meanwhile
      notice.textContent = frame.warnings.join("; ");
      notice.hidden = !frame.warnings.length;
      this.store.set({ frame, selected: null, hovered: null });
    } catch (error) {
      if (this.index !== index) return;
      notice.textContent = `${this.frames.names[index]}: ${error.message}`;
      notice.hidden = false;
    }
    if (index + 1 < this.frames.length) this.frames.get(index + 1).catch(() => {});
  }

  async toggle() {
    this.playing = !this.playing && this.frames.length > 1;
    this.#button();
    if (this.playing && this.index === this.frames.length - 1) await this.show(0);
    while (this.playing && this.index < this.frames.length - 1) {
      await Promise.all([this.step(1), new Promise((done) => setTimeout(done, PLAY_MS))]);
    }
    this.playing = false;
    this.#button();
  }

  #button() {
    byId("play").textContent = this.playing ? "❚❚" : "▶";
    byId("play").setAttribute("aria-label", this.playing ? "Pause" : "Play");
  }
}
