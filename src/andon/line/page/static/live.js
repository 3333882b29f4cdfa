// The stream of events, with what a browser leaves out: a new connection after an error answer, and a watch on the
// server's clock, which tells a page that has lost the server from one on which nothing happens.

const SILENT_MS = 3000;

export class Live {
  constructor(address, { onEvent, onLost, onFound }) {
    this.address = address;
    this.onEvent = onEvent;
    this.onLost = onLost;
    this.onFound = onFound;
    this.heard = performance.now();
    this.lost = false;
    this.open();
    setInterval(() => this.check(), 500);
  }

  open() {
    this.source?.close();
    this.source = new EventSource(this.address);
    for (const kind of ["inspection", "state", "alarm", "tick", "reset"]) {
      this.source.addEventListener(kind, (event) => {
        this.heard = performance.now();
        if (this.lost) {
          this.lost = false;
          this.onFound();
        }
        this.onEvent(kind, JSON.parse(event.data));
      });
    }
  }

  check() {
    const silent = performance.now() - this.heard;
    if (silent > SILENT_MS && !this.lost) {
      this.lost = true;
      this.onLost();
    }
    // A browser tries again by itself after a broken connection, with the last event it had, but not after an error
    // answer, and not where a connection stands and nothing comes.
    if (this.source.readyState === EventSource.CLOSED || silent > 4 * SILENT_MS) {
      this.heard = performance.now() - SILENT_MS - 1;
      this.open();
      get("/api/v1/me").catch(() => {});
    }
  }
}

// One reading at a time. What an event tells meanwhile makes it begin again, so that nothing older is shown after it.
export class Reading {
  constructor(ask, show) {
    this.ask = ask;
    this.show = show;
    this.running = null;
    this.outdated = false;
  }

  // What is shown after this is not older than this call.
  now() {
    this.outdated = true;
    return this.running ??= this.run();
  }

  // An event has told more than what is being read may hold.
  outdate() {
    this.outdated = true;
  }

  async run() {
    try {
      let answer;
      do {
        this.outdated = false;
        answer = await this.ask();
      } while (this.outdated);
      this.show(answer);
    } finally {
      this.running = null;
    }
  }
}

// Changes repeat the token of the page, which other sites do not know; after a restart of the server it is another one.
let csrf = document.querySelector('meta[name="csrf-token"]')?.content ?? "";

export function send(address, body, method = "POST", headers = {}) {
  return post(address, JSON.stringify(body), "application/json", method, headers);
}

export async function post(address, body, type, method = "POST", headers = {}) {
  const ask = () => fetch(address, {
    method,
    headers: { "Content-Type": type, "X-CSRF-Token": csrf, ...headers },
    body,
  });
  let answer = await ask();
  let content = await answer.json();
  if (content.code === "csrf") {
    csrf = (await get("/api/v1/me")).csrf;
    answer = await ask();
    content = await answer.json();
  }
  if (!answer.ok) {
    toLogIn(answer);
    throw Object.assign(new Error(content.detail ?? `error ${answer.status}`), { code: content.code, status: answer.status });
  }
  return content;
}

export async function get(address) {
  const answer = await fetch(address);
  toLogIn(answer);
  if (!answer.ok) throw new Error(`error ${answer.status}`);
  return answer.json();
}

// A page whose log-in has ended is loaded again, which leads to the log-in.
function toLogIn(answer) {
  if (answer.status === 401 && answer.headers.get("WWW-Authenticate")) location.reload();
}

// The page at an address as it is now; fails where it leads elsewhere, such as to the log-in.
export async function page(address, timeoutMs) {
  const answer = await fetch(address, { signal: AbortSignal.timeout(timeoutMs) });
  if (!answer.ok || answer.redirected) throw new Error(answer.statusText);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}
