// From frame to frame: slider, steps, play.

import { byId } from "./dom.js";

const PLAY_MS = 150; // per frame at least, where frames have no time
const LONGEST_MS = 1000; // a gap in time is not waited for

/** Seconds as 0:01.10. */
const clock = (time) => `${Math.floor(time / 60)}:${(time % 60).toFixed(2).padStart(5, "0")}`;

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
    const time = this.frames.times[index] ?? null;
    const label = `${this.frames.names[index]} (${index + 1} of ${this.frames.length})`;
    byId("place").textContent = time === null ? label : `${clock(time)}  ${label}`;
    byId("frame").setAttribute("aria-valuetext", byId("place").textContent);
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
      const wait = this.#wait();
      await Promise.all([this.step(1), new Promise((done) => setTimeout(done, wait))]);
    }
    this.playing = false;
    this.#button();
  }

  /** Milliseconds until the next frame: a video plays at its own speed where the page can follow. */
  #wait() {
    const [now, next] = [this.frames.times[this.index] ?? null, this.frames.times[this.index + 1] ?? null];
    return now === null || next === null || next < now ? PLAY_MS : Math.min(1000 * (next - now), LONGEST_MS);
  }

  #button() {
    byId("play").textContent = this.playing ? "❚❚" : "▶";
    byId("play").setAttribute("aria-label", this.playing ? "Pause" : "Play");
  }
}
