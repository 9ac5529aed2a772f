// The live parts: every page is complete without them.

const MAX_LINES = 5000; // that stay on the page
const MAX_LINE = 4096; // characters
const ESCAPES = /\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?/g;
const UNSEEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;

const $ = (id) => document.getElementById(id);
const main = $("main");
let events, log, timer;

// Times, in the same words as the server's.
function ago(seconds) {
  const distance = Math.abs(seconds);
  const units = [[86400, "day"], [3600, "h"], [60, "min"]];
  const [size, unit] = units.find(([size]) => distance >= size) ?? [1, "s"];
  const count = Math.floor(distance / size);
  const text = `${count} ${unit}${unit === "day" && count > 1 ? "s" : ""}`;
  return seconds >= 0 ? `${text} ago` : `in ${text}`;
}

function tellTimes(page) {
  for (const time of page.querySelectorAll("time")) {
    const text = ago((Date.now() - Date.parse(time.dateTime)) / 1000);
    if (time.textContent !== text) time.textContent = text;
  }
}

// A page that may have changed is fetched again, and only what differs is replaced.
async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok || answer.redirected) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  tellTimes(page);
  for (const id of log ? ["live"] : ["live", "log"]) {
    const [old, fresh] = [$(id), page.getElementById(id)];
    if (old && fresh) morph(old, fresh);
  }
  document.title = page.title;
  main.dataset.watch = page.querySelector("main").dataset.watch ?? "";
  connect();
}

function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const alike = old.cloneNode().isEqualNode(fresh.cloneNode()) && old.childNodes.length === fresh.childNodes.length;
  if (!alike || !old.firstElementChild) return old.replaceWith(fresh);
  const pairs = [...old.childNodes].map((node, index) => [node, fresh.childNodes[index]]);
  for (const [from, to] of pairs) morph(from, to);
}

function refreshSoon() {
  timer ??= setTimeout(() => {
    timer = undefined;
    refresh().catch(() => {}); // the server is away: the stream's return calls this again
  }, 500);
}

// A browser opens few connections to one server, so a page that nobody looks at holds none.
function connect() {
  const wanted = !document.hidden;
  if (wanted && main.dataset.watch) {
    events ??= watch();
  } else events &&= events.close();
  const box = document.querySelector("[data-log]");
  if (wanted && box) {
    log ??= { box, attempt: +box.dataset.attempt, offset: +box.dataset.offset, next: +box.dataset.next, rest: "" };
    log.source ??= follow();
  } else if (log) log.source &&= log.source.close();
}

function watch() {
  const source = new EventSource(main.dataset.watch);
  source.onopen = refreshSoon; // for what happened meanwhile
  for (const kind of main.dataset.kinds.split(" ")) source.addEventListener(kind, refreshSoon);
  return source;
}

// Pieces of log become lines; the last one waits for its rest.
function follow() {
  $(`L${log.next}`)?.remove(); // not whole when the page was made: it comes again
  const source = new EventSource(`${log.box.dataset.log}?attempt=${log.attempt}&offset=${log.offset}`);
  source.addEventListener("log", (event) => {
    const piece = JSON.parse(event.data);
    if (piece.attempt !== log.attempt) return location.assign(location.pathname);
    log.offset = +event.lastEventId.split(":")[1];
    const lines = (log.rest + piece.text).split("\n");
    log.rest = lines.pop().slice(0, MAX_LINE);
    append(lines);
  });
  source.addEventListener("end", () => {
    if (log.rest) append([log.rest]);
    delete log.box.dataset.log;
    $("end").textContent = "End of the log.";
    connect();
    refreshSoon();
  });
  return source;
}

function append(lines) {
  const atEnd = innerHeight + scrollY >= document.body.scrollHeight - 60;
  log.next += Math.max(0, lines.length - MAX_LINES);
  for (const line of lines.slice(-MAX_LINES)) {
    const [row, link] = [document.createElement("div"), document.createElement("a")];
    row.id = `L${log.next}`;
    link.href = `#${row.id}`;
    link.textContent = log.next++;
    const text = line.slice(0, MAX_LINE).replace(ESCAPES, "").replace(/^.*\r(?!\r*$)|\r+$/g, "");
    row.append(link, text.replace(UNSEEN, ""));
    log.box.append(row);
  }
  while (log.box.childElementCount > MAX_LINES) log.box.firstElementChild.remove();
  if (atEnd) scrollTo(0, document.body.scrollHeight);
}

// A link to a line that this page does not hold leads to the page that does.
function findLine() {
  const line = /^#L(\d{1,9})$/.exec(location.hash)?.[1];
  const query = new URLSearchParams(location.search);
  if (!line || $(`L${line}`) || query.has("from")) return;
  query.set("from", Math.max(1, line - 20));
  location.replace(`?${query}${location.hash}`);
}

findLine();
tellTimes(document);
setInterval(tellTimes, 10000, document);
document.addEventListener("visibilitychange", connect);
connect();
