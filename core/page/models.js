// The models: which there are, whether they take tasks.

import { call } from "./shared/api.js";
import { attempt, element, list, make } from "./shared/dom.js";
import { many } from "./shared/words.js";
import { offerModels } from "./tasks.js";

let reload = () => {};

export const start = (refresh) => {
  reload = refresh;
};

export async function showModels() {
  const models = await call("GET", "/api/models/");
  offerModels(models);
  list(element("model-list"), models, ({ uid }) => uid, row);
}

function row({
  uid,
  human_readable_id: name,
  description,
  container_tag: image,
  use_gpu: onGpu,
  gpu_count: count,
  enabled,
  revision,
}) {
  const problem = make("p", { className: "problem", role: "alert" });
  const action = (label, kind, work) => {
    const button = make(
      "button",
      {
        type: "button",
        name: kind,
        "aria-label": `${label} ${name}`,
        onclick: () =>
          attempt(button, work, (words) => {
            problem.textContent = words;
          }),
      },
      label,
    );
    return button;
  };
  const change = async (method, parameters) => {
    await call(method, `/api/models/${encodeURIComponent(uid)}`, parameters);
    await reload();
  };
  const remove = action("Delete", "delete", async () => {
    if (confirm(`Delete ${name}? Its tasks that wait will fail.`)) await change("DELETE");
  });
  remove.classList.add("danger");
  const about = [`revision ${revision}`, onGpu ? many(count, "GPU") : "no GPU"].join(" · ");
  return make(
    "li",
    {},
    make(
      "div",
      { className: "head" },
      make("strong", {}, name),
      make("span", { className: `chip ${enabled ? "good" : "warn"}` }, enabled ? "takes tasks" : "disabled"),
    ),
    description && make("span", {}, description),
    make("span", { className: "small" }, make("code", {}, image), ` · ${about}`),
    make(
      "div",
      { className: "actions" },
      enabled
        ? action("Disable", "turn", () => change("PATCH", { enabled: false }))
        : action("Enable", "turn", () => change("PATCH", { enabled: true })),
      remove,
    ),
    problem,
  );
}
