// The API, as JSON; what it refuses is an error with a sentence.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const UNREACHABLE = "The server can't be reached at the moment.";
const UNAUTHORIZED = 401;
export const NOT_FOUND = 404;
export const CONFLICT = 409;
const SIGN_IN = "In a browser: reload the page, and enter any name and your key as the password.";

// Problem details, or the faults of version 1's calls.
export function sentence(status, body) {
  const detail = body?.detail?.detail ?? body?.detail;
  if (Array.isArray(detail)) return detail.map((fault) => `${fault.loc.at(-1)}: ${fault.msg}`).join("; ");
  if (status === UNAUTHORIZED && detail) return `${detail}. ${SIGN_IN}`;
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
