// Turns the UTC times of a page into local ones.

export function local(root) {
  for (const time of root.querySelectorAll("time[data-local]")) {
    time.textContent = new Date(time.dateTime).toLocaleString();
  }
}

local(document);
