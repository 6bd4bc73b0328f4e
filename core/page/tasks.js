// The tasks: searched, filtered, and each of them with its attempts.

import { call, taskPath } from "./shared/api.js";
import { element, list, make } from "./shared/dom.js";
import { chip, TaskView, when } from "./shared/task.js";
import { duration, why } from "./shared/words.js";

const PAGE = 25;
const TYPED_MILLISECONDS = 250;
const PREFIX = "#task/";
const UID = /^[\w-]{16,64}$/;
const NO_TASK = 554;
const filters = element("filters");
const dialog = element("task");
let offset = 0;
let asked = 0;

export const short = (uid) => uid.slice(0, 8);

export const openTask = (uid) => {
  location.hash = PREFIX + uid;
};

// --- the list

// A whole uid is found whatever else is asked for. Everything else is looked for among the newest tasks.
async function found() {
  const wanted = Object.fromEntries(new FormData(filters));
  const search = wanted.search.trim();
  const one = UID.test(search) && (await known(search));
  if (one) return [one];
  return call("GET", "/api/tasks/", { ...wanted, search, label: wanted.label.trim(), offset, limit: PAGE + 1 });
}

const known = (uid) =>
  call("GET", taskPath(uid)).catch((error) => {
    if (error.status !== NO_TASK) throw error;
  });

export async function showTasks() {
  const question = (asked += 1);
  const tasks = await found();
  if (question !== asked) return; // another filter was chosen meanwhile
  list(element("rows"), tasks.slice(0, PAGE), ({ uid }) => uid, row);
  element("none").textContent = tasks.length
    ? ""
    : "None of the newest 20,000 tasks is like this. A whole task id is found at any age.";
  element("newer").disabled = !offset;
  element("older").disabled = tasks.length <= PAGE;
}

export function offerModels(models) {
  const { value } = filters.elements.model;
  const names = models.map((model) => model.human_readable_id);
  const old = [...filters.elements.model.options].slice(1).map((option) => option.value);
  if (JSON.stringify(old) === JSON.stringify(names)) return;
  filters.elements.model.replaceChildren(new Option("any", ""), ...names.map((name) => new Option(name)));
  filters.elements.model.value = names.includes(value) ? value : "";
}

function row({
  uid,
  model_human_readable_id: model,
  state,
  failure,
  waits_for: lacking,
  datetime_created: created,
  attempt: number,
}) {
  const words =
    state === "failed" && failure ? why(failure) : state === "pending" && lacking ? `Waits for ${lacking}` : "";
  return make(
    "tr",
    {},
    make(
      "td",
      {},
      make(
        "button",
        { type: "button", name: "open", className: "plain", title: uid, onclick: () => openTask(uid) },
        short(uid),
      ),
    ),
    make("td", {}, model),
    make("td", {}, chip(state), words && make("span", { className: "small" }, words)),
    make("td", {}, when(created)),
    make("td", {}, String(number)),
  );
}

// --- one of them

const view = new TaskView(element("view"), {
  download: (uid) => `/api/tasks/outputs/${encodeURIComponent(uid)}`,
  changed: (status, uid) => {
    element("input").hidden = status?.input_bytes == null;
    element("input").href = `/api/tasks/inputs/${encodeURIComponent(uid)}`;
    if (status)
      showAttempts(uid).catch((error) => {
        view.problem.textContent = error.message;
      });
    reload();
  },
  deleted: () => {
    dialog.close();
    reload();
  },
});

// Who ran it, where, on what: only core tells that.
async function showAttempts(uid) {
  const { attempts } = await call("GET", taskPath(uid));
  if (uid === view.uid)
    view.attempts.replaceChildren(...attempts.map((one) => make("li", { value: one.number }, ...tried(uid, one))));
}

function* tried(uid, { number, revision, agent, host, gpus, driver, image, started, ended, failure }) {
  const seconds = ((ended ? Date.parse(ended) : Date.now()) - Date.parse(started)) / 1000;
  const place = [agent || "a consumer of version 1", host && !agent.startsWith(host) && `on ${host}`]
    .filter(Boolean)
    .join(" ");
  const means = [revision && `revision ${revision}`, ...gpus, driver && `driver ${driver}`, image]
    .filter(Boolean)
    .join(" · ");
  yield make("strong", {}, place);
  yield ", ";
  yield when(started);
  yield `, ${duration(seconds)}: ${failure ? why(failure) : ended ? "it ended well." : "it runs."} `;
  yield make(
    "a",
    { href: taskPath(uid, `/log?attempt=${number}`), target: "_blank", "aria-label": `Log of attempt ${number}` },
    "Log",
  );
  if (means) yield make("span", { className: "small" }, make("br"), means);
}

function look() {
  const uid = location.hash.startsWith(PREFIX) ? location.hash.slice(PREFIX.length) : null;
  if (!uid) return dialog.close();
  element("input").hidden = true; // until it is known whether there is one
  view.show(uid);
  if (!dialog.open) dialog.showModal();
}

// --- wiring

let reload = () => {};

// `refresh` loads the list.
export function start(refresh) {
  reload = refresh;
  let typed = 0;
  filters.addEventListener("input", () => {
    offset = 0;
    clearTimeout(typed);
    typed = setTimeout(reload, TYPED_MILLISECONDS);
  });
  filters.addEventListener("submit", (event) => event.preventDefault());
  for (const [name, step] of [
    ["newer", -PAGE],
    ["older", PAGE],
  ]) {
    element(name).addEventListener("click", () => {
      offset = Math.max(0, offset + step);
      reload();
    });
  }
  dialog.addEventListener("close", () => {
    view.close();
    if (location.hash.startsWith(PREFIX)) history.replaceState(null, "", "#tasks");
  });
  addEventListener("hashchange", look);
  look();
}
