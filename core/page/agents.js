// The agents, their GPUs, and what runs on them.

import { call, taskPath } from "./shared/api.js";
import { element, list, make } from "./shared/dom.js";
import { when } from "./shared/task.js";
import { bytes } from "./shared/words.js";
import { openTask, short } from "./tasks.js";

const MIB = 2 ** 20;
let known = new Map(); // attempt → {uid, model, gpus}: asked for once, when it has got its GPUs

export async function showAgents() {
  const agents = await call("GET", "/api/agents/");
  const found = await Promise.all(
    agents.map((one) => Promise.all(one.running.map((attempt) => running(attempt, one)))),
  );
  known = new Map(found.flat().map((task) => [task.attempt, task]));
  const shown = agents.map(({ seen, disks, ...one }, at) => ({
    ...one,
    room: Object.entries(disks).map(room).join(" · "),
    seen: one.is_there ? null : seen,
    running: found[at],
  }));
  list(element("agent-list"), shown, ({ name }) => name, agent);
}

const room = ([folder, { free_mb: free, total_mb: total }]) =>
  `${bytes(free * MIB)} of ${bytes(total * MIB)} free at ${folder}`;

async function running(attempt, { gpus }) {
  const before = known.get(attempt);
  if (before?.model && (before.gpus.length || !gpus.length)) return before;
  const uid = attempt.slice(0, attempt.lastIndexOf("-"));
  const task = await call("GET", taskPath(uid)).catch(() => null); // it may have gone meanwhile
  return { attempt, uid, model: task?.model_human_readable_id, gpus: task?.attempts.at(-1)?.gpus ?? [] };
}

function agent({ name, host, version, driver, gpus, slots, room, running, problems, seen }) {
  const troubles = Object.values(problems);
  const [kind, word] = seen
    ? ["bad", "away"]
    : troubles.length
      ? ["warn", "takes no tasks"]
      : running.length
        ? ["", "busy"]
        : ["good", "idle"];
  const known = new Set(gpus.map(({ uuid }) => uuid));
  const elsewhere = running.filter((task) => !task.gpus.some((uuid) => known.has(uuid)));
  const about = [
    host !== name && host,
    version,
    driver && `driver ${driver}`,
    !gpus.length && `${slots} without a GPU`,
  ];
  return make(
    "li",
    {},
    make("div", { className: "head" }, make("strong", {}, name), make("span", { className: `chip ${kind}` }, word)),
    make("span", { className: "small" }, about.filter(Boolean).join(" · "), seen && " · seen ", seen && when(seen)),
    room && make("span", { className: "small" }, room),
    ...troubles.map((words) => make("span", { className: "problem" }, words)),
    make(
      "ul",
      {},
      ...gpus.map((gpu) =>
        make("li", {}, ...device(gpu), ...running.filter((task) => task.gpus.includes(gpu.uuid)).map(task)),
      ),
      ...elsewhere.map((one) => make("li", {}, task(one))),
    ),
  );
}

function* device({ uuid, name, memory_mb: megabytes, problem }) {
  yield [name || uuid, megabytes && `${Math.round(megabytes / 1024)} GiB`].filter(Boolean).join(", ");
  if (problem) yield make("span", { className: "problem" }, ` ${problem}`);
}

const task = ({ uid, model }) =>
  make(
    "div",
    {},
    make("button", { type: "button", name: uid, className: "plain", onclick: () => openTask(uid) }, short(uid)),
    ` ${model ?? ""}`,
  );
