// The API keys: made, listed, revoked.

import { call } from "./shared/api.js";
import { attempt, element, list, make } from "./shared/dom.js";
import { many } from "./shared/words.js";

let reload = () => {};

export const start = (refresh) => {
  reload = refresh;
  const form = element("new-key");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(form.querySelector("button"), () => makeKey(form), say);
  });
};

export async function showKeys() {
  const keys = await call("GET", "/api/keys/");
  const shown = keys.map((key) => ({ ...key, over: Boolean(key.revoked) || Date.parse(key.expires) <= Date.now() }));
  const good = shown.filter(({ over }) => !over);
  list(element("key-list"), good, ({ id }) => id, row);
  const over = shown.length - good.length;
  element("keys-over").textContent = over ? `${many(over, "key")} revoked or expired.` : "";
}

const say = (words) => {
  element("key-problem").textContent = words;
};

// The only time that the key itself is seen.
async function makeKey(form) {
  say("");
  const wanted = [...new FormData(form)].filter(([, value]) => value !== "");
  const { key, name } = await call("POST", `/api/keys/?${new URLSearchParams(wanted)}`);
  form.reset();
  element("made-key").replaceChildren(
    make("span", {}, `The key for ${name}. Copy it now, nobody can show it again:`),
    make("code", {}, key),
    make("button", { type: "button", onclick: () => element("made-key").replaceChildren() }, "I have it"),
  );
  await reload();
}

const day = (time) => time.slice(0, 10);

function row({ id, name, scopes, expires, last_used: used, living_tasks: living, tasks_at_once: most, posts_per_minute: pace }) {
  const problem = make("p", { className: "problem", role: "alert" });
  const revoke = async () => {
    if (!confirm(`Revoke the key of ${name}? It opens nothing any more, at once.`)) return;
    await call("DELETE", `/api/keys/${encodeURIComponent(id)}`);
    await reload();
  };
  const button = make(
    "button",
    {
      type: "button",
      name: "revoke",
      className: "danger",
      "aria-label": `Revoke ${name}`,
      onclick: () =>
        attempt(button, revoke, (words) => {
          problem.textContent = words;
        }),
    },
    "Revoke",
  );
  const about = [
    used ? `used ${day(used)}` : "never used",
    expires && `expires ${day(expires)}`,
    most && `${living ?? 0} of ${many(most, "task")} at once`,
    pace && `${many(pace, "post")} a minute`,
  ];
  return make(
    "li",
    {},
    make("div", { className: "head" }, make("strong", {}, name), make("span", { className: "chip" }, scopes.join(", "))),
    make("span", { className: "small" }, make("code", {}, id), ` · ${about.filter(Boolean).join(" · ")}`),
    make("div", { className: "actions" }, button),
    problem,
  );
}
