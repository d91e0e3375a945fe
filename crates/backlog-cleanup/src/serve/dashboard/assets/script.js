// Updates the progress of a run and refreshes the page, without a reload. The page also works without this script.
"use strict";

const REFRESH = 15000;

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
  [...section.querySelectorAll("input:not([type=hidden])")].some((input) => input.value !== input.defaultValue);

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
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (answer.redirected) return location.reload();
  if (!answer.ok) throw new Error(answer.statusText);
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
    },
    () => {
      note.textContent = `No answer from the server since ${heard.toLocaleTimeString()}. The page shows the state of that time.`;
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

function follow(section) {
  const put = (id, text) => (document.getElementById(id).textContent = text);
  const target = encodeURIComponent(section.dataset.target);
  const events = new EventSource(`/api/admin/backlog-cleanup/progress?target=${target}`);
  events.addEventListener("progress", (event) => {
    const run = JSON.parse(event.data).find((run) => run.state === "running");
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
  });
}

const progress = document.getElementById("progress");
if (progress) {
  follow(progress);
  setInterval(() => document.hidden || keepFresh(), REFRESH);
  document.addEventListener("visibilitychange", () => document.hidden || keepFresh());
}
if (document.querySelector("[data-reload]")) setTimeout(() => location.reload(), 5000);
document.querySelector("#alert[tabindex], #confirm-title")?.focus();
