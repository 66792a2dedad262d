// Two pictures over one another, a divider between them, zoom and pan.

import { element } from "./page.js";

const STEP = 0.1; // of the stage, by an arrow key
const NEAR_PX = 28; // from the divider
const TAGS_PX = 240; // what two tags side by side take
const MOST_ZOOM = 8; // pixels of the screen for one of the picture
const BY_WHEEL = 0.002; // for a pixel that is scrolled; a pinch of a touchpad comes as a wheel with Ctrl, and is finer
const BY_PINCH = 0.01;
const LINE_PX = 16; // of a wheel that counts lines

const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

// Where a picture of `length` begins in `room`: centred, or with its `centre` (0 to 1) in the middle.
function place(room, length, centre) {
  const start = length <= room ? (room - length) / 2 : clamp(room / 2 - centre * length, room - length, 0);
  return Math.round(start * devicePixelRatio) / devicePixelRatio;
}

// `onZoom` hears of zooming by double click, wheel and fingers.
export class Viewer {
  #parts = {
    stage: element("stage"), before: element("before"), after: element("after"),
    layerBefore: element("layer-before"), layerAfter: element("layer-after"),
    tagBefore: element("tag-before"), tagAfter: element("tag-after"),
    divider: element("divider"), split: element("split"),
  };
  #onZoom;
  #zoom = "fit";
  #split = 0.5;
  #centre = { x: 0.5, y: 0.5 };
  #size = { width: 1, height: 1 };
  #box = { left: 0, top: 0, width: 1, height: 1 };
  #isPair = false;
  #fingers = new Map(); // the pointers that are down, by their id, where they were last
  #isSplitting = false;
  #turn = 0; // of what is to be shown: what was asked for before loads in vain

  constructor(onZoom) {
    this.#onZoom = onZoom;
    const { stage, split } = this.#parts;
    new ResizeObserver(() => this.#layOut()).observe(stage);
    split.addEventListener("input", () => this.#moveSplit(split.value / 100));
    stage.addEventListener("pointerdown", (event) => this.#grab(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      stage.addEventListener(name, ({ pointerId }) => this.#fingers.delete(pointerId));
    }
    stage.addEventListener("wheel", (event) => this.#turnWheel(event), { passive: false });
    stage.addEventListener("keydown", (event) => this.#pressKey(event));
    stage.addEventListener("dblclick", (event) => this.#toggleZoom(event));
  }

  // Show the source alone: its size, null if another was asked for meanwhile, or a rejection where the
  // browser cannot read it.
  async showSource(url) {
    const turn = ++this.#turn;
    const source = await load(url);
    if (turn !== this.#turn) return null;
    this.#show(source, null, source.naturalWidth, source.naturalHeight);
    return this.#size;
  }

  // Show both, at the size of the result: { before, after } as sizes, or as above.
  async showPair(beforeUrl, afterUrl) {
    const turn = ++this.#turn;
    const [source, result] = await Promise.all([load(beforeUrl).catch(() => null), load(afterUrl)]);
    if (turn !== this.#turn) return null;
    this.#show(source, result, result.naturalWidth, result.naturalHeight);
    return { before: source && sizeOf(source), after: this.#size };
  }

  clear() {
    this.#turn++;
    this.#show(null, null, 1, 1);
  }

  // "fit", or picture pixels per pixel of the screen.
  zoom(zoom) {
    this.#zoom = zoom;
    this.#layOut();
  }

  #show(source, result, width, height) {
    const { before, after, layerAfter, tagBefore, tagAfter, divider, split } = this.#parts;
    before.src = source?.src ?? "";
    after.src = result?.src ?? "";
    before.hidden = !source;
    this.#isPair = Boolean(source && result);
    for (const each of [layerAfter, tagAfter]) each.hidden = !result;
    for (const each of [tagBefore, divider, split]) each.hidden = !this.#isPair;
    this.#size = { width, height };
    this.#centre = { x: 0.5, y: 0.5 };
    this.#parts.stage.style.setProperty("--aspect", width / height);
    this.#moveSplit(source ? 0.5 : 0);
  }

  #moveSplit(split) {
    const { split: range } = this.#parts;
    this.#split = clamp(split, 0, 1);
    range.value = Math.round(100 * this.#split);
    range.setAttribute("aria-valuetext", `${range.value} % before, ${100 - range.value} % after`);
    this.#layOut();
  }

  #layOut() {
    const { stage, before, after } = this.#parts;
    const { clientWidth: roomX, clientHeight: roomY } = stage;
    const { width, height } = this.#size;
    const isFit = this.#zoom === "fit";
    const scale = (isFit ? this.#zoomToFit() : this.#zoom) / devicePixelRatio;
    const box = { width: width * scale, height: height * scale };
    box.left = place(roomX, box.width, this.#centre.x);
    box.top = place(roomY, box.height, this.#centre.y);
    this.#centre = { x: (roomX / 2 - box.left) / box.width, y: (roomY / 2 - box.top) / box.height };
    this.#box = box;
    for (const { style } of [before, after]) {
      style.width = `${box.width}px`;
      style.height = `${box.height}px`;
      style.transform = `translate(${box.left}px, ${box.top}px)`;
    }
    stage.classList.toggle("zoomed", !isFit);
    if (isFit) stage.removeAttribute("tabindex");
    else stage.tabIndex = 0;
    this.#layOutDivider();
  }

  #layOutDivider() {
    const { stage, layerBefore, layerAfter, divider, tagBefore, tagAfter } = this.#parts;
    const { left, right, top, bottom } = this.#visible();
    const at = left + this.#split * (right - left);
    layerBefore.style.clipPath = this.#isPair ? `inset(0 ${stage.clientWidth - at}px 0 0)` : "none";
    layerAfter.style.clipPath = `inset(0 0 0 ${at}px)`;
    divider.style.transform = `translateX(${at}px)`;
    divider.style.top = `${top}px`;
    divider.style.height = `${bottom - top}px`;
    // On the picture, where it is wide enough for both.
    const isWide = right - left >= TAGS_PX;
    tagBefore.style.transform = isWide ? `translate(${left}px, ${top}px)` : "none";
    tagAfter.style.transform = isWide ? `translate(${right - stage.clientWidth}px, ${top}px)` : "none";
  }

  // What of the picture can be seen, in the stage's pixels.
  #visible() {
    const { stage } = this.#parts;
    const { left, top, width, height } = this.#box;
    return {
      left: Math.max(0, left),
      top: Math.max(0, top),
      right: Math.min(stage.clientWidth, left + width),
      bottom: Math.min(stage.clientHeight, top + height),
    };
  }

  #grab(event) {
    if (event.button !== 0) return;
    const { stage } = this.#parts;
    this.#fingers.set(event.pointerId, event);
    stage.setPointerCapture(event.pointerId);
    if (this.#fingers.size > 1) return;
    const { left, right } = this.#visible();
    const at = event.clientX - stage.getBoundingClientRect().left;
    const isNear = Math.abs(at - left - this.#split * (right - left)) < NEAR_PX;
    this.#isSplitting = this.#isPair && (isNear || this.#zoom === "fit");
    if (this.#isSplitting) this.#dragSplit(event);
  }

  #move(event) {
    const last = this.#fingers.get(event.pointerId);
    if (!last) return;
    this.#fingers.set(event.pointerId, event);
    const other = [...this.#fingers.values()].find(({ pointerId }) => pointerId !== event.pointerId);
    if (other) this.#pinch(last, event, other);
    else if (this.#isSplitting) this.#dragSplit(event);
    else this.#pan(last.clientX - event.clientX, last.clientY - event.clientY);
  }

  #pinch(last, now, other) {
    const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
    const middle = { clientX: (last.clientX + other.clientX) / 2, clientY: (last.clientY + other.clientY) / 2 };
    this.#zoomAt(this.#zoomNow() * apart(now) / apart(last), middle);
    this.#pan((last.clientX - now.clientX) / 2, (last.clientY - now.clientY) / 2);
  }

  // What cannot be zoomed further leaves the wheel to the page.
  #turnWheel(event) {
    const by = event.deltaY * (event.deltaMode ? LINE_PX : 1) * (event.ctrlKey ? BY_PINCH : BY_WHEEL);
    if (this.#zoomAt(this.#zoomNow() * Math.exp(-by), event) || event.ctrlKey) event.preventDefault();
  }

  // As `zoom()` has it, of "fit", too.
  #zoomNow() {
    return this.#box.width / this.#size.width * devicePixelRatio;
  }

  #zoomToFit() {
    const { stage } = this.#parts;
    return Math.min(stage.clientWidth / this.#size.width, stage.clientHeight / this.#size.height) * devicePixelRatio;
  }

  // Keep what is at this point where it is. Gives whether anything has changed.
  #zoomAt(wanted, { clientX, clientY }) {
    const { stage } = this.#parts;
    const [before, fit] = [this.#zoomNow(), this.#zoomToFit()];
    const zoom = clamp(wanted, fit, Math.max(fit, MOST_ZOOM));
    if (zoom === before) return false;
    const edge = stage.getBoundingClientRect();
    const keep = (at, start, length, room) => (at - start) / length + (room / 2 - at) / (length * zoom / before);
    this.#centre = {
      x: keep(clientX - edge.left, this.#box.left, this.#box.width, stage.clientWidth),
      y: keep(clientY - edge.top, this.#box.top, this.#box.height, stage.clientHeight),
    };
    this.zoom(zoom === fit ? "fit" : zoom);
    this.#onZoom(this.#zoom);
    return true;
  }

  #dragSplit({ clientX }) {
    const { left, right } = this.#visible();
    this.#moveSplit((clientX - this.#parts.stage.getBoundingClientRect().left - left) / (right - left));
  }

  #pan(x, y) {
    const { width, height } = this.#box;
    this.#centre = { x: this.#centre.x + x / width, y: this.#centre.y + y / height };
    this.#layOut();
  }

  #pressKey(event) {
    const { stage } = this.#parts;
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.target !== stage || !direction) return;
    event.preventDefault();
    this.#pan(direction[0] * STEP * stage.clientWidth, direction[1] * STEP * stage.clientHeight);
  }

  // To the picture's own pixels; a picture that is larger already, to twice as large.
  #toggleZoom(event) {
    const fit = this.#zoomToFit();
    this.#zoomAt(this.#zoom !== "fit" ? fit : fit < 1 ? 1 : 2 * fit, event);
  }
}

const sizeOf = (image) => ({ width: image.naturalWidth, height: image.naturalHeight });

// Decoded before it is shown, and beside the page's own thread: 36 megapixels must not hold it up.
async function load(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}
