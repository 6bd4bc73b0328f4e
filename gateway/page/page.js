// The user's page: a new task, the one that is looked at, and those of this browser.

import { call, NOT_FOUND, taskPath } from "./shared/api.js";
import { element, list, make } from "./shared/dom.js";
import { hasEnded } from "./shared/events.js";
import { chip, TaskView, tick, when } from "./shared/task.js";
import { bytes, duration, many } from "./shared/words.js";
import { fromDrop, fromInput, isZip, withoutTop } from "./files.js";
import { forget, mine, note, remember } from "./mine.js";
import { upload } from "./upload.js";
import { zipOf } from "./zip.js";

const PACE_MILLISECONDS = 4000;
const TICK_MILLISECONDS = 10_000;
const AGAIN_MILLISECONDS = 5000;
const REFRESH_MILLISECONDS = 30_000;
const TOO_LATE = "All of it may have arrived before it was stopped. Its task is above, if there is one.";
const [model, drop, run, stop, problem, trouble] = ["model", "drop", "run", "stop", "problem", "trouble"].map(element);

let models = null; // until the server has told
let chosen = null; // {name, size} and entries, or zip: the chosen file itself, if it is one
let sending = null; // its AbortController

// --- the model and the files

async function loadModels() {
  models = (await call("GET", "/api/models/")).filter(({ enabled }) => enabled !== false);
  model.replaceChildren(...models.map((one) => new Option(one.human_readable_id)));
  describe();
}

// Until the server tells; what keeps it from that is said once.
async function findModels(before = "") {
  try {
    await loadModels();
    if (before && problem.textContent === before) problem.textContent = "";
  } catch (error) {
    if (!before) problem.textContent = error.message;
    setTimeout(findModels, AGAIN_MILLISECONDS, before || error.message);
  }
}

function describe() {
  const none = models ? "There is no model yet." : "";
  element("description").textContent = models?.length ? models[model.selectedIndex].description : none;
  run.disabled = !models?.length || !chosen;
}

function choose(entries) {
  if (!entries.length) {
    problem.textContent = "There is no file in it.";
    return;
  }
  const size = entries.reduce((sum, { file }) => sum + file.size, 0);
  if (isZip(entries)) {
    chosen = { name: entries[0].name, zip: entries[0].file, size };
  } else {
    const { name, entries: inner } = withoutTop(entries);
    const count = many(inner.length, "file");
    chosen = {
      name: name ?? (inner.length === 1 ? inner[0].name : count),
      count: name && `${count}, `,
      entries: inner,
      size,
    };
  }
  element("chosen").replaceChildren(make("strong", {}, chosen.name), ` (${chosen.count ?? ""}${bytes(size)})`);
  problem.textContent = "";
  describe();
}

// --- sending

// How fast it was of late, and how long it takes at that pace.
function paced(total, verb) {
  const seen = [];
  return (count, why) => {
    const now = performance.now();
    seen.push([now, count]);
    while (seen.length > 2 && now - seen[0][0] > PACE_MILLISECONDS) seen.shift();
    const [[start, first]] = seen;
    const rate = (1000 * (count - first)) / (now - start);
    element("sent").value = total ? count / total : 1;
    const left = rate > 0 && !why ? `${bytes(rate)}/s · ${duration((total - count) / rate)} left` : "";
    element("pace").textContent = [`${verb} ${bytes(count)} of ${bytes(total)}`, left].filter(Boolean).join(" · ");
    const words = why ? `${why} Trying again.` : "";
    if (trouble.textContent !== words) trouble.textContent = words; // else it is read out again
  };
}

async function zipped({ zip, entries, size }, signal) {
  if (zip) return zip;
  const show = paced(size, "Read");
  let count = 0;
  return zipOf(entries, { signal, read: (more) => show((count += more)) });
}

