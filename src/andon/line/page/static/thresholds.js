// Thresholds: two handles on the histogram. Everything is counted here, without the server, until something is saved or tried.

import "./times.js";
import { element, json } from "./shared.js";
import { send } from "./live.js";
import { below, cost, interval, partsToClaim, places, verdicts } from "./statistics.js";

const { station, version, known, pictures, line } = json("initial");
const address = `/api/v1/stations/${station}/thresholds`;
const at = (id) => document.getElementById(id);
const ascending = (scores) => Float64Array.from(scores).sort();
const chart = at("chart");
const [low, high] = [Number(chart.dataset.low), Number(chart.dataset.high)];
const LISTED = 24;
const LEAST = 1e-4;

const sorted = {
  good: ascending(known.good.scores),
  good_tests: ascending(known.good_tests.scores),
  bad: ascending(known.bad.scores),
  line: ascending(line),
  reviewed_good: ascending(known.reviewed_good.scores),
  reviewed_bad: ascending(known.reviewed_bad.scores),
};
const allGood = ascending([...known.good.scores, ...known.good_tests.scores]);
const within = ascending(known.within);
const parts = ascending(known.parts);
const sessions = [...new Set(known.good.sessions)].sort().map((name) =>
  ascending(known.good.scores.filter((_, k) => known.good.sessions[k] === name)));
const steps = (() => {
  const own = ascending([...allGood, ...sorted.bad]);
  return places(own.length ? own : sorted.line).filter((place) => place >= LEAST);
})();
const curvePlaces = places(ascending([...allGood, ...sorted.bad]));
const now = { accept: Number(at("accept").value), reject: Number(at("reject").value) };
const cells = { count: new Map(), interval: new Map() };
for (const [name, found] of Object.entries(cells)) {
  for (const cell of document.querySelectorAll(`[data-${name}]`)) {
    const key = cell.dataset[name];
    found.set(key, [...(found.get(key) ?? []), cell]);
  }
}

const percent = (rate) => (100 * rate).toFixed(1);
const across = (score) => (1000 * (score - low)) / (high - low);
const prices = () => {
  const share = Number(at("percent").value) / 100;
  return [share * Number(at("escape").value), (1 - share) * Number(at("rejected").value)];
};

function write(name, key, text) {
  for (const cell of cells[name].get(key) ?? []) if (cell.textContent !== text) cell.textContent = text;
}

function say(id, text) {
  if (at(id)) at(id).textContent = text;
}

function show(key, count, n) {
  write("count", key, `${count} of ${n}`);
  const [from, to] = n ? interval(count, n) : [0, 1];
  write("interval", key, n ? `${percent(from)} to ${percent(to)} %` : "–");
}

function showAll(kind, scores) {
  const found = verdicts(scores, now.accept, now.reject);
  for (const name of ["passed", "review", "stopped"]) {
    if (cells.count.has(`${kind}.${name}`)) show(`${kind}.${name}`, found[name], found.n);
  }
  return found;
}

function recount() {
  performance.mark("begin");
  for (const [kind, scores] of Object.entries(sorted)) showAll(kind, scores);
  sessions.forEach((scores, k) => showAll(`session.${k}`, scores));
  showAll("within", within);
  const rejected = verdicts(parts, now.reject, now.reject).stopped;
  if (at("promise")) {
    const expected = (rejected + 1) / (parts.length + 1);
    const kept = expected <= known.promised + 1e-12;
    say("expected", percent(expected));
    say("kept", kept ? "The promise is kept." : "The promise is broken.");
    at("promise").classList.toggle("note", !kept);
  }
  if (at("claim")) {
    const passed = verdicts(sorted.bad, now.accept, now.accept).passed;
    say("claim", String(partsToClaim(0.01, passed) ?? "more than 10,000,000"));
  }
  if (at("cost")) say("cost", short(cost(allGood, sorted.bad, now.accept, now.reject, prices())));
  listWrong();
  for (const name of ["accept", "reject"]) {
    const handle = at(`${name}-handle`);
    handle.setAttribute("transform", `translate(${across(now[name])} 0)`);
    handle.setAttribute("aria-valuenow", String(now[name]));
    handle.setAttribute("aria-valuetext", now[name].toFixed(4));
  }
  performance.measure("recount", "begin");
}

// Four significant digits, without an exponent where a price has none.
const short = (value) => String(Number(value.toPrecision(4)));

function drawCurve() {
  if (!at("cost")) return;
  const weights = prices();
  const costs = curvePlaces.map((place) => cost(allGood, sorted.bad, place, place, weights));
  const best = costs.indexOf(Math.min(...costs));
  const most = Math.max(...costs, Number.MIN_VALUE);
  const points = curvePlaces.map((place, k) => `${across(place).toFixed(1)} ${(320 - (300 * costs[k]) / most).toFixed(1)}`);
  at("curve").setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
  say("cheapest", curvePlaces[best].toFixed(4));
  say("cheapest-cost", short(costs[best]));
}

// Images of one kind with their names, by score.
function byScore(kind, ...groups) {
  const found = groups.flatMap(({ scores, names }) => scores.map((score, k) => ({ kind, score, name: names[k] ?? "" })));
  return found.sort((a, b) => a.score - b.score || (a.name < b.name ? -1 : 1));
}

const goodByScore = byScore("good", known.good, known.good_tests, known.reviewed_good);
const badByScore = byScore("bad", known.bad, known.reviewed_bad);
const goodScores = goodByScore.map((image) => image.score);
const badScores = badByScore.map((image) => image.score);

