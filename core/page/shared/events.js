// A task as it happens: its states, its progress, its log.

import { call, NOT_FOUND, taskPath } from "./api.js";

const AGAIN_MILLISECONDS = 2000;
const KINDS = ["state", "progress", "log"];
const ENDS = ["finished", "failed"];

export const hasEnded = (status) => ENDS.includes(status.state);

// Calls heard.state, .progress and .log until the task has ended, and heard.gone if there is no such task. A hidden page
// doesn't listen, because a browser has few connections to a server; what it missed is replayed. Returns what stops it.
export function follow(uid, heard) {
  let source = null;
  let last = "";
  let timer = 0;
  let done = false;

  const close = () => {
    source?.close();
    source = null;
    clearTimeout(timer);
  };
  const stop = () => {
    done = true;
    close();
    document.removeEventListener("visibilitychange", turn);
  };
  const listen = () => {
    close();
    source = new EventSource(taskPath(uid, `/events${last && `?last_event_id=${encodeURIComponent(last)}`}`));
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => {
        last = event.lastEventId || last;
        const data = JSON.parse(event.data);
        if (kind === "state" && hasEnded(data)) stop(); // it comes last
        heard[kind](data);
      });
    }
    source.onerror = () => {
      close();
      ask();
    };
  };
  // An EventSource doesn't tell why it ended. Of a task that has ended meanwhile the rest of the log is still to come.
  const ask = async () => {
    try {
      const status = await call("GET", taskPath(uid, "/status"));
      if (done) return;
      heard.state(status);
    } catch (error) {
      if (done) return;
      if (error.status === NOT_FOUND) {
        stop();
        return heard.gone();
      }
    }
    if (!done && !document.hidden) timer = setTimeout(listen, AGAIN_MILLISECONDS);
  };
  const turn = () => (document.hidden ? close() : listen());

  document.addEventListener("visibilitychange", turn);
  if (!document.hidden) listen();
  return stop;
}
