// Puts the page together. `window.monolift` lets tests, and the curious, look inside.

import { byId } from "./dom.js";
import { Frames } from "./frames.js";
import { corners, pixel, useOrder } from "./geometry.js";
import { listenToKeys } from "./keys.js";
import { Panel } from "./panel.js";
import { ImageView } from "./image_view.js";
import { Player } from "./player.js";
import { Review } from "./review.js";
import { Space } from "./space.js";
import { Store } from "./store.js";

function rememberedTheme() {
  try {
    const kept = localStorage.getItem("monolift-theme");
    if (kept) return kept;
  } catch {
    // pages from disk may have no storage
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

const config = JSON.parse(byId("config").textContent);
useOrder(config.geometry);
const store = new Store({
  frame: null, selected: null, hovered: null, score: 0, hiddenClasses: new Set(), theme: rememberedTheme(), geometryVersion: 0, reviewVersion: 0,
  layers: { labels: true, meshes: true, points: true, uncertainty: true, photo: true, grid: true },
});
store.on(["theme"], () => (document.documentElement.dataset.theme = store.theme));

function toggleTheme() {
  store.set({ theme: store.theme === "dark" ? "light" : "dark" });
  try {
    localStorage.setItem("monolift-theme", store.theme);
  } catch {
    // not remembered, then
  }
}
byId("theme").addEventListener("click", toggleTheme);

const review = new Review(store, config);
const image = new ImageView(store);
const space = new Space(store);
const panel = new Panel(store, review);
const player = new Player(store, new Frames(config), review);
listenToKeys({ store, space, panel, player, review, toggleTheme });
window.monolift = { store, space, image, player, review, corners, pixel };
player.show(0);
