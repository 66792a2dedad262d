// One request to the API: sent, watched while it runs, and its answer read.

import { Refusal } from "./errors.js";

// Not crypto.randomUUID, which plain http:// pages do not have.
function makeRequestId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/* Upscale `file`, or what is at `address` where there is none. `report` hears { phase, done, total, remainingS } of the phases send, wait, network,
   encode and receive; `signal` cancels; `choices` are headers of the result's format, model ... Gives
   { blob, timing, seconds, model, temperedWith, requestId }, throws a `Refusal`, or an AbortError once
   cancelled. */
export async function upscale({ file, address, key, scale, choices, signal, report }) {
  const requestId = makeRequestId();
  const watching = new AbortController();
  const began = performance.now();
  try {
    const xhr = await send({ file, address, key, scale, choices, requestId, signal, report, watching });
    if (xhr.status !== 200) throw await readRefusal(xhr, requestId, scale);
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
    } catch {
      throw new Refusal({ status: 401, code: "invalid_auth_token" }); // no header can hold such characters
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
    xhr.onerror = () => reject(new Refusal());
    xhr.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => xhr.abort());
    xhr.send(form);
  });
}

async function readRefusal(xhr, requestId, scale) {
  const body = await xhr.response.text().then(JSON.parse).catch(() => ({}));
  return new Refusal({
    status: xhr.status,
    code: body.error_code,
    text: body.error,
    requestId: xhr.getResponseHeader("X-Request-Id") ?? requestId,
    retryAfterS: Number(xhr.getResponseHeader("Retry-After")) || 0,
    scale,
  });
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
