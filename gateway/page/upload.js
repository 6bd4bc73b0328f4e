// Resumable uploads (tus 1.0): what was sent before a cut isn't sent again.

import { CONFLICT, NOT_FOUND, Refused, sentence, UNREACHABLE } from "./shared/api.js";

const TUS = "1.0.0";
const AGAIN_MILLISECONDS = [500, 1000, 2000, 5000, 10_000, 15_000]; // the last for ever
const SILENT_MILLISECONDS = 60_000;
const CHECKED_MILLISECONDS = 300_000; // after the last byte the server looks through the zip
const GIVE_UP_MILLISECONDS = 20_000;
const LOOKED_AT_BYTES = 16 * 2 ** 20; // more than a browser has read and the server hasn't got
const LATER = [0, CONFLICT, 423, 502, 503, 504, 507]; // cut, held by the request that was, without a part or room

// fetch() doesn't tell how far an upload is. A request of which nothing is heard for a while counts as cut: a network
// that is gone doesn't say so.
function send(method, url, { headers = {}, body = null, signal, sent = () => {} }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    let silence = 0;
    const hear = (patience = SILENT_MILLISECONDS) => {
      clearTimeout(silence);
      silence = setTimeout(abort, patience);
    };
    request.open(method, url);
    for (const [name, value] of Object.entries({ "Tus-Resumable": TUS, ...headers }))
      request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => {
      hear();
      sent(event.loaded);
    };
    request.upload.onload = () => hear(CHECKED_MILLISECONDS);
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
    request.onabort = () => reject(signal.aborted ? signal.reason : new Refused(0, UNREACHABLE));
    request.onloadend = () => {
      clearTimeout(silence);
      signal.removeEventListener("abort", abort);
    };
    signal.addEventListener("abort", abort);
    signal.throwIfAborted();
    hear();
    request.send(body);
  });
}

const offsetIn = (answer) => Number(answer.getResponseHeader("Upload-Offset"));

const pause = (milliseconds, signal) =>
  new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", resolve, { once: true });
  });

// Until all of it is there, however long it takes. Each try that brings nothing further is followed by a longer pause.
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
      if (!LATER.includes(error.status)) throw error;
      // A file that has changed looks like a cut as well. Reading it says what it is, by a NotReadableError.
      if (error.status === 0) await zip.slice(offset, offset + LOOKED_AT_BYTES).arrayBuffer();
      sent(offset, error.message);
      await pause(AGAIN_MILLISECONDS[Math.min(tries, AGAIN_MILLISECONDS.length - 1)], signal);
      signal.throwIfAborted();
      tries += 1;
      isCut = true;
    }
  }
}

// Whether it is certain that nothing of it is kept, nor a task.
async function giveUp(url) {
  try {
    await send("DELETE", url, { signal: AbortSignal.timeout(GIVE_UP_MILLISECONDS) });
    return true;
  } catch (error) {
    return error.status === NOT_FOUND;
  }
}

// The uid of the task, also of one that was stopped when it may have been a task already. `sent` hears how many bytes
// have been sent, and what is wrong while it tries again.
export async function upload(model, zip, { signal, sent }) {
  const created = await send("POST", `/api/uploads/?model_human_readable_id=${encodeURIComponent(model)}`, {
    headers: { "Upload-Length": zip.size },
    signal,
  });
  const { pathname } = new URL(created.getResponseHeader("Location"), location.href);
  try {
    await sendAll(pathname, zip, { signal, sent });
  } catch (error) {
    if (error.status || (await giveUp(pathname))) throw error; // what is refused is gone, or goes by itself
  }
  return pathname.split("/").at(-1);
}
