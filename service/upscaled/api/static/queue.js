// The pictures that were chosen, and the queue that upscales them: two at once, each until it is done.

import { makeId } from "./page.js";
import { Refusal } from "./refusal.js";
import { upscale } from "./request.js";
import { nameAddress, nameResult } from "./text.js";

const AT_ONCE = 2;
const MOST_TRIES = 20; // of a picture that the server answers 429
const PAUSE_S = 2; // after a 429 without Retry-After
// What every other picture would be answered, too.
export const FOR_ALL = new Set(["invalid_auth_token", "insufficient_api_credits"]);

/* `state` is new, waiting, running, done, failed or expired. `result`: { url, name, scale, blob, model ... } of the
   last time that it was done; `error`: the Refusal of the last time that it failed. */
export class Picture {
  static #last = 0;
  id = makeId();
  chosenAt = Picture.#last = Math.max(Date.now(), Picture.#last + 1); // no two alike
  isRecalled = false;
  state = "new";
  size = null;
  progress = null;
  result = null;
  error = null;

  // A file, its name behind the folder that was chosen with it, or an address that the server fetches.
  constructor({ file = null, address = "", path = file?.name ?? nameAddress(address) }) {
    Object.assign(this, { file, address, path, url: file ? URL.createObjectURL(file) : "" });
  }

  // One of the tab's before it was reloaded, as kept.js stored it.
  static recall({ id, chosenAt, path, address, size, source, blob, result }) {
    const picture = new Picture({ file: source, address, path });
    Object.assign(picture, { id, chosenAt, size, isRecalled: true, state: blob ? "done" : "expired" });
    if (blob) picture.result = { ...result, blob, url: URL.createObjectURL(blob) };
    return picture;
  }

  get canBeSent() {
    return Boolean(this.file || this.address);
  }

  get bytes() {
    return this.file?.size ?? 0;
  }

  get name() {
    return this.path.split("/").at(-1);
  }

  get isBusy() {
    return this.state === "waiting" || this.state === "running";
  }

  finish(answer, scale) {
    this.forgetResult();
    const name = nameResult(this.name, scale, answer.blob.type);
    this.result = { ...answer, scale, name, url: URL.createObjectURL(answer.blob) };
  }

  forgetResult() {
    if (this.result) URL.revokeObjectURL(this.result.url);
    this.result = null;
    if (this.state === "done") this.state = "new";
  }

  forget() {
    this.forgetResult();
    URL.revokeObjectURL(this.url);
  }
}

/* `note` is called with each picture whose state or progress has changed. */
export class Queue {
  #note;
  #waiting = [];
  #lanes = 0;
  #resumesAt = 0; // when the server takes requests again, in the clock of performance.now()

  constructor(note) {
    this.#note = note;
  }

  // `options`: { key, scale, choices } of their requests.
  add(pictures, options) {
    for (const picture of pictures) {
      picture.stop = new AbortController();
      Object.assign(picture, { options, error: null, progress: { phase: "wait" } });
      this.#set(picture, "waiting");
    }
    this.#waiting.push(...pictures);
    const lanes = Math.min(AT_ONCE - this.#lanes, this.#waiting.length);
    for (let lane = 0; lane < lanes; lane++) this.#work();
  }

  cancel(pictures) {
    const waiting = pictures.filter(({ state }) => state === "waiting");
    this.#waiting = this.#waiting.filter((each) => !waiting.includes(each));
    for (const picture of pictures) picture.stop.abort();
    for (const picture of waiting) this.#putBack(picture);
  }

  async #work() {
    this.#lanes++;
    try {
      while (this.#waiting.length) await this.#run(this.#waiting.shift());
    } finally {
      this.#lanes--;
    }
  }

  async #run(picture) {
    const { file, address, options, stop: { signal } } = picture;
    const report = (progress) => {
      picture.progress = progress;
      this.#note(picture);
    };
    report({ phase: "send", done: 0, total: picture.bytes });
    this.#set(picture, "running");
    try {
      picture.finish(await this.#ask({ ...options, file, address, signal, report }), options.scale);
      this.#set(picture, "done");
    } catch (error) {
      if (error.name === "AbortError") return this.#putBack(picture);
      if (!(error instanceof Refusal)) throw error;
      picture.error = error;
      if (FOR_ALL.has(error.code)) this.cancel([...this.#waiting]);
      this.#set(picture, "failed");
    }
  }

  // Where the server is busy, again when it says so.
  async #ask(request) {
    for (let tries = 1; ; tries++) {
      await this.#pause(request);
      try {
        return await upscale(request);
      } catch (error) {
        if (error.status !== 429 || tries === MOST_TRIES) throw error;
        const seconds = error.retryAfterS || PAUSE_S;
        this.#resumesAt = Math.max(this.#resumesAt, performance.now() + 1000 * seconds);
      }
    }
  }

  async #pause({ signal, report }) {
    for (;;) {
      if (signal.aborted) throw new DOMException("cancelled", "AbortError");
      const seconds = (this.#resumesAt - performance.now()) / 1000;
      if (seconds <= 0) return;
      report({ phase: "pause", remainingS: seconds });
      await new Promise((resolve) => setTimeout(resolve, Math.min(1, seconds) * 1000));
    }
  }

  #putBack(picture) {
    this.#set(picture, picture.result ? "done" : "new");
  }

  #set(picture, state) {
    picture.state = state;
    this.#note(picture);
  }
}
