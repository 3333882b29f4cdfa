// Turns the UTC times of a page into local ones.

for (const time of document.querySelectorAll("time[data-local]")) {
  time.textContent = new Date(time.dateTime).toLocaleString();
}
