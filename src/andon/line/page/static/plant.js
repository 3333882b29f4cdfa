// All stations of the database; the tiles are read again every five seconds.

import { page } from "./live.js";
import { local } from "./times.js";

const EVERY_MS = 5000;
const lost = document.getElementById("lost");

function show(tiles) {
  const focused = document.activeElement?.getAttribute("href");
  document.getElementById("tiles").replaceWith(tiles);
  local(tiles);
  if (focused) [...tiles.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

function hatch() {
  for (const tile of document.querySelectorAll(".tile")) {
    tile.className = "tile is-offline";
    tile.querySelector("use").setAttribute("href", "#icon-offline");
    tile.querySelector("strong").textContent = "OFFLINE";
  }
}

async function follow() {
  try {
    show((await page("/plant", EVERY_MS)).getElementById("tiles"));
    lost.hidden = true;
  } catch {
    lost.hidden = false;
    hatch();
  }
  setTimeout(follow, EVERY_MS);
}

setTimeout(follow, EVERY_MS);
