// The page at /: choosing, sending, showing. Served from here, loads nothing from elsewhere.

import { explain, Refusal } from "./errors.js";
import { upscale } from "./request.js";
import { WRITERS } from "./snippets.js";
import { describeBytes, describeSeconds, describeSize, nameResult, readServerTiming } from "./text.js";
import { Viewer } from "./viewer.js";

const MAX_RESULT_SIDE_PX = 6000;
const PHASES = { send: 0.1, wait: 0.05, network: 0.75, receive: 0.1 };
const NO_KEY = "YOUR_API_KEY";
const STAGES = { queue: "queue", decode: "decode", network: "network", encode: "encode", rest: "transfer" };

const element = (id) => document.getElementById(id);
const setText = (id, text) => { element(id).textContent = text; };
const hide = (...ids) => ids.forEach((id) => { element(id).hidden = true; });
const reveal = (...ids) => ids.forEach((id) => { element(id).hidden = false; });
const scaleAsked = () => Number(element("form").elements.scale.value);

const viewer = new Viewer({
  stage: element("stage"), before: element("before"), after: element("after"),
  layerBefore: element("layer-before"), layerAfter: element("layer-after"),
  tagBefore: element("tag-before"), tagAfter: element("tag-after"),
  divider: element("divider"), split: element("split"),
}, (zoom) => { document.querySelector(`[name=zoom][value="${zoom}"]`).checked = true; });

// The picture chosen: { file, url, size }; the answer to it: { url, mediaType, scale }; what runs.
let source = null;
let result = null;
let running = null;

// --- choosing ---

async function choose(file) {
  if (!file || running) return;
  forgetResult();
  hide("failure");
  if (source) URL.revokeObjectURL(source.url);
  const chosen = source = { file, url: URL.createObjectURL(file), size: null };
  setText("chosen", file.name);
  setText("chosen-facts", describeBytes(file.size));
  element("drop").classList.add("filled");
  writeSnippet();
  try {
    const size = await viewer.showSource(chosen.url);
    if (chosen !== source) return;
    chosen.size = size;
    element("thumb").src = chosen.url;
    setText("chosen-facts", `${describeSize(size)}, ${describeBytes(file.size)}`);
  } catch {
    if (chosen === source) viewer.clear();
  }
  element("thumb").hidden = !chosen.size;
  element("drop-icon").toggleAttribute("hidden", Boolean(chosen.size));
  element("no-preview").hidden = Boolean(chosen.size);
  setText("caption", chosen.size ? "Your picture, as it is now." : "");
  hintSize();
  picker?.show();
}

async function chooseSample() {
  const picture = await fetch("assets/sample.jpg");
  await choose(new File([await picture.blob()], "sample.jpg", { type: "image/jpeg" }));
}

function forgetResult() {
  if (result) URL.revokeObjectURL(result.url);
  result = null;
  hide("facts");
}

function hintSize() {
  const scale = scaleAsked();
  if (!source?.size) return setText("size-hint", `Each side grows ${scale === 2 ? "twofold" : "fourfold"}.`);
  const longest = Math.max(source.size.width, source.size.height) * scale;
  const factor = scale * Math.min(1, MAX_RESULT_SIDE_PX / longest);
  const grown = { width: Math.round(source.size.width * factor), height: Math.round(source.size.height * factor) };
  setText("size-hint", `${describeSize(source.size)} becomes ${describeSize(grown)}.`);
}

// --- sending ---

async function submit(event) {
  event.preventDefault();
  if (running) return;
  const key = element("key").value.trim();
  if (!source) return refuse("image", "Choose a picture first.", "Or try the sample picture.");
  if (!key) return refuse("key", "The API key is missing.", "The server printed one at its first start.");
  const scale = scaleAsked();
  running = new AbortController();
  hide("failure");
  setBusy(true);
  try {
    const answer = await upscale({
      file: source.file, key, scale, model: modelAsked(), signal: running.signal, report: showProgress,
    });
    await showResult(answer, scale);
  } catch (error) {
    showFailure(error);
  } finally {
    running = null;
    setBusy(false);
  }
}

function setBusy(isBusy) {
  // Not disabled: that would take the focus from the user who just pressed it.
  element("send").setAttribute("aria-disabled", isBusy);
  element("send").textContent = isBusy ? "Upscaling" : "Upscale";
  element("form").classList.toggle("busy", isBusy);
  if (!isBusy && document.activeElement === element("cancel")) element("send").focus();
  element("progress").hidden = !isBusy;
  if (isBusy) showProgress({ phase: "send", done: 0, total: source.file.size });
}

function describeProgress({ phase, done, total, remainingS }) {
  if (phase === "send") return `Sending ${describeBytes(done)} of ${describeBytes(Math.max(done, total))}`;
  if (phase === "wait") return "Waiting for its turn";
  if (phase === "encode") return "Writing the file";
  if (phase === "receive") return `Receiving ${describeBytes(done)}`;
  const left = remainingS ? `, about ${describeSeconds(Math.max(1, Math.ceil(remainingS)))} left` : "";
  return `Tile ${Math.min(done + 1, total)} of ${total}${left}`;
}

function showProgress(progress) {
  const phase = progress.phase === "encode" ? "network" : progress.phase;
  const share = progress.total ? Math.min(1, progress.done / progress.total) : 0;
  let whole = 0;
  let isPast = true;
  for (const bar of element("track").children) {
    const isNow = bar.dataset.phase === phase;
    if (isNow) isPast = false;
    const done = isNow ? share : Number(isPast);
    bar.style.setProperty("--done", done);
    bar.classList.toggle("now", isNow && !share);
    whole += done * PHASES[bar.dataset.phase];
  }
  const text = describeProgress(progress);
  element("track").setAttribute("aria-valuenow", Math.round(100 * whole));
  element("track").setAttribute("aria-valuetext", text);
  setText("progress-text", text);
}

