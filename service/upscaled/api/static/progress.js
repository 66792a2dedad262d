// How far a picture is, as a share and in words.

import { describeBytes, describeSeconds } from "./text.js";

// Where each phase begins, and how much of the whole it takes.
const SPANS = { send: [0, 0.1], pause: [0.1, 0], wait: [0.1, 0.05], network: [0.15, 0.75], encode: [0.9, 0], receive: [0.9, 0.1] };

// How much of its way a picture has behind it, 0 to 1.
export function shareOf({ state, progress }) {
  if (state !== "running") return Number(state === "done" || state === "failed");
  const { phase, done, total } = progress;
  const [start, length] = SPANS[phase];
  return start + length * (total ? Math.min(1, done / total) : 0);
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
