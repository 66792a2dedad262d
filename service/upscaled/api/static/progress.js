// How far a picture is, as a share and in words.

import { describeBytes, describeSeconds } from "./text.js";

const PHASES = { send: 0.1, wait: 0.05, network: 0.75, receive: 0.1 };

/* The bars of a progress as [{ phase, done, isNow }], and the whole as a share. */
export function measure({ phase, done, total }) {
  const now = { encode: "network", pause: "wait" }[phase] ?? phase;
  const share = total ? Math.min(1, done / total) : 0;
  let isPast = true;
  let whole = 0;
  const bars = Object.entries(PHASES).map(([name, weight]) => {
    const isNow = name === now;
    if (isNow) isPast = false;
    const part = isNow ? share : Number(isPast);
    whole += part * weight;
    return { phase: name, done: part, isNow };
  });
  return { bars, whole };
}

// How much of its way a picture has behind it, 0 to 1.
export function shareOf({ state, progress }) {
  if (state === "running") return measure(progress).whole;
  return Number(state === "done" || state === "failed");
}

export function describeProgress({ phase, done, total, remainingS }) {
  if (phase === "send") return `Sending ${describeBytes(done)} of ${describeBytes(Math.max(done, total))}`;
  if (phase === "wait") return "Waiting for its turn";
  if (phase === "pause") return `The server is busy. Again in ${describeSeconds(Math.max(1, Math.ceil(remainingS)))}`;
  if (phase === "encode") return "Writing the file";
  if (phase === "receive") return `Receiving ${describeBytes(done)}`;
  const left = remainingS ? `, about ${describeSeconds(Math.max(1, Math.ceil(remainingS)))} left` : "";
  return `Tile ${Math.min(done + 1, total)} of ${total}${left}`;
}

// "3 of 20 done, 1 failed": of the pictures of a run.
export function describeRun(pictures) {
  const count = (state) => pictures.filter((each) => each.state === state).length;
  const failed = count("failed");
  return `${count("done")} of ${pictures.length} done${failed ? `, ${failed} failed` : ""}`;
}
