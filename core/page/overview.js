// How the system is: readiness, what waits, memory.

import { call } from "./shared/api.js";
import { element, list, make } from "./shared/dom.js";
import { bytes, duration, many } from "./shared/words.js";

const OPEN_TO_ALL =
  "API keys aren't required: whoever reaches a gateway may post tasks. Make keys, then set API_KEYS=required for core.";

// It is answered while Redis or RabbitMQ is away, with what is known.
export async function showOverview() {
  const {
    ready,
    missing,
    degraded,
    queues,
    waiting,
    oldest_seconds: oldest,
    redis,
    version,
    keys_required: keysRequired,
  } = await call("GET", "/api/overview");
  showReadiness(
    ready,
    Object.entries({ ...missing, ...degraded }).map(([part, words]) => `${part} ${words}`),
  );
  element("version").textContent = version;
  element("open-to-all").textContent = keysRequired ? "" : OPEN_TO_ALL;
  const since = oldest ? `, the first of them for ${duration(oldest)}` : "";
  element("waiting").textContent = waiting == null ? "" : `${many(waiting, "task")} waiting${since}.`;
  showQueues(Object.entries(queues ?? {}));
  list(element("memory"), redis ? [redis] : [], () => "redis", memory);
}

// Unchanged words stay, or they would be read out again.
function showReadiness(ready, troubles) {
  const [kind, word] = !ready ? ["bad", "Not ready"] : troubles.length ? ["warn", "Degraded"] : ["good", "Ready"];
  const text = troubles.length ? ` ${troubles.join("; ")}` : "";
  if (element("readiness").textContent === word + text) return;
  element("readiness").replaceChildren(make("span", { className: `chip ${kind}` }, word), text);
}

function showQueues(queues) {
  const total = queues.reduce((sum, [, { messages }]) => sum + messages, 0);
  element("queued").textContent = `${many(total, "message")} in ${many(queues.length, "queue")} of RabbitMQ`;
  list(
    element("queues"),
    queues,
    ([name]) => name,
    ([name, { messages, consumers }]) =>
      make(
        "div",
        {},
        make("dt", {}, name),
        make("dd", {}, `${many(messages, "message")}, ${many(consumers, "listener")}`),
      ),
  );
}

function memory({ used_bytes: used, limit_bytes: limit, reserve_bytes: reserve }) {
  if (!limit) return make("p", {}, `Redis holds ${bytes(used)}, and has no limit.`);
  const words = `Redis holds ${bytes(used)} of ${bytes(limit)}; ${bytes(reserve)} are kept for results.`;
  const meter = make("meter", {
    min: 0,
    max: limit,
    high: limit - reserve,
    value: used,
    "aria-label": "Memory of Redis",
  });
  return make("div", {}, make("p", {}, words), meter);
}

export async function showGateways() {
  const gateways = await call("GET", "/api/gateways/");
  list(
    element("gateway-list"),
    gateways.map(({ seen, ...one }) => one),
    ({ name }) => name,
    gateway,
  );
}

const DAY = 86_400_000;
const SOON_DAYS = 30;

function gateway({
  name,
  version,
  is_there: isThere,
  certificate_expires: expires,
  certificate_refused: refused,
}) {
  const days = Math.floor((Date.parse(expires) - Date.now()) / DAY);
  const kind = days < 0 ? "bad" : days < SOON_DAYS ? "warn" : "good";
  const words = days < 0 ? "certificate expired" : `certificate: ${many(days, "day")} left`;
  return make(
    "li",
    {},
    make("div", { className: "head" }, make("strong", {}, name), make("span", { className: `chip ${kind}` }, words)),
    make("span", { className: "small" }, version, isThere ? "" : " · away"),
    refused && make("span", { className: "problem" }, `A new certificate isn't served: ${refused}`),
  );
}
