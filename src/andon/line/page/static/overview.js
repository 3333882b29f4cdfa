// All stations of a line; each tile follows its state.

import { icon, json } from "./shared.js";
import { Live, Reading, get } from "./live.js";

const words = json("words");
const tiles = [...document.querySelectorAll(".tile")];

function show(tile, sign, why) {
  tile.className = `tile is-${sign.icon}`;
  tile.querySelector("svg").replaceWith(icon(sign.icon));
  tile.querySelector("strong").textContent = sign.word;
  tile.querySelector(".why").textContent = why;
}

function draw(view) {
  const tile = tiles.find((each) => each.dataset.station === view.name);
  if (tile) show(tile, words.states[view.state], view.reason);
}

const reading = new Reading(() => get("/api/v1/stations"), (views) => views.forEach(draw));
const read = () => reading.now().catch(() => {});

const live = () => new Live("/api/v1/events", {
  onEvent(kind, data) {
    if (kind === "state") {
      draw(data);
      reading.outdate();
    }
    if (kind === "reset") read();
  },
  onLost() { tiles.forEach((tile) => show(tile, words.offline, "This page has lost the server.")); },
  onFound: read,
});
live();
