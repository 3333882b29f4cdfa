// The line page: state and last verdict, strip of the last parts, counts, and what a person does about a stop.

import { PartView, badge, clock, element, icon, json, lasted } from "./shared.js";
import { Live, Reading, get, send } from "./live.js";
import { Sounds } from "./sounds.js";

const STRIP = 20;
const api = "/api/v1";
const at = (id) => document.getElementById(id);
const { view: first, words, rules } = json("initial");
const page = {
  view: first,
  parts: [], // the last ones, oldest first, at most 20
  rules, // stop rules in use
  since: [], // verdicts since the last stop, for the rules
  shown: null, // id of an earlier part that is looked at; null: the last
  cause: null,
  acknowledged: false,
  lost: false,
  said: null, // the last opinion that was given on this page
  now: null, // server time, microseconds
};
const station = page.view.name;
const picture = new PartView(at("view"));
const sounds = new Sounds();

const isStopped = () => page.view.state === "STOPPED";
const last = () => page.parts.at(-1);
const shown = () => page.parts.find((part) => part.id === page.shown) ?? last();

// What is seen ---------------------------------------------------------------------------------------------------

function heroSign() {
  if (page.lost) return words.offline;
  const { state } = page.view;
  if ((state === "RUNNING" || state === "REVIEW") && last()) return words.verdicts[last().verdict];
  return words.states[state];
}

function why() {
  if (page.lost) return "This page has lost the server. Treat every part as bad.";
  if (page.view.reason) return page.view.reason + unanswered();
  return last()?.cause ? (words.errors[last().cause] ?? last().cause) : "";
}

// What is announced again, one level higher each time, while nobody comes.
function unanswered() {
  const late = page.view.alarms.filter((alarm) => alarm.level > 0 && alarm.acked === null);
  if (!late.length || page.now === null) return "";
  return ` – nobody has come for ${lasted(page.now - Math.min(...late.map((alarm) => alarm.raised)))}`;
}

function setIcon(svg, name) {
  svg.querySelector("use").setAttribute("href", `#icon-${name}`);
}

function drawState() {
  const sign = page.lost ? words.offline : words.states[page.view.state];
  at("state").className = `badge is-${sign.icon}`;
  at("state").replaceChildren(icon(sign.icon), element("span", {}, sign.word));
  const hero = heroSign();
  at("hero").className = `hero is-${hero.icon}`;
  setIcon(at("hero-icon"), hero.icon);
  at("hero-word").textContent = hero.word;
  document.title = `${sign.word} – ${station}`;
  document.body.classList.toggle("offline", page.lost);
  at("stop").hidden = !isStopped() || page.lost;
  at("golden").hidden = page.view.golden.state !== "overridden";
  at("golden").textContent = page.view.golden.text;
  at("foot").hidden = isStopped() && !page.lost;
  sounds.state(page.lost ? "OFFLINE" : page.view.state);
  drawStop();
  drawTimes();
}

function drawTimes() {
  at("hero-why").textContent = why();
  if (page.now === null) return;
  at("clock").lastChild.textContent = clock(page.now);
  const ago = lasted(page.now - page.view.since);
  at("state-since").textContent = `since ${clock(page.view.since, false)}`;
  const isVerdict = !page.lost && last() && heroSign() === words.verdicts[last().verdict];
  at("hero-since").textContent = isVerdict
    ? `${last().part_id ?? `part ${last().id}`}, ${clock(last().t_done)}`
    : page.lost ? `last heard at ${clock(page.now)}` : `for ${ago}, since ${clock(page.view.since, false)}`;
}

function drawPart() {
  const part = shown();
  if (!part) return;
  const isEarlier = page.shown !== null && part !== last();
  const facts = [badge(words.verdicts[part.verdict]), element("span", {}, part.part_id ?? `part ${part.id}`)];
  if (part.lot) facts.push(element("span", { class: "quiet" }, `lot ${part.lot}`));
  facts.push(element("span", { class: "quiet" }, clock(part.t_done)));
  if (part.cause) facts.push(element("span", {}, words.errors[part.cause] ?? part.cause));
  if (page.said?.id === part.id) facts.push(element("span", {}, page.said.text));
  if (isEarlier) facts.push(element("span", { class: "earlier" }, "earlier part – Esc: the last"));
  at("facts").replaceChildren(...facts);
  if (picture.part?.id !== part.id) picture.show(part);
}

