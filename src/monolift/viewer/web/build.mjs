// Bundles main.js and the parts of three.js it uses into one script. The head of the result names the sources' checksum, so
// that a test notices a bundle that was not built again.

import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { build } from "esbuild";

const here = new URL(".", import.meta.url);
const read = (path) => readFileSync(new URL(path, here), "utf8");
const sources = readdirSync(here).filter((name) => name.endsWith(".js")).sort();
const checksum = createHash("sha256").update(sources.map(read).join("")).digest("hex");
const three = JSON.parse(read("node_modules/three/package.json")).version;

await build({
  entryPoints: [new URL("main.js", here).pathname],
  outfile: new URL("../built/viewer.js", here).pathname,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  legalComments: "none",
  banner: { js: `/* sources ${checksum}; holds three.js ${three}:\n\n${read("node_modules/three/LICENSE").trim()}\n*/` },
});
