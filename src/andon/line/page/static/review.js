// Reviews by keys: one part after the other. The next parts are held and their pictures loaded meanwhile.

import { PartView, element, json } from "./shared.js";
import { send } from "./live.js";

const AHEAD = 4;
const SKIPPED = 1000;
const api = "/api/v1";
const at = (id) => document.getElementById(id);
const { stations } = json("initial");
const picture = new PartView(at("view"));
picture.heat = false;
const desk = {
  items: [], // held by this person, the first is shown
  skipped: [],
  done: [], // { item, version } of own answers, the newest last
  last: Promise.resolve(), // ends with the last action
};

function who() {
  const name = at("who").value.trim();
  if (at("who").readOnly) return name;
  try { localStorage.setItem("who", name); } catch { /* private mode */ }
  return name;
}

const say = (text) => { at("message").textContent = text; };

// One action after the other, in the order of the keys.
function act(action) {
  desk.last = desk.last.then(() => say("")).then(action).catch((error) => say(error.message));
}

async function take() {
  if (!who()) {
    say("Write your name first.");
    at("who").focus();
    return;
  }
  const found = await send(`${api}/reviews/next`, { who: who(), n: AHEAD, stations, skip: desk.skipped });
  desk.items = found.items;
  if (!desk.items.length && desk.skipped.length) {
    desk.skipped = [];
    say("All other parts are judged. Those that were passed over come again: press Space.");
  }
  at("left").textContent = `${found.waiting} waiting, ${desk.done.length} done`;
  desk.items.slice(1).forEach(prefetch);
  draw();
}

function prefetch(item) {
  if (item.links.preview) new Image().src = item.links.preview;
}

function draw() {
  const [item] = desk.items;
  const facts = item ? [item.part_id ?? `part ${item.id}`, item.station, item.lot && `lot ${item.lot}`, item.verdict,
    item.why, item.second && "second opinion"] : ["No part waits for review"];
  at("title").textContent = facts.filter(Boolean).join(" – ");
  if (picture.part?.id !== item?.id) picture.show(item ? { ...item, verdict: item.verdict ?? "to be judged" } : null);
  at("heat").hidden = !item?.links.heat;
  at("undo").disabled = desk.done.length === 0;
  const types = (item?.defect_types ?? []).map((name, index) => {
    const button = element("button", { type: "button" }, element("kbd", {}, String(index + 1)), ` ${name}`);
    button.addEventListener("click", () => answer("BAD", name));
    return button;
  });
  at("types").replaceChildren(...types);
}

const match = (version) => ({ "If-Match": `"${version}"` });

// About the part that is on the screen when the key is pressed, never about the one that comes after it.
function answer(opinion, defect_type = null) {
  const id = desk.items[0]?.id;
  act(async () => {
    const [item] = desk.items;
    if (item?.id === id) await (item ? store(item, opinion, defect_type) : take());
  });
}

async function store(item, opinion, defect_type) {
  try {
    const body = { who: who(), opinion, defect_type };
    const said = await send(`${api}/inspections/${item.id}/review`, body, "PUT", match(item.version));
    desk.done.push({ item, version: said.version });
    const words = `${item.part_id ?? `Part ${item.id}`}: you said ${opinion.toLowerCase()}${defect_type ? ` (${defect_type})` : ""}`;
    at("last").textContent = `${words}, the line said ${said.verdict}${said.overridden ? " – the opposite" : ""}.`;
  } catch (error) {
    if (error.status !== 409 && error.status !== 412) throw error;
    at("last").textContent = `${error.message}.`; // somebody else has it: go on with the next
  }
  desk.items.shift();
  draw();
  await take();
}

const next = () => act(async () => {
  const [item] = desk.items;
  if (item) desk.skipped = [...desk.skipped, item.id].slice(-SKIPPED);
  await take();
});

const undo = () => act(async () => {
  const last = desk.done.at(-1);
  if (!last) return;
  const { version } = await send(`${api}/inspections/${last.item.id}/review/undo`, { who: who() }, "POST", match(last.version));
  desk.done.pop();
  desk.skipped = desk.skipped.filter((id) => id !== last.item.id);
  desk.items = [{ ...last.item, version }, ...desk.items].slice(0, AHEAD);
  draw();
  at("last").textContent = `The answer on ${last.item.part_id ?? `part ${last.item.id}`} is withdrawn.`;
});

function toggleHeat() {
  const on = at("heat").getAttribute("aria-pressed") !== "true";
  at("heat").setAttribute("aria-pressed", String(on));
  picture.toggle(on);
}

const keys = {
  g: () => answer("GOOD"),
  b: () => answer("BAD"),
  u: () => answer("UNSURE"),
  z: undo,
  h: () => !at("heat").hidden && toggleHeat(),
  " ": next,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.matches("input")) {
    if (event.key === "Enter") event.target.blur();
    return;
  }
  if (event.key === " " && event.target.matches("button, a")) return;
  const type = at("types").children[Number(event.key) - 1];
  const action = type ? () => type.click() : keys[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
});
for (const button of document.querySelectorAll("[data-opinion]")) {
  button.addEventListener("click", () => answer(button.dataset.opinion));
}
at("next").addEventListener("click", next);
at("undo").addEventListener("click", undo);
at("heat").addEventListener("click", toggleHeat);
at("who").addEventListener("change", () => act(take));
if (!at("who").readOnly) try { at("who").value = localStorage.getItem("who") ?? ""; } catch { /* private mode */ }
act(take);
