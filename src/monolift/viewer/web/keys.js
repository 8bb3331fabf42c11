// The keyboard, and the page that lists it.

import { byId, element } from "./dom.js";

export function listenToKeys({ store, space, panel, player, review, toggleTheme }) {
  const layer = (name) => () => store.set({ layers: { ...store.layers, [name]: !store.layers[name] } });
  const score = (by) => () => store.set({ score: Math.min(Math.max(Math.round((store.score + by) * 100) / 100, 0), 1) });
  const help = () => byId("keys").showModal();
  const always = [
    [["ArrowLeft", "ArrowRight"], "← →", "frame before, frame after", [() => player.step(-1), () => player.step(1)]],
    [["Home", "End"], "Home End", "first, last frame", [() => player.show(0), () => player.show(player.frames.length - 1)]],
    [[" "], "Space", "play, pause", [() => player.toggle()]],
    [["ArrowUp", "ArrowDown"], "↑ ↓", "object before, object after", [() => panel.step(-1), () => panel.step(1)]],
    [["Escape"], "Esc", "choose nothing", [() => store.set({ selected: null })]],
    [["f"], "F", "fly to the object", [() => space.focus()]],
    [["1", "2", "3"], "1 2 3", "from behind, from the camera, from above", ["orbit", "camera", "top"].map((view) => () => space.look(view))],
    [["[", "]"], "[ ]", "lower, higher score", [score(-0.05), score(0.05)]],
    [["l", "m", "p"], "L M P", "labels, meshes, points", ["labels", "meshes", "points"].map(layer)],
    [["u", "i", "g"], "U I G", "uncertainty, photo in 3D, grid", ["uncertainty", "photo", "grid"].map(layer)],
    [["t"], "T", "light or dark", [toggleTheme]],
    [["?"], "?", "this list", [help]],
  ];
  const nudges = (edit) => [() => review.nudge(edit, -1), () => review.nudge(edit, 1)];
  const reviewing = [
    [["a", "r"], "A R", "accept, reject", [() => review.decide("accepted"), () => review.decide("rejected")]],
    [["A"], "Shift A", "accept all that is open", [() => review.acceptRest()]],
    [["shift ArrowLeft", "shift ArrowRight"], "Shift ← →", "move left, right", nudges(["center", 0])],
    [["shift ArrowDown", "shift ArrowUp"], "Shift ↓ ↑", "move nearer, further", nudges(["center", 2])],
    [["PageUp", "PageDown"], "PgUp PgDn", "move up, down", nudges(["center", 1])],
    [["q", "e"], "Q E", "turn", nudges(["yaw"])],
    [["z", "x"], "Z X", "shorter, longer", nudges(["size", 0])],
    [["c", "v"], "C V", "lower, higher", nudges(["size", 1])],
    [["b", "n"], "B N", "narrower, wider", nudges(["size", 2])],
    [["0"], "0", "as it was", [() => review.reset()]],
    [["s"], "S", "save", [() => review.save()]],
  ];
  const table = review.on ? [...always, ...reviewing] : always;
  const actions = new Map(table.flatMap(([keys, , , does]) => keys.map((key, k) => [key, does[k]])));
  const list = byId("keys").querySelector("dl");
  for (const [, shown, text] of table) {
    const caps = shown.split(" ").flatMap((key) => [element("kbd", {}, key), " "]);
    list.append(element("dt", {}, ...caps), element("dd", {}, text));
  }
  byId("help").addEventListener("click", help);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
    const inSlider = event.target.matches?.('input[type="range"]') && /Arrow|Home|End|Page/.test(event.key);
    const onButton = event.target.matches?.("button") && event.key === " ";
    if (inSlider || onButton) return;
    const arrow = event.shiftKey && event.key.startsWith("Arrow") ? `shift ${event.key}` : event.key;
    const action = actions.get(arrow) ?? (event.shiftKey ? undefined : actions.get(event.key.toLowerCase()));
    if (!action) return;
    event.preventDefault();
    action();
  });
}