function drawStrip() {
  const cells = page.parts.map((part) => {
    const sign = words.verdicts[part.verdict];
    const label = `${sign.word}, ${part.part_id ?? `part ${part.id}`}, ${clock(part.t_done)}`;
    const button = element("button", { type: "button", class: `is-${sign.icon}`, "aria-label": label, title: label }, icon(sign.icon));
    if (part === shown()) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => look(part === last() ? null : part.id));
    return element("li", {}, button);
  });
  const empty = Array.from({ length: STRIP - cells.length }, () => element("li", { class: "none", "aria-hidden": "true" }));
  at("strip").replaceChildren(...empty, ...cells);
}

function drawCounts() {
  for (const cell of document.querySelectorAll("[data-count]")) {
    cell.textContent = page.view.counts[cell.dataset.count] ?? 0;
  }
  at("shift-since").textContent = `since ${clock(page.view.shift_since, false)}`;
  at("pace").textContent = page.view.per_minute;
  at("limits").replaceChildren(...page.rules.map(limit).filter(Boolean));
}

// How near a rule is that counts parts; its window begins at the last stop.
function limit(rule) {
  if (rule.kind !== "in_a_row" && rule.kind !== "in_window") return null;
  const parts = rule.verdict === "NG" ? page.since.filter((verdict) => verdict !== "ERROR") : page.since;
  let n = 0;
  if (rule.kind === "in_window") n = parts.slice(-rule.n).filter((verdict) => verdict === rule.verdict).length;
  else while (n < parts.length && parts.at(-1 - n) === rule.verdict) n += 1;
  return element("tr", {},
    element("th", { scope: "row" }, rule.title),
    element("td", {}, `${Math.min(n, rule.k)} of ${rule.k}`),
    element("td", {}, rule.action === "stop" ? "stops the line" : "calls a person"));
}

function drawStop() {
  page.acknowledged = unacknowledged().length === 0;
  at("answer").hidden = page.acknowledged || isStopped() || page.lost;
  const given = page.view.cause;
  at("acknowledge").disabled = page.acknowledged;
  at("acknowledge").firstChild.textContent = page.acknowledged ? "Acknowledged " : "Acknowledge ";
  for (const button of at("causes").children) {
    button.setAttribute("aria-pressed", String(button.dataset.cause === given));
  }
  at("resume").disabled = !given || page.view.check_due;
  const next = page.acknowledged ? (given ? "resume" : "causes") : "acknowledge";
  for (const id of ["acknowledge", "causes", "resume"]) at(id).closest("section").classList.toggle("next", id === next);
  at("acknowledge").classList.toggle("main", next === "acknowledge");
}

function draw() {
  drawState();
  drawPart();
  drawStrip();
  drawCounts();
}

// What happens ---------------------------------------------------------------------------------------------------

const reading = new Reading(
  () => Promise.all([
    get(`${api}/rules`),
    get(`${api}/stations/${station}/state`),
    get(`${api}/inspections?station=${station}&limit=${STRIP}`),
  ]),
  ([rules, state, { inspections }]) => {
    const later = page.parts.filter((part) => part.t_done > inspections[0]?.t_done); // came meanwhile, as events
    page.rules = rules[station];
    page.view = state;
    page.since = [...state.recent, ...later.map((part) => part.verdict)];
    page.parts = [...inspections.reverse(), ...later].slice(-STRIP);
    draw();
  },
);

// An event has no addresses. Browsers keep pictures, and ids begin again in a new store, so the time is part of them.
function links(part) {
  const to = (name) => `${api}/inspections/${part.id}/${name}?v=${part.t_done}`;
  if (part.image_state === "none") return {};
  return part.has_map ? { preview: to("preview"), heat: to("heat") } : { preview: to("preview") };
}

function onEvent(kind, data) {
  if (kind === "tick") {
    page.now = data.t;
    at("clock").classList.toggle("odd");
    drawTimes();
  } else if (kind === "reset") {
    refresh();
  } else if (kind === "inspection") {
    if (page.parts.some((part) => part.id >= data.id)) return;
    data.links = links(data);
    page.parts = [...page.parts, data].slice(-STRIP);
    page.since.push(data.verdict);
    page.since = page.since.slice(-1000);
    draw();
  } else if (kind === "state") {
    const wasStopped = isStopped();
    if (data.rule_version !== page.view.rule_version) refresh();
    page.view = data;
    reading.outdate();
    if (wasStopped && !isStopped()) leaveStop();
    draw();
  } else if (kind === "alarm") {
    refresh();
  }
}

