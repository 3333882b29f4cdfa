// Saves the rules that were tried last.

import "./times.js";
import { json } from "./shared.js";
import { send } from "./live.js";

const { station, rules, based_on } = json("initial");
const at = (id) => document.getElementById(id);

at("save").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { who, why } = Object.fromEntries(new FormData(event.target));
  try {
    await send(`/api/v1/rules/${station}`, { rules, who, why, based_on }, "PUT");
    location.assign(`/rules/${station}`);
  } catch (error) {
    at("message").textContent = error.message;
  }
});
at("proposal").addEventListener("input", () => {
  if (at("save").hidden) return;
  at("save").hidden = true;
  at("message").textContent = "The table shows other rules: try them on the last parts before you save them.";
});