// Good images that are stopped and bad ones that pass, the nearest to its threshold first.
function wrongImages() {
  const first = below(goodScores, now.reject);
  const last = below(badScores, now.accept);
  const good = goodByScore.slice(first, first + LISTED).map((image) => ({ ...image, distance: image.score - now.reject }));
  const bad = badByScore.slice(Math.max(0, last - LISTED), last).map((image) => ({ ...image, distance: now.accept - image.score }));
  const text = (image) => `${image.kind} ${image.name}`;
  return [...good, ...bad].sort((a, b) => a.distance - b.distance || (text(a) < text(b) ? -1 : 1)).slice(0, LISTED);
}

let listed = "";
function listWrong() {
  const found = wrongImages();
  const key = found.map((image) => `${image.kind}/${image.name}`).join("\n");
  if (key === listed && listed) return;
  listed = key;
  at("wrong").replaceChildren(...found.map((image) => element("li", {}, ...picture(image),
    element("span", {}, `${image.kind === "good" ? "Good, stopped" : "Bad, passes"}: ${image.name || "image"}`))));
  if (!found.length) at("wrong").append(element("li", {}, "None of the known images."));
}

function picture(image) {
  return image.name in pictures ? [element("img", { src: pictures[image.name], alt: "", loading: "lazy" })] : [];
}

function move(name, value) {
  const other = name === "accept" ? now.reject : now.accept;
  const inside = Math.min(1000, Math.max(LEAST, value));
  now[name] = name === "accept" ? Math.min(inside, other) : Math.max(inside, other);
  at(name).value = String(now[name]);
  recount();
}

// The threshold `count` images further up; down where it is negative.
function stepped(from, count) {
  let index = steps.findIndex((place) => place >= from);
  if (index < 0) index = steps.length;
  if (count > 0 && steps[index] !== from) index -= 1;
  return steps[Math.min(steps.length - 1, Math.max(0, index + count))] ?? from;
}

const keys = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
for (const name of ["accept", "reject"]) {
  const handle = at(`${name}-handle`);
  handle.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    move(name, stepped(now[name], keys[event.key]));
  });
  handle.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    handle.focus();
    handle.setPointerCapture(event.pointerId);
  });
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const box = chart.getBoundingClientRect();
    move(name, low + ((high - low) * (event.clientX - box.left)) / box.width);
  });
  at(name).addEventListener("change", () => move(name, Number(at(name).value) || now[name]));
}
for (const name of ["escape", "rejected", "percent"]) {
  at(name).addEventListener("input", () => {
    drawCurve();
    recount();
  });
}

async function act(work) {
  try {
    await work();
  } catch (error) {
    say("message", error.message);
    at("message").scrollIntoView({ block: "nearest" });
  }
}

// Changes need a name, which the form above the tables holds.
function who() {
  if (!at("who").value.trim()) {
    at("who").focus();
    throw new Error("Give your name first.");
  }
  if (at("who").readOnly) return at("who").value; // of the account
  try { localStorage.setItem("who", at("who").value); } catch { /* private mode */ }
  return at("who").value;
}

const reload = () => location.assign(`/stations/${station}/thresholds`);

at("save").addEventListener("submit", (event) => {
  event.preventDefault();
  act(async () => {
    const body = { accept: now.accept, reject: now.reject, why: at("why").value, who: who(), based_on: version };
    await send(address, body);
    reload();
  });
});
document.addEventListener("click", (event) => {
  const { rollback, approve, decline } = event.target.dataset ?? {};
  if (rollback !== undefined) {
    const why = at("why").value.trim();
    act(async () => {
      await send(`${address}/rollback`, { version: Number(rollback), who: who(), ...(why ? { why } : {}) });
      reload();
    });
  }
  if (approve ?? decline) {
    const verb = approve ? "approve" : "decline";
    act(async () => {
      await send(`${address}/proposals/${approve ?? decline}/${verb}`, { who: who(), note: at("why").value });
      reload();
    });
  }
});

const count = (found) => Object.entries(found).map(([verdict, n]) => `${n} ${verdict}`).join(", ") || "none";

at("try").addEventListener("click", () => act(async () => {
  const found = await send(`${address}/preview`, { accept: now.accept, reject: now.reject, parts: 10000 });
  const rows = [
    ["Verdicts", count(found.was), count(found.becomes)],
    ["Stops by the rules in use", found.stops_was, found.stops_become],
    ["Calls by the rules in use", found.calls_was, found.calls_become],
  ];
  const head = ["", "As judged", "With these thresholds"].map((text) => element("th", { scope: "col" }, text));
  at("trial").replaceChildren(
    element("p", {}, `${found.parts} parts; ${found.changed} would have another verdict.`),
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows.map(([title, ...texts]) =>
      element("tr", {}, element("th", { scope: "row" }, title), ...texts.map((text) => element("td", {}, String(text))))))),
    ...found.rules.map((rule) => element("p", { class: "quiet" }, rule.sentence)),
  );
  at("changed").replaceChildren(...found.nearest.map((part) => {
    const thumbnail = element("img", { src: `/api/v1/inspections/${part.id}/thumbnail`, alt: "", loading: "lazy" });
    thumbnail.addEventListener("error", () => thumbnail.remove());
    return element("li", {}, thumbnail,
      element("span", {}, element("a", { href: `/inspections/${part.id}` }, `Part ${part.id}`), `: ${part.was} becomes ${part.becomes}`));
  }));
}));

if (!at("who").readOnly) {
  try { at("who").value = localStorage.getItem("who") ?? ""; } catch { /* private mode */ }
}
drawCurve();
recount();
