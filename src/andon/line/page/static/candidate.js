// Sends the forms of the page and packed files, and shows it anew while a comparison runs.

import { get, post, send } from "./live.js";

const at = (id) => document.getElementById(id);
if (!at("who").readOnly) {
  try { at("who").value = localStorage.getItem("who") ?? ""; } catch { /* private mode */ }
  at("who").addEventListener("change", () => {
    try { localStorage.setItem("who", at("who").value); } catch { /* private mode */ }
  });
}

function body(form, button) {
  const values = { who: at("who").value };
  for (const field of form.elements) {
    if (!field.name || field.value === "" || (field.type === "submit" && field !== button)) continue;
    values[field.name] = "number" in field.dataset ? Number(field.value) : "bool" in field.dataset ? field.value === "true" : field.value;
  }
  return values;
}

async function act(event, work) {
  event.preventDefault();
  if (!at("who").value.trim()) {
    at("message").textContent = "Give your name first.";
    at("who").focus();
    return;
  }
  at("message").textContent = "…";
  try {
    const made = await work();
    location.assign(made?.id ? `?id=${made.id}` : location.pathname);
  } catch (error) {
    at("message").textContent = error.message;
  }
}

for (const form of document.querySelectorAll("form[data-post]")) {
  form.addEventListener("submit", (event) => act(event, () => send(form.dataset.post, body(form, event.submitter))));
}

for (const form of document.querySelectorAll("form[data-upload]")) {
  form.addEventListener("submit", (event) => act(event, () => {
    const file = form.elements.file.files[0];
    const query = new URLSearchParams({ name: file.name, who: at("who").value, why: form.elements.why.value });
    return post(`${form.dataset.upload}?${query}`, file, "application/octet-stream");
  }));
}

for (const box of document.querySelectorAll("[data-watch]")) {
  const bar = box.querySelector("progress");
  setInterval(async () => {
    const now = await get(box.dataset.watch).then((found) => found.comparison, () => null);
    if (now === null) return;
    if (!now.is_running) location.reload();
    else if (bar) bar.value = now.done;
  }, 1000);
}
