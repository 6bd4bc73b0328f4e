// The operator's page: each part loads by itself, and says by itself what keeps it from loading.

import { element } from "./shared/dom.js";
import { tick } from "./shared/task.js";
import { showAgents } from "./agents.js";
import { showAudit } from "./audit.js";
import * as keys from "./keys.js";
import * as models from "./models.js";
import { showGateways, showOverview } from "./overview.js";
import * as tasks from "./tasks.js";

const REFRESH_MILLISECONDS = 5000;
const REST = 10; // times as long as it took: a search among many tasks is work for core
const PARTS = {
  overview: showOverview,
  tasks: tasks.showTasks,
  agents: showAgents,
  models: models.showModels,
  gateways: showGateways,
  keys: keys.showKeys,
  audit: showAudit,
};

async function load(part) {
  const problem = element(part).querySelector(":scope > .problem");
  const words = await PARTS[part]().then(
    () => "",
    (error) => error.message,
  );
  if (problem.textContent !== words) problem.textContent = words;
}

async function refresh() {
  if (!document.hidden) await Promise.all(Object.keys(PARTS).map(load));
  tick();
}

async function keepFresh() {
  const started = performance.now();
  await refresh();
  setTimeout(keepFresh, Math.max(REFRESH_MILLISECONDS, REST * (performance.now() - started)));
}

tasks.start(() => load("tasks"));
models.start(() => load("models"));
keys.start(() => load("keys"));
document.addEventListener("visibilitychange", refresh);
keepFresh();
