"use strict";

const WAIT_SECONDS = 30;
const AGAIN_MILLISECONDS = 500;
const NOT_YET = 551;
const element = (id) => document.getElementById(id);

// The detail of an error: a sentence, or version 1's object with ours in it.
function sentence(body) {
  const detail = body.detail?.detail ? body.detail : body;
  if (Array.isArray(detail.detail)) return detail.detail.map((fault) => `${fault.loc.at(-1)}: ${fault.msg}`).join("\n");
  return [detail.message ?? detail.detail, detail.reason && `(${detail.reason})`].filter(Boolean).join(" ");
}

async function loadModels() {
  const answer = await fetch("/api/models/");
  if (!answer.ok) throw new Error(sentence(await answer.json()));
  const models = await answer.json();
  element("model").replaceChildren(...models.map((model) => new Option(model.human_readable_id)));
  const describe = () => {
    element("description").textContent = models[element("model").selectedIndex]?.description ?? "No model is registered yet.";
  };
  element("model").addEventListener("change", describe);
  describe();
}

// fetch() doesn't tell how far an upload is.
function post(model, zip) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/tasks/?model_human_readable_id=${encodeURIComponent(model)}`);
    request.setRequestHeader("Content-Type", "application/zip");
    request.responseType = "json";
    request.upload.onprogress = (event) => { element("progress").value = event.loaded / event.total; };
    request.onload = () => (request.status === 200 ? resolve(request.response) : reject(new Error(sentence(request.response ?? {}))));
    request.onerror = () => reject(new Error("The server can't be reached."));
    request.send(zip);
  });
}

// HEAD has the status of the result without its bytes; only an error's sentence takes a second call.
async function follow(uid) {
  const url = `/api/tasks/${encodeURIComponent(uid)}`;
  location.hash = uid;
  element("link").href = `#${uid}`;
  element("task").hidden = false;
  element("result").hidden = true;
  element("progress").removeAttribute("value");
  for (;;) {
    const answer = await fetch(`${url}?wait=${WAIT_SECONDS}`, { method: "HEAD" });
    if (answer.ok) break;
    if (answer.status !== NOT_YET) throw new Error(sentence(await (await fetch(url)).json()));
    element("state").textContent = "Waiting for its turn, or running.";
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MILLISECONDS));
  }
  element("progress").value = 1;
  element("state").textContent = "Finished.";
  element("result").href = url;
  element("result").hidden = false;
}

async function shown(work) {
  try {
    await work();
  } catch (error) {
    element("task").hidden = false;
    element("progress").value = 0;
    element("state").textContent = error.message;
  }
}

element("post").addEventListener("submit", (event) => {
  event.preventDefault();
  shown(async () => {
    element("task").hidden = false;
    element("state").textContent = "Sending.";
    await follow(await post(element("model").value, element("zip").files[0]));
  });
});

shown(loadModels);
if (location.hash.length > 1) shown(() => follow(decodeURIComponent(location.hash.slice(1))));
