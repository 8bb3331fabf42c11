// The one state of the page. Whoever changes it calls set; whoever shows it listens to the keys it depends on.

export class Store {
  #listeners = [];

  constructor(initial) {
    Object.assign(this, initial);
  }

  /** Calls `listener` after any of `keys` changed, and once now. */
  on(keys, listener) {
    this.#listeners.push({ keys, listener });
    listener(this);
  }

  set(changes) {
    const changed = Object.keys(changes).filter((key) => this[key] !== changes[key]);
    if (!changed.length) return;
    Object.assign(this, changes);
    for (const { keys, listener } of this.#listeners) {
      if (keys.some((key) => changed.includes(key))) listener(this);
    }
  }
}

/** Whether the filters let an object through. Labels have no score; only their class and their layer count. */
export function isShown(state, object) {
  if (state.hiddenClasses.has(object.class)) return false;
  if (object.kind === "label") return state.layers.labels;
  return object.score === null || object.score >= state.score;
}
