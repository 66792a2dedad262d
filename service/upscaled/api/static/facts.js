// The figures of a result: sizes, time, model, and where the time went.

import { describeBytes, describeSeconds, describeSize, readServerTiming } from "./text.js";

const STAGES = { queue: "queue", decode: "decode", network: "network", encode: "encode", rest: "transfer" };
const element = (id) => document.getElementById(id);
const setText = (id, text) => { element(id).textContent = text; };

// `before` and `after`: the sizes, null where the browser cannot read the file.
export function showFacts({ bytes, result }, before, after) {
  const { blob, seconds, model, temperedWith, timing } = result;
  const describe = (size, count) => [size && describeSize(size), count && describeBytes(count)].filter(Boolean).join(", ") || "unknown";
  setText("fact-before", describe(before, bytes));
  setText("fact-after", describe(after, blob.size));
  setText("fact-time", describeSeconds(seconds));
  element("copy-image").hidden = !navigator.clipboard?.write; // a plain http:// page has none
  setText("fact-model", temperedWith ? `${model}, tempered with ${temperedWith}` : model);
  showTimes(readServerTiming(timing), seconds);
  Object.assign(element("download"), { href: result.url, download: result.name });
  element("facts").hidden = false;
}

function showTimes(stages, wholeS) {
  const restS = Math.max(0, wholeS - stages.reduce((sum, { seconds }) => sum + seconds, 0));
  const all = [...stages, { name: "rest", seconds: restS }];
  element("time-bar").replaceChildren(...all.map(({ name, seconds }) => {
    const part = document.createElement("span");
    part.className = name;
    part.style.flexGrow = 1000 * seconds; // shares below 1 would leave room
    return part;
  }));
  element("time-list").replaceChildren(...all.map(({ name, seconds }) => {
    const line = document.createElement("li");
    line.className = name;
    line.textContent = `${STAGES[name] ?? name} ${describeSeconds(seconds)}`;
    return line;
  }));
}

// Clipboards take PNG alone.
async function toPng(blob) {
  if (blob.type === "image/png") return blob;
  const bitmap = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas.convertToBlob();
}

export async function copyImage({ blob }) {
  await navigator.clipboard.write([new ClipboardItem({ "image/png": toPng(blob) })]);
}
