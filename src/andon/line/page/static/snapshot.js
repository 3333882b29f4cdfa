// Takes a snapshot of the reviewed parts as a data set.

import { send } from "./live.js";

document.getElementById("snapshot")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { who } = Object.fromEntries(new FormData(event.target));
  try {
    await send("/api/v1/snapshots", { who, station: event.target.dataset.station || null });
    location.reload();
  } catch (error) {
    document.getElementById("message").textContent = error.message;
  }
});
