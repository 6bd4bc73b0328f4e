// Numbers, times and reasons, as people say them.

const UNITS = ["B", "kB", "MB", "GB", "TB"];
const SECONDS = { minute: 60, hour: 3600, day: 86400 };

export function bytes(count) {
  const step = count > 0 ? Math.min(Math.floor(Math.log10(count) / 3), UNITS.length - 1) : 0;
  const value = count / 1000 ** step;
  return `${step && value < 10 ? value.toFixed(1) : Math.round(value)} ${UNITS[step]}`;
}

export const many = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

export function duration(seconds) {
  if (seconds < SECONDS.minute) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < SECONDS.hour)
    return `${Math.floor(seconds / SECONDS.minute)} min ${Math.round(seconds % SECONDS.minute)} s`;
  if (seconds < 2 * SECONDS.day) {
    return `${Math.floor(seconds / SECONDS.hour)} h ${Math.round((seconds % SECONDS.hour) / SECONDS.minute)} min`;
  }
  return many(Math.round(seconds / SECONDS.day), "day");
}

export function ago(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (seconds < 5) return "now";
  return `${seconds < SECONDS.minute ? duration(seconds) : duration(seconds).match(/^\d+ \w+/)[0]} ago`;
}

const REASONS = {
  exit_nonzero: "The model stopped with an error.",
  out_of_memory: "The model needed more memory than it may have.",
  timeout: "The model ran for longer than it may.",
  image_unavailable: "The model's image could not be fetched.",
  no_output: "The model ended without a result.",
  output_invalid: "The model left files that can't be sent back.",
  output_too_large: "The result is larger than it may be.",
  disk_limit: "The model wrote more to its disk than it may.",
  input_invalid: "The zip could not be unpacked.",
  gpu_unavailable: "The GPU was not available.",
  disk_full: "The machine that ran it had no room on its disk.",
  agent_lost: "The machine that ran it was lost.",
  engine_error: "The machine that ran it could not start or watch the container.",
  handed_back: "The machine that ran it was stopped.",
  cancelled: "It was cancelled.",
  expired: "It waited for longer than it was allowed to.",
  model_deleted: "The model was deleted.",
};

export function why({ reason, exit_code: code }) {
  const words = REASONS[reason] ?? `It failed: ${reason}.`;
  return reason === "exit_nonzero" && code != null ? `${words.slice(0, -1)} (exit code ${code}).` : words;
}

const AHEAD = (position) => (position ? `${many(position, "task")} ahead of it.` : "It is next.");

// What there is to say beside its state.
export function standing(status) {
  switch (status.state) {
    case "pending":
      if (status.waits_for) return `Waiting for ${status.waits_for}.`;
      return `Waiting for its turn. ${status.position == null ? "" : AHEAD(status.position)}`.trim();
    case "running":
      return status.attempt > 1 ? `This is attempt ${status.attempt}.` : "";
    case "finished":
      return status.output_bytes == null ? "The result is no longer kept." : "";
    default:
      return why(status);
  }
}