let soon = null; // several events at once are one reading
function refresh() {
  reading.outdate();
  soon ??= setTimeout(() => {
    soon = null;
    reading.now().catch(() => {});
  }, 100);
}

function leaveStop() {
  page.since = [];
  at("note").value = "";
  say("");
}

// What a person does ---------------------------------------------------------------------------------------------

function say(text) {
  at("message").textContent = text;
}

function who() {
  const name = at("who").value.trim() || "operator";
  if (at("who").readOnly) return name;
  try { localStorage.setItem("who", name); } catch { /* private mode */ }
  return name;
}

async function act(action) {
  say("");
  try {
    await action();
    await reading.now();
  } catch (error) {
    say(error.message);
  }
}

const unacknowledged = () => page.view.alarms.filter((each) => each.state.endsWith("unack"));
const acknowledge = () => act(async () => {
  try {
    for (const alarm of unacknowledged()) await send(`${api}/alarms/${alarm.id}/acknowledge`, { who: who() });
  } catch (error) {
    if (error.code !== "role") throw error;
    at("pin").showModal(); // the log-in is locked, or that of a display
    at(at("pin-name").value ? "pin-code" : "pin-name").focus();
  }
});
at("pin").addEventListener("close", () => {
  const person = { name: at("pin-name").value.trim(), pin: at("pin-code").value };
  at("pin-code").value = "";
  if (at("pin").returnValue !== "ok" || !person.name || !person.pin) return;
  act(async () => {
    for (const alarm of unacknowledged()) await send(`${api}/alarms/${alarm.id}/acknowledge/pin`, person);
  });
});
const giveCause = (cause) => {
  if (cause === "other" && !at("note").value.trim()) {
    say("Write a note first.");
    at("note").focus();
    return;
  }
  act(() => send(`${api}/stations/${station}/cause`, { who: who(), cause, note: at("note").value.trim() }));
};
const resume = () => {
  if (!page.view.cause) say("Give the cause first: 1 to 6.");
  else act(() => send(`${api}/stations/${station}/resume`, { who: who() }));
};

function look(id) {
  page.shown = id;
  drawPart();
  drawStrip();
}

function step(by) {
  const index = page.parts.indexOf(shown()) + by;
  if (page.parts[index]) look(index === page.parts.length - 1 ? null : page.parts[index].id);
}

function toggleHeat() {
  const on = at("heat").getAttribute("aria-pressed") !== "true";
  at("heat").setAttribute("aria-pressed", String(on));
  picture.toggle(on);
}

// The opinion on the shown part; the verdict stays.
const judge = (opinion) => act(async () => {
  const part = shown();
  if (!part) return;
  const address = `${api}/inspections/${part.id}/review`;
  const { version } = await get(address);
  await send(address, { who: who(), opinion }, "PUT", { "If-Match": `"${version}"` });
  page.said = { id: part.id, text: `${who()}: ${opinion.toLowerCase()}` };
});

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen().catch(() => {});
}

const keys = {
  " ": () => !page.acknowledged && acknowledge(),
  Enter: () => isStopped() && resume(),
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  Escape: () => look(null),
  h: toggleHeat,
  g: () => judge("GOOD"),
  b: () => judge("BAD"),
  u: () => judge("UNSURE"),
  f: fullScreen,
  "?": () => at("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input")) {
    if (event.key === "Enter" || event.key === "Escape") event.target.blur();
    return;
  }
  const isPress = event.key === " " || event.key === "Enter";
  if (isPress && event.target.matches("button, a")) return; // the focused one does what it says
  const cause = isStopped() ? at("causes").children[Number(event.key) - 1] : undefined;
  const action = cause ? () => giveCause(cause.dataset.cause) : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
for (const id of ["acknowledge", "answer"]) at(id).addEventListener("click", acknowledge);
at("resume").addEventListener("click", resume);
for (const button of at("causes").children) button.addEventListener("click", () => giveCause(button.dataset.cause));
at("heat").addEventListener("click", toggleHeat);
at("help-button").addEventListener("click", () => at("help").showModal());
at("sound").addEventListener("click", () => at("sound").setAttribute("aria-pressed", String(sounds.toggle())));
if (!at("who").readOnly) try { at("who").value = localStorage.getItem("who") ?? ""; } catch { /* private mode */ }

const live = () => new Live(`${api}/events?station=${station}`, {
  onEvent,
  onLost() { page.lost = true; draw(); },
  onFound() { page.lost = false; refresh(); draw(); },
});
live();
reading.now().catch(() => {});
