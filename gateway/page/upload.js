// Resumable uploads (tus 1.0): what was sent before a cut isn't sent again.

import { Refused, sentence, UNREACHABLE } from "./shared/api.js";

const TUS = "1.0.0";
const AGAIN_MILLISECONDS = [500, 1000, 2000, 5000, 5000, 10_000, 10_000, 10_000, 15_000, 15_000];
const LATER = [0, 409, 423, 503, 507]; // cut, held by the request that was cut, without a part or room

// fetch() doesn't tell how far an upload is.
function send(method, url, { headers = {}, body = null, signal, sent = () => {} }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    request.open(method, url);
    for (const [name, value] of Object.entries({ "Tus-Resumable": TUS, ...headers }))
      request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => sent(event.loaded);
    request.onload = () => {
      if (request.status < 400) return resolve(request);
      let problem = null;
      try {
        problem = JSON.parse(request.response);
      } catch {
        /* then it is told by its number */
      }
      reject(new Refused(request.status, sentence(request.status, problem)));
    };
    request.onerror = () => reject(new Refused(0, UNREACHABLE));
    request.onabort = () => reject(signal.reason);
    request.onloadend = () => signal.removeEventListener("abort", abort);
    signal.addEventListener("abort", abort);
    signal.throwIfAborted();
    request.send(body);
  });
}

const offsetIn = (answer) => Number(answer.getResponseHeader("Upload-Offset"));

const pause = (milliseconds, signal) =>
  new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", resolve, { once: true });
  });

// Until all of it is there. Each try that brings nothing further is followed by a longer pause, and the last one fails.
async function sendAll(url, zip, { signal, sent }) {
  let offset = 0;
  let tries = 0;
  let isCut = false;
  while (offset < zip.size) {
    const before = offset;
    try {
      if (isCut) offset = offsetIn(await send("HEAD", url, { signal }));
      isCut = false;
      if (offset > before) tries = 0;
      if (offset === zip.size) return;
      const headers = { "Upload-Offset": offset, "Content-Type": "application/offset+octet-stream" };
      const answer = await send("PATCH", url, {
        headers,
        body: zip.slice(offset),
        signal,
        sent: (more) => sent(offset + more),
      });
      offset = offsetIn(answer);
    } catch (error) {
      if (!LATER.includes(error.status) || tries === AGAIN_MILLISECONDS.length) throw error;
      sent(offset, error.message);
      await pause(AGAIN_MILLISECONDS[tries], signal);
      signal.throwIfAborted();
      tries += 1;
      isCut = true;
    }
  }
}

// The uid of the task. `sent` hears how many bytes have been sent, and what is wrong while it tries again.
export async function upload(model, zip, { signal, sent }) {
  const created = await send("POST", `/api/uploads/?model_human_readable_id=${encodeURIComponent(model)}`, {
    headers: { "Upload-Length": zip.size },
    signal,
  });
  const { pathname } = new URL(created.getResponseHeader("Location"), location.href);
  try {
    await sendAll(pathname, zip, { signal, sent });
  } catch (error) {
    fetch(pathname, { method: "DELETE", headers: { "Tus-Resumable": TUS } }).catch(() => {}); // else it expires
    throw error;
  }
  return pathname.split("/").at(-1);
}