function refuse(field, title, advice) {
  showExplanation({ title, advice, details: "" });
  element(field).setAttribute("aria-invalid", "true");
  element(field).focus();
}

function showFailure(error) {
  if (error.name === "AbortError") return setText("status", "Cancelled.");
  if (!(error instanceof Refusal)) throw error;
  showExplanation(explain(error));
  if (error.code !== "invalid_auth_token") return;
  element("key").setAttribute("aria-invalid", "true");
  element("key").focus();
}

function showExplanation({ title, advice, details }) {
  setText("failure-title", title);
  setText("failure-advice", advice);
  setText("failure-details", details);
  reveal("failure");
}

// --- showing ---

async function showResult({ blob, timing, seconds, model, temperedWith }, scale) {
  const answered = { url: URL.createObjectURL(blob), mediaType: blob.type, scale };
  const { before, after } = await viewer.showPair(source.url, answered.url);
  forgetResult();
  result = answered;
  hide("no-preview");
  setText("tag-after", `After ${scale}×`);
  const twice = matchMedia("(pointer: coarse)").matches ? "Double-tap" : "Double-click";
  setText("caption", `Drag the divider. ${twice} to zoom.`);
  setText("fact-before", [before && describeSize(before), describeBytes(source.file.size)].filter(Boolean).join(", "));
  setText("fact-after", `${describeSize(after)}, ${describeBytes(blob.size)}`);
  setText("fact-time", describeSeconds(seconds));
  setText("fact-model", temperedWith ? `${model}, tempered with ${temperedWith}` : model);
  showTimes(readServerTiming(timing), seconds);
  element("download").href = result.url;
  element("download").download = nameResult(source.file.name, scale, blob.type);
  reveal("facts");
  writeSnippet();
  setText("status", `Done in ${describeSeconds(seconds)} by ${model}: ${describeSize(after)}.`);
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element("stage").scrollIntoView({ block: "nearest", behavior: isCalm ? "instant" : "smooth" });
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

// --- the request as a program ---

let language = "curl";

function writeSnippet() {
  const fileName = source?.file.name ?? "photo.jpg";
  const scale = scaleAsked();
  const mediaType = result?.scale === scale ? result.mediaType : "image/jpeg";
  const key = element("key").value.trim();
  setText("snippet", WRITERS[language]({
    url: new URL("v1/upscale", location.href).href,
    key: element("with-key").checked && key ? key : NO_KEY,
    fileName,
    resultName: nameResult(fileName, scale, mediaType),
    scale,
    model: modelAsked(),
  }));
}

function selectTab(tab) {
  language = tab.id.replace("tab-", "");
  for (const each of element("tabs").children) {
    each.setAttribute("aria-selected", each === tab);
    each.tabIndex = each === tab ? 0 : -1;
  }
  element("snippet").setAttribute("aria-labelledby", tab.id);
  writeSnippet();
}

function moveTab(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  const tabs = [...element("tabs").children];
  const next = tabs.at((tabs.indexOf(event.target) + step) % tabs.length);
  selectTab(next);
  next.focus();
}

async function copySnippet() {
  const text = element("snippet").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a plain http:// page has no clipboard, but may copy what is selected
    getSelection().selectAllChildren(element("snippet"));
    if (!document.execCommand("copy")) return setText("status", "Press Ctrl+C to copy.");
  }
  setText("copy", "Copied");
  setText("status", "Copied.");
  setTimeout(() => setText("copy", "Copy"), 2000);
}

// --- the model ---

// Loaded once it is opened: most visitors let the server choose.
let picker = null;
const modelAsked = () => picker?.name ?? "";

async function openModels() {
  if (!element("models").open) return;
  const { ModelPicker } = await import("./models.js");
  picker ??= new ModelPicker({
    list: element("model-list"), hint: element("model-hint"), chosen: element("model-chosen"),
    readKey: () => element("key").value.trim(),
    readPicture: () => ({ scale: scaleAsked(), px: source?.size ? source.size.width * source.size.height : null }),
  }, writeSnippet);
  await picker.refresh();
}

// --- events ---

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

function listenToDrops() {
  let depth = 0; // enter and leave come for every element on the way
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dropping", depth > 0);
  };
  document.addEventListener("dragenter", (event) => hasFiles(event) && mark(1));
  document.addEventListener("dragleave", (event) => hasFiles(event) && mark(-1));
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(-depth);
    choose(event.dataTransfer.files[0]);
  });
}

listenToDrops();
document.addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
element("image").addEventListener("change", (event) => choose(event.target.files[0]));
element("sample").addEventListener("click", chooseSample);
element("scales").addEventListener("change", () => { hintSize(); picker?.show(); writeSnippet(); });
element("zoom").addEventListener("change", ({ target }) => viewer.zoom(target.value === "fit" ? "fit" : Number(target.value)));
element("key").addEventListener("input", writeSnippet);
element("key").addEventListener("change", openModels);
element("models").addEventListener("toggle", openModels);
for (const id of ["key", "image"]) {
  for (const name of ["input", "change"]) element(id).addEventListener(name, () => element(id).removeAttribute("aria-invalid"));
}
element("with-key").addEventListener("change", writeSnippet);
element("form").addEventListener("submit", submit);
element("cancel").addEventListener("click", () => running?.abort());
element("copy").addEventListener("click", copySnippet);
element("tabs").addEventListener("keydown", moveTab);
for (const tab of element("tabs").children) tab.addEventListener("click", () => selectTab(tab));
writeSnippet();
viewer.showPair("assets/sample.jpg", "assets/sample-x4.jpg");
