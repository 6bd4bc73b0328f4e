// Who did what, the newest first.

import { call } from "./shared/api.js";
import { element, list, make } from "./shared/dom.js";
import { ago } from "./shared/words.js";

const SHOWN = 20;
const FAILED = 400;

export async function showAudit() {
  const entries = await call("GET", `/api/audit/?limit=${SHOWN}`);
  list(element("audit-list"), entries, ({ time, request, action }) => `${time} ${request} ${action}`, row);
}

function row({ time, action, what, about, status, who, address }) {
  return make(
    "li",
    {},
    make(
      "div",
      { className: "head" },
      make("strong", {}, who),
      make("span", { className: status < FAILED ? "chip" : "chip bad" }, status < FAILED ? action : `${action}: ${status}`),
    ),
    make("span", { className: "small" }, [ago(time), address, what].filter(Boolean).join(" · ")),
    about && make("span", { className: "small" }, make("code", {}, about)),
  );
}
