// Sends the forms of the page, and shows it anew while parts are being shown to the camera.

import { get, send } from "./live.js";

const at = (id) => document.getElementById(id);
if (!at("who").readOnly) {
  try { at("who").value = localStorage.getItem("who") ?? ""; } catch { /* private mode */ }
  at("who").addEventListener("change", () => {
    try { localStorage.setItem("who", at("who").value); } catch { /* private mode */ }
  });
}

function body(form) {
  const values = { who: at("who").value };
  for (const field of form.elements) {
    if (!field.name || field.value === "" || (field.type === "checkbox" && !field.checked)) continue;
    const value = "number" in field.dataset ? Number(field.value) : field.type === "checkbox" ? true : field.value;
    values[field.name] = "list" in field.dataset ? [value] : value;
  }
  return values;
}

for (const form of document.querySelectorAll("form[data-post]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!at("who").value.trim()) {
      at("message").textContent = "Give your name first.";
      at("who").focus();
      return;
    }
    at("message").textContent = "…";
    try {
      await send(form.dataset.post, body(form));
      location.assign("/golden");
    } catch (error) {
      at("message").textContent = error.message;
    }
  });
}

for (const box of document.querySelectorAll("[data-watch]")) {
  const address = box.closest("[data-state]").dataset.state;
  const seen = ({ state, left, waits_for, message }) => JSON.stringify([state, left, waits_for, message]);
  let before = null;
  setInterval(async () => {
    const now = await get(address).then(seen, () => before);
    if (before !== null && now !== before) location.reload();
    before = now;
  }, 1000);
}