async function submit() {
  sending = new AbortController();
  const { signal } = sending;
  const { name } = chosen;
  problem.textContent = trouble.textContent = "";
  element("choice").disabled = true;
  element("sending").hidden = false;
  stop.disabled = false;
  stop.focus();
  try {
    const zip = await zipped(chosen, signal);
    const uid = await upload(model.value, zip, { signal, sent: paced(zip.size, "Sent") });
    remember({ uid, model: model.value, name, at: new Date().toISOString(), state: "pending" });
    location.hash = uid;
    if (signal.aborted) problem.textContent = TOO_LATE;
  } catch (error) {
    problem.textContent = signal.aborted ? "Stopped. Nothing was kept." : unreadable(error);
  }
  sending = null;
  element("choice").disabled = false;
  element("sending").hidden = true;
  describe();
  if (problem.textContent) run.focus();
}

const unreadable = (error) =>
  error.name === "NotReadableError" || error.name === "NotFoundError"
    ? "The files can't be read. Have they changed? Choose them again."
    : error.message;

// --- the task that is looked at, and the list

const view = new TaskView(element("view"), {
  download: (uid) => taskPath(uid),
  changed: (status, uid) => {
    note(uid, status?.state ?? "gone");
    showMine();
  },
  deleted: (uid) => {
    forget(uid);
    location.hash = "";
  },
});

const lookedAt = () => location.hash.slice(1);

function look() {
  const uid = lookedAt();
  element("task").hidden = !uid;
  showMine();
  if (!uid) return view.close();
  element("link").href = `#${uid}`;
  view.show(uid);
}

function showMine() {
  const tasks = mine();
  element("mine").hidden = !tasks.length;
  list(
    element("tasks"),
    tasks.map((task) => ({ ...task, current: task.uid === lookedAt() })),
    ({ uid }) => uid,
    (task) =>
      make(
        "li",
        {},
        make("a", { href: `#${task.uid}`, "aria-current": String(task.current) }, task.name),
        chip(task.state),
        make(
          "button",
          {
            type: "button",
            name: "forget",
            className: "plain",
            "aria-label": `Forget ${task.name}`,
            onclick: () => {
              forget(task.uid);
              showMine();
            },
          },
          "Forget",
        ),
        make("span", { className: "small" }, `${task.model}, `, when(task.at)),
      ),
  );
}

// Those that had not ended when they were last seen.
async function refreshMine() {
  if (document.hidden) return;
  for (const { uid, state } of mine()) {
    if (hasEnded({ state }) || state === "gone") continue;
    const now = await call("GET", taskPath(uid, "/status")).catch((error) => ({
      state: error.status === NOT_FOUND ? "gone" : state,
    }));
    note(uid, now.state);
  }
  showMine();
}

// --- wiring

const [files, folder] = ["files", "folder"].map(element);
element("choose-files").addEventListener("click", () => files.click());
element("choose-folder").addEventListener("click", () => folder.click());
for (const input of [files, folder]) {
  input.addEventListener("change", () => {
    choose(fromInput(input));
    input.value = ""; // the same ones can be chosen again
  });
}
// A file that misses its place would replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
for (const [kind, over] of [
  ["dragover", true],
  ["dragleave", false],
  ["drop", false],
]) {
  drop.addEventListener(kind, () => drop.classList.toggle("over", over));
}
drop.addEventListener("drop", async (event) => {
  if (sending) return;
  try {
    choose(await fromDrop(event.dataTransfer));
  } catch (error) {
    problem.textContent = unreadable(error);
  }
});
model.addEventListener("change", describe);
element("new").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
stop.addEventListener("click", () => {
  stop.disabled = true;
  trouble.textContent = "Stopping.";
  sending.abort();
});
addEventListener("beforeunload", (event) => {
  if (sending) event.preventDefault();
});
addEventListener("hashchange", () => {
  look();
  element("task-heading").focus();
});

document.addEventListener("visibilitychange", refreshMine);
setInterval(refreshMine, REFRESH_MILLISECONDS);
setInterval(tick, TICK_MILLISECONDS);
describe();
look();
refreshMine();
findModels();
