// The figures of a result: sizes, time, model, and where the time went.

import { describeBytes, describeSeconds, describeSize, readServerTiming } from "./text.js";

const STAGES = { queue: "queue", decode: "decode", network: "network", encode: "encode", rest: "transfer" };
const element = (id) => document.getElementById(id);
const setText = (id, text) => { element(id).textContent = text; };

// `before` and `after`: the sizes, null where the browser cannot read the file.
export function showFacts({ file, result }, before, after) {
  const { blob, seconds, model, temperedWith, timing } = result;
  const describe = (size, bytes) => [size && describeSize(size), describeBytes(bytes)].filter(Boolean).join(", ");
  setText("fact-before", describe(before, file.size));
  setText("fact-after", describe(after, blob.size));
  setText("fact-time", describeSeconds(seconds));
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
    part.style.flexGrow = seconds;
    return part;
  }));
  element("time-list").replaceChildren(...all.map(({ name, seconds }) => {
    const line = document.createElement("li");
    line.className = name;
    line.textContent = `${STAGES[name] ?? name} ${describeSeconds(seconds)}`;
    return line;
  }));
}
