// Updates the progress of a run and refreshes the page, without a reload. The page also works without this script.
"use strict";

const REFRESH = 15000;
const LOOK = 1000;
const PATIENCE = 10000;

// A browser has six connections to a host, for all of its tabs: none is held while its tab is hidden or a form is sent.
let asking = new AbortController();
function hangUp() {
  asking.abort();
  asking = new AbortController();
}
const ask = (address, accept) =>
  fetch(address, { headers: { accept }, signal: AbortSignal.any([asking.signal, AbortSignal.timeout(PATIENCE)]) });

const words = (number) => Math.round(number).toLocaleString("en-US");

// A selector that finds an element in a newer page.
function place(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  if (element.localName === "summary") return `#${CSS.escape(element.parentElement.id)} > summary`;
  if (element.localName === "a") return `a[href="${CSS.escape(element.getAttribute("href"))}"]`;
  return null;
}

const isBeingFilledIn = (section) =>
  section.querySelector("input:focus, select:focus") ||
  [...section.querySelectorAll("input:not([type=hidden])")].some(
    (input) => input.value !== input.defaultValue || input.checked !== input.defaultChecked,
  );

// Replaces a section by that of a newer page; keeps open details and the focus.
function replace(old, fresh) {
  for (const open of old.querySelectorAll("details[id][open]")) {
    fresh.querySelector(`#${CSS.escape(open.id)}`)?.setAttribute("open", "");
  }
  if (old.outerHTML === fresh.outerHTML || isBeingFilledIn(old)) return;
  const focus = old.contains(document.activeElement) ? place(document.activeElement) : null;
  old.className = fresh.className;
  old.hidden = fresh.hidden;
  old.replaceChildren(...fresh.childNodes);
  if (focus) old.querySelector(focus)?.focus({ preventScroll: true });
}

async function refresh() {
  const address = new URL(location.href);
  address.searchParams.set("whole", "true");
  const answer = await ask(address, "text/html");
  if (answer.redirected) return location.reload();
  if (!answer.ok) throw new Error(answer.status === 503 ? "the database" : "the server");
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.title = page.title;
  for (const fresh of page.querySelectorAll("section[id]")) {
    const old = document.getElementById(fresh.id);
    if (old) replace(old, fresh);
  }
}

// Refreshes the page; without an answer it shows how old the page is.
let heard = new Date();
function keepFresh() {
  const note = document.getElementById("stale");
  refresh().then(
    () => {
      heard = new Date();
      note.hidden = true;
      document.body.classList.remove("stale");
    },
    (error) => {
      if (error.name === "AbortError") return;
      const who = error.message === "the database" ? error.message : "the server";
      document.title = `✕ No answer from ${who}`;
      document.body.classList.add("stale");
      note.textContent = `No answer from ${who} since ${heard.toLocaleTimeString()}. The page shows the state of that time.`;
      note.hidden = false;
    },
  );
}

function left(seconds) {
  if (seconds === null) return "time left unknown";
  if (seconds < 60) return `${seconds.toFixed(1)} s left`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s left`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds / 60) % 60)} min left`;
}

function show(run) {
  const put = (id, text) => (document.getElementById(id).textContent = text);
  const shown = document.getElementById("progress");
  const wasRunning = !shown.hidden;
  shown.hidden = !run;
  if (!run) {
    if (wasRunning) keepFresh();
    return;
  }
  put("progress-run", run.runId);
  put("progress-mode", run.mode);
  put("progress-removed", words(run.removed));
  put("progress-rate", words(run.rowsPerSecond));
  put("progress-left", left(run.secondsLeft));
  put("progress-waiting", run.waitingFor ? `Waiting: ${run.waitingFor}` : "");
  document.getElementById("progress-bar").value = run.shareDone;
  const stop = document.getElementById("progress-stop");
  if (stop) stop.value = run.runId;
}

// Asks for the running run again and again; a look that fails is repeated.
async function follow(section) {
  const target = encodeURIComponent(section.dataset.target);
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, LOOK));
    if (document.hidden) continue;
    try {
      const answer = await ask(`/api/admin/backlog-cleanup/progress?target=${target}`, "application/json");
      if (answer.ok) show((await answer.json()).find((run) => run.state === "running"));
    } catch {
      // The refresh says that the server does not answer.
    }
  }
}

const progress = document.getElementById("progress");
if (progress) {
  follow(progress);
  setInterval(() => document.hidden || keepFresh(), REFRESH);
  document.addEventListener("visibilitychange", () => (document.hidden ? hangUp() : keepFresh()));
  document.addEventListener("submit", hangUp);
}

// Copies the statement that a button stands beside; where the browser does not let it, selects the statement.
document.documentElement.classList.add("script");
document.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy");
  if (!button) return;
  const statement = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(statement.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(statement);
  }
});
if (document.querySelector("[data-reload]")) setTimeout(() => location.reload(), 5000);
document.querySelector("#alert[tabindex], #confirm-title")?.focus();
