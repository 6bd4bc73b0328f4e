// The API, as JSON; what it refuses is an error with a sentence.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const UNREACHABLE = "The server can't be reached at the moment.";
export const NOT_FOUND = 404;
export const CONFLICT = 409;

// Problem details, or the faults of version 1's calls.
export function sentence(status, body) {
  const detail = body?.detail?.detail ?? body?.detail;
  if (Array.isArray(detail)) return detail.map((fault) => `${fault.loc.at(-1)}: ${fault.msg}`).join("; ");
  return detail || `The server answered with status ${status}.`;
}

export async function call(method, path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ""));
  let answer;
  try {
    answer = await fetch(`${query}` ? `${path}?${query}` : path, { method, cache: "no-store" });
  } catch {
    throw new Refused(0, UNREACHABLE);
  }
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, sentence(answer.status, body));
  return body;
}

export const taskPath = (uid, rest = "") => `/api/tasks/${encodeURIComponent(uid)}${rest}`;
