// One request to the API: sent, watched while it runs, and its answer read.

import { makeId } from "./page.js";
import { Refusal } from "./refusal.js";

/* Upscale `file`, or what is at `address` where there is none. `report` hears { phase, done, total, remainingS } of
   the phases send, wait, network, encode and receive; `signal` cancels; `choices` are headers of the result's
   format, model ... Gives { blob, timing, seconds, model, temperedWith, requestId }, throws a `Refusal`, or an
   AbortError once cancelled. */
export async function upscale({ file, address, key, scale, choices, signal, report }) {
  const requestId = makeId();
  const watching = new AbortController();
  const began = performance.now();
  try {
    const xhr = await send({ file, address, key, scale, choices, requestId, signal, report, watching });
    if (xhr.status !== 200) throw await explain(xhr, requestId, scale);
    return {
      blob: xhr.response,
      timing: xhr.getResponseHeader("Server-Timing"),
      model: xhr.getResponseHeader("X-Upscale-Model") ?? "",
      temperedWith: xhr.getResponseHeader("X-Upscale-Tempered-With"),
      seconds: (performance.now() - began) / 1000,
      requestId,
    };
  } finally {
    watching.abort();
  }
}

// Not fetch, which does not report how much of a body has been sent.
function send({ file, address, key, scale, choices, requestId, signal, report, watching }) {
  const form = new FormData();
  form.append("scale", scale);
  if (file) form.append("image", file, file.name);
  else form.append("image_url", address);
  const xhr = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    xhr.open("POST", "v1/upscale");
    xhr.responseType = "blob";
    xhr.setRequestHeader("Accept", "image/*");
    xhr.setRequestHeader("X-Request-Id", requestId);
    for (const [name, value] of Object.entries(choices)) xhr.setRequestHeader(name, value);
    try {
      xhr.setRequestHeader("X-API-KEY", key);
    } catch { // no header can hold such characters
      return reject(Refusal.ofKey());
    }
    xhr.upload.onprogress = ({ loaded, total }) => report({ phase: "send", done: loaded, total });
    xhr.upload.onload = () => {
      report({ phase: "wait" });
      watch(requestId, key, watching.signal, report);
    };
    xhr.onprogress = ({ loaded, total }) => {
      watching.abort();
      if (xhr.status === 200) report({ phase: "receive", done: loaded, total });
    };
    xhr.onload = () => resolve(xhr);
    xhr.onerror = async () => reject(await isReadable(file) ? new Refusal() : Refusal.ofFile());
    xhr.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => xhr.abort());
    xhr.send(form);
  });
}

async function explain(xhr, requestId, scale) {
  const { readRefusal } = await import("./errors.js").catch(() => { throw new Refusal(); }); // it has gone since
  return readRefusal({
    status: xhr.status,
    body: await xhr.response.text(),
    requestId: xhr.getResponseHeader("X-Request-Id") ?? requestId,
    retryAfterS: Number(xhr.getResponseHeader("Retry-After")) || 0,
    scale,
  });
}

// A file on the disk may have changed since it was chosen; the browser then fails as if the server were away.
async function isReadable(file) {
  return file?.slice(0, 1).arrayBuffer().then(() => true, () => false) ?? true;
}

// Whatever fails here, the request itself goes on: then it merely shows no tiles.
async function watch(requestId, key, signal, report) {
  try {
    const answer = await fetch(`v1/progress/${requestId}`, { headers: { "X-API-KEY": key }, signal });
    if (!answer.ok) return;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      text += read.value;
      const events = text.split("\n\n");
      text = events.pop();
      events.forEach((event) => reportEvent(event, signal, report));
    }
  } catch { /* see above */ }
}

function reportEvent(event, signal, report) {
  const data = /^event: progress\ndata: (.*)$/.exec(event);
  if (!data || signal.aborted) return;
  const { stage, tiles_done: done, tiles_total: total, remaining_s: remainingS } = JSON.parse(data[1]);
  if (stage === "network" || stage === "encode") report({ phase: stage, done, total, remainingS });
}
