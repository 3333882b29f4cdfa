// History: choose a part by mouse or keys, look at its picture.

import "./times.js";
import { PartView } from "./shared.js";
import { get } from "./live.js";

const at = (id) => document.getElementById(id);
const rows = [...document.querySelectorAll("#rows tbody tr[data-id]")];
const picture = new PartView(at("view"));
let chosen = -1;

async function choose(index) {
  if (!rows[index]) return;
  rows[chosen]?.removeAttribute("aria-selected");
  chosen = index;
  const row = rows[index];
  row.setAttribute("aria-selected", "true");
  row.scrollIntoView({ block: "nearest" });
  const part = await get(`/api/v1/inspections/${row.dataset.id}`);
  if (rows[chosen] !== row) return;
  at("detail").hidden = false;
  at("detail-title").textContent = `${part.verdict} – ${part.part_id ?? `part ${part.id}`}`;
  picture.show(part);
}

function toggleHeat() {
  const on = at("heat").getAttribute("aria-pressed") !== "true";
  at("heat").setAttribute("aria-pressed", String(on));
  picture.toggle(on);
}

const keys = {
  ArrowDown: () => choose(chosen + 1),
  ArrowUp: () => choose(chosen - 1),
  Enter: () => rows[chosen]?.querySelector("a").click(),
  h: toggleHeat,
  n: () => at("older")?.click(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select, button, a")) return;
  const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
rows.forEach((row, index) => row.addEventListener("click", (event) => {
  if (!event.target.closest("a")) choose(index);
}));
at("heat").addEventListener("click", toggleHeat);
choose(0);
