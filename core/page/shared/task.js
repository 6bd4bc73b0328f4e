// One task: how it stands, how far it is, its log, and what can be done with it.

import { call, taskPath } from "./api.js";
import { attempt, make } from "./dom.js";
import { follow, hasEnded } from "./events.js";
import { ago, bytes, duration, standing, why } from "./words.js";

const LOG_CHARACTERS = 200_000;

export const chip = (state) => make("span", { className: `chip ${state}` }, state);

// The times on the page, as long ago as they are by now.
export function tick() {
  for (const time of document.querySelectorAll("time")) time.textContent = ago(time.dateTime);
}

export const when = (time) => make("time", { dateTime: time, title: new Date(time).toLocaleString() }, ago(time));

export class TaskView {
  // `root` is filled; `download` gives the address of a uid's result; `changed` hears of each status, null for a task
  // that isn't there, `deleted` of the one that was.
  constructor(root, { download, changed, deleted }) {
    this.download = download;
    this.changed = changed;
    this.stop = () => {};
    this.sentence = make("p", { className: "sentence", role: "status" });
    this.problem = make("p", { className: "problem", role: "alert" });
    this.progress = make("progress", { max: 1, "aria-label": "Progress" });
    this.note = make("p", { className: "small" });
    this.message = make("pre", {
      className: "message",
      tabIndex: 0,
      role: "region",
      "aria-label": "What it said last",
    });
    this.result = make("a", { className: "button primary", download: "" }, "Download the result");
    this.retry = this.#action("Try again", async (uid) => {
      await call("POST", taskPath(uid, "/retry"));
      if (uid === this.uid) this.show(uid);
    });
    this.cancel = this.#action("Cancel", async (uid) => {
      if (confirm("Cancel the task? What it has done so far is lost.")) await call("POST", taskPath(uid, "/cancel"));
    });
    this.remove = this.#action("Delete", async (uid) => {
      if (!confirm("Delete the task with its input and its result?")) return;
      await call("DELETE", taskPath(uid));
      deleted(uid);
    });
    this.remove.classList.add("danger");
    this.actions = make("div", { className: "actions" }, this.result, this.retry, this.cancel, this.remove);
    this.facts = make("dl", { className: "facts" });
    this.attempts = make("ol", { className: "attempts" });
    this.log = make("pre", { className: "log", tabIndex: 0, role: "region", "aria-label": "Log" });
    this.logged = make("section", {}, make("h3", {}, "Log"), this.log);
    root.replaceChildren(
      this.sentence,
      this.problem,
      this.progress,
      this.note,
      this.message,
      this.actions,
      this.facts,
      this.attempts,
      this.logged,
    );
  }

  #action(label, work) {
    const button = make("button", { type: "button" }, label);
    button.addEventListener("click", () => {
      this.problem.textContent = "";
      attempt(
        button,
        () => work(this.uid),
        (words) => {
          this.problem.textContent = words;
        },
      );
    });
    return button;
  }

  show(uid) {
    this.close();
    this.uid = uid;
    this.sentence.textContent = "Looking for the task.";
    for (const part of [this.progress, this.note, this.message, this.actions, this.logged]) part.hidden = true;
    this.facts.replaceChildren();
    this.attempts.replaceChildren();
    this.problem.textContent = "";
    this.#clearLog(null);
    this.stop = follow(uid, {
      state: (status) => this.#state(status),
      progress: (progress) => this.#progress(progress),
      log: ({ attempt: number, text }) => this.#log(number, text),
      gone: () => {
        this.sentence.textContent = "There is no such task, or it is no longer kept.";
        this.actions.hidden = true;
        this.changed(null, uid);
      },
    });
  }

  close() {
    this.stop();
    this.uid = null;
  }

  #state(status) {
    const ended = hasEnded(status);
    this.sentence.replaceChildren(chip(status.state), ` ${standing(status)}`);
    this.message.textContent = status.message ?? "";
    this.message.hidden = !status.message || status.state === "finished";
    this.result.href = this.download(status.uid);
    this.result.hidden = status.state !== "finished" || status.output_bytes == null;
    this.result.textContent = `Download the result (${bytes(status.output_bytes ?? 0)})`;
    this.retry.hidden = !status.can_retry;
    this.cancel.hidden = ended;
    this.actions.hidden = false;
    this.progress.hidden = ended;
    if (ended) this.note.hidden = true;
    else this.#progress(status.progress);
    this.facts.replaceChildren(...facts(status));
    const tries = status.attempts.length > 1 ? status.attempts : [];
    this.attempts.replaceChildren(...tries.map((one) => make("li", { value: one.number }, ...tried(one))));
    this.changed(status, status.uid);
  }

  #progress(progress) {
    if (progress?.fraction == null) this.progress.removeAttribute("value");
    else this.progress.value = progress.fraction;
    const percent = progress?.fraction == null ? "" : `${Math.round(100 * progress.fraction)} %`;
    this.note.textContent = [percent, progress?.message].filter(Boolean).join(" · ");
    this.note.hidden = !this.note.textContent;
  }

  #clearLog(number) {
    this.logOf = number;
    this.log.textContent = "";
    this.logged.hidden = true;
  }

  // Scrolls along, unless somebody reads further up.
  #log(number, text) {
    if (number !== this.logOf) this.#clearLog(number);
    this.logged.hidden = false;
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 8;
    this.log.append(text);
    while (this.log.textContent.length > LOG_CHARACTERS) this.log.firstChild.remove();
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }
}

function* facts(status) {
  const seconds = (from, to) => duration(((to ? Date.parse(to) : Date.now()) - Date.parse(from)) / 1000);
  const rows = [
    ["Model", status.model],
    ["Sent", when(status.created)],
    status.started && !status.finished && ["Started", when(status.started)],
    status.finished && ["Ended", when(status.finished)],
    status.started && status.finished && ["Ran for", seconds(status.started, status.finished)],
    status.input_bytes != null && ["Input", bytes(status.input_bytes)],
    ...Object.entries(status.labels),
    ["Task", make("code", {}, status.uid)],
  ];
  for (const [name, value] of rows.filter(Boolean)) yield make("div", {}, make("dt", {}, name), make("dd", {}, value));
}

function* tried(one) {
  yield when(one.started);
  yield `: ${one.reason ? why(one) : one.ended ? "It ended well." : "It runs."}`;
}
