// Where frames come from: blocks of data in the page itself, or the server that wrote the page.

const KEPT = 12; // decoded frames; a long sequence does not fill the memory

export class Frames {
  #kept = new Map();

  constructor(config) {
    this.names = config.names;
    this.times = config.times ?? [];
    this.served = config.served;
  }

  get length() {
    return this.names.length;
  }

  /** Resolves to the frame at `index`; rejects with a message for the reader. */
  get(index) {
    if (!this.#kept.has(index)) {
      const loading = this.#load(index).then((raw) => prepared(raw, index));
      loading.catch(() => this.#kept.delete(index));
      this.#kept.set(index, loading);
      if (this.#kept.size > KEPT) {
        const oldest = [...this.#kept.keys()].find((key) => Math.abs(key - index) > 2);
        if (oldest !== undefined) this.#kept.delete(oldest);
      }
    }
    return this.#kept.get(index);
  }

  async #load(index) {
    if (!this.served) return JSON.parse(document.querySelector(`script[data-frame="${index}"]`).textContent);
    const answer = await fetch(`api/frames/${index}`).catch(() => {
      throw new Error("the server does not answer: is `monolift view` still running?");
    });
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error);
    return content;
  }
}

/** Gives every object its identity and room for a review. */
function prepared(raw, index) {
  const found = raw.objects.map((object, k) => ({ ...object, kind: "found", id: `p${k}`, index: k }));
  const labels = raw.labels.map((object, k) => ({ ...object, kind: "label", id: `l${k}`, index: k }));
  const all = [...found, ...labels];
  for (const object of all) {
    object.original = { center: [...object.center], size: [...object.size], yaw: object.yaw };
    object.status = "open";
  }
  for (const [k, decision] of (raw.review ?? []).entries()) Object.assign(found[k], decision);
  return { ...raw, index, found, labels, all, byId: new Map(all.map((object) => [object.id, object])) };
}
