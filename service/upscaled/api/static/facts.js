// The figures of a result: sizes, time, model, and where the time went.

import { element, make, setText } from "./page.js";
import { describeBytes, describeSeconds, describeSize, readServerTiming } from "./text.js";

const STAGES = { queue: "queue", decode: "decode", network: "network", encode: "encode", rest: "transfer" };

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
    const part = make("span", { className: name });
    part.style.flexGrow = 1000 * seconds; // shares below 1 would leave room
    return part;
  }));
  element("time-list").replaceChildren(...all.map(({ name, seconds }) => (
    make("li", { className: name }, `${STAGES[name] ?? name} ${describeSeconds(seconds)}`)
  )));
}
