// The page at /: choosing, sending, showing. Served from here, loads nothing from elsewhere.

import { explain } from "./errors.js";
import { copyImage, showFacts } from "./facts.js";
import { readAddresses, readDropped, readInput, readPasted } from "./gather.js";
import { Keyring } from "./keyring.js";
import { foresee } from "./limits.js";
import { Program } from "./program.js";
import { describeProgress, describeRun, measure, shareOf } from "./progress.js";
import { FOR_ALL, Picture, Queue } from "./queue.js";
import { Strip } from "./strip.js";
import { describeBytes, describeSeconds, describeSize, nameResult } from "./text.js";
import { Viewer } from "./viewer.js";
import { makeZip } from "./zip.js";

const NO_KEY = "YOUR_API_KEY";

const element = (id) => document.getElementById(id);
const setText = (id, text) => { element(id).textContent = text; };
const hide = (...ids) => ids.forEach((id) => { element(id).hidden = true; });
const scaleAsked = () => Number(element("form").elements.scale.value);
const WELCOME = element("chosen-facts").textContent;

const viewer = new Viewer({
  stage: element("stage"), before: element("before"), after: element("after"),
  layerBefore: element("layer-before"), layerAfter: element("layer-after"),
  tagBefore: element("tag-before"), tagAfter: element("tag-after"),
  divider: element("divider"), split: element("split"),
}, (zoom) => {
  for (const each of document.querySelectorAll("[name=zoom]")) each.checked = each.value === String(zoom);
});
const strip = new Strip(element("list"));
const queue = new Queue(note);
const program = new Program(readRequest);
const keyring = new Keyring(element("key"), element("remember"));

let selected = null; // the picture in the viewer
let run = []; // the pictures sent since the queue was empty last

// --- choosing ---

function choose(found) {
  const added = found.map((each) => new Picture(each));
  if (!added.length) return;
  strip.add(added);
  for (const each of added) strip.update(each, scaleAsked());
  show(added[0]);
  describeAll();
}

async function chooseSample() {
  const picture = await fetch("assets/sample.jpg");
  choose([{ file: new File([await picture.blob()], "sample.jpg", { type: "image/jpeg" }) }]);
}

function remove(picture) {
  const next = strip.remove(picture);
  if (picture === selected) show(next);
  describeAll();
  if (element("strip").hidden) element("image").focus(); // the strip had the focus
}

// What the form says about the pictures that are there.
function describeAll() {
  const { pictures } = strip;
  const [first] = pictures;
  const isOne = pictures.length === 1;
  const bytes = describeBytes(pictures.reduce((sum, each) => sum + each.bytes, 0));
  element("drop").classList.toggle("filled", pictures.length > 0);
  element("strip").hidden = pictures.length < 2;
  setText("chosen", isOne ? first.name : pictures.length ? `${pictures.length} pictures` : "Choose pictures");
  if (isOne && first.address) setText("chosen-facts", first.address);
  else if (isOne) setText("chosen-facts", first.size ? `${describeSize(first.size)}, ${bytes}` : bytes);
  else setText("chosen-facts", pictures.length ? `${bytes} in all. Add more in the same way` : WELCOME);
  const thumb = pictures.find(({ size, url }) => size && url);
  element("thumb").hidden = !thumb;
  element("drop-icon").toggleAttribute("hidden", Boolean(thumb));
  if (thumb && element("thumb").src !== thumb.url) element("thumb").src = thumb.url;
  foreseeAll();
  describeQueue();
}

function foreseeAll() {
  const open = strip.pictures.filter(({ state }) => state !== "done");
  const { text, isRefused } = foresee(open.length ? open : [selected ?? {}], scaleAsked());
  setText("size-hint", text);
  element("size-hint").classList.toggle("warning", Boolean(isRefused));
}

// --- sending ---

// What the button sends: what is new or failed; once nothing is, the picture in the viewer again.
function pickOpen() {
  const fresh = strip.pictures.filter(({ state }) => state === "new");
  if (run.length) return fresh;
  const open = strip.pictures.filter(({ state }) => state === "new" || state === "failed");
  return open.length || !selected ? open : [selected];
}

function submit(event) {
  event.preventDefault();
  const open = pickOpen();
  if (!open.length && run.length) return;
  if (!open.length) return refuse("image", "Choose a picture first.", "Or try the sample picture.");
  if (!keyring.key) return refuse("key", "The API key is missing.", "The server printed one at its first start.");
  send(open);
}

function send(pictures) {
  hide("failure");
  setText("status", "");
  keyring.keep(); // a password manager may have filled it in without a change
  run.push(...pictures);
  queue.add(pictures, { key: keyring.key, scale: scaleAsked(), choices: readChoices() });
}

// The queue's own report: one of its pictures has changed.
function note(picture) {
  if (strip.pictures.includes(picture)) strip.update(picture, scaleAsked());
  if (picture.state === "new") {
    run = run.filter((each) => each !== picture);
    setText("status", "Cancelled.");
  } else if (picture.state === "done" && !picture.stop.signal.aborted) end(picture);
  else if (picture.state === "done") setText("status", "Cancelled.");
  else if (picture.state === "failed") fail(picture);
  if (!run.some(({ isBusy }) => isBusy)) run = [];
  describeQueue();
  if (!picture.isBusy) foreseeAll();
}

function end(picture) {
  const others = run.length > 1 ? ` ${describeRun(run)}.` : "";
  setText("status", `${picture.name}: done in ${describeSeconds(picture.result.seconds)}.${others}`);
  if (picture === selected) show(picture);
}

function fail(picture) {
  const isKey = picture.error.code === "invalid_auth_token";
  if (run.length === 1 || FOR_ALL.has(picture.error.code)) show(picture);
  else if (picture === selected) showExplanation(explain(picture.error));
  if (!isKey) return;
  element("key").setAttribute("aria-invalid", "true");
  element("key").focus();
}

function describeQueue() {
  const isBusy = run.length > 0;
  const open = pickOpen().length;
  // Not disabled: that would take the focus from the user who just pressed it.
  element("send").setAttribute("aria-disabled", isBusy && !open);
  const many = `Upscale ${open}${isBusy ? " more" : " pictures"}`;
  setText("send", isBusy && !open ? "Upscaling" : open > 1 || (isBusy && open) ? many : "Upscale");
  element("form").classList.toggle("busy", isBusy);
  if (!isBusy && document.activeElement === element("cancel")) element("send").focus();
  element("progress").hidden = !isBusy;
  if (isBusy) showProgress();
  setText("summary", describeRun(strip.pictures));
  element("zip").hidden = strip.pictures.filter(({ result }) => result).length < 2;
}

function showProgress() {
  const isOne = run.length === 1;
  const { bars, whole } = measure(run[0].progress);
  const share = isOne ? whole : run.reduce((sum, each) => sum + shareOf(each), 0) / run.length;
  const text = isOne ? describeProgress(run[0].progress) : describeRun(run);
  element("track").classList.toggle("many", !isOne);
  for (const { phase, done, isNow } of bars) {
    const bar = element("track").querySelector(`[data-phase=${phase}]`);
    bar.style.setProperty("--done", isOne ? done : share);
    bar.classList.toggle("now", isOne && isNow && !done);
  }
  element("track").setAttribute("aria-valuenow", Math.round(100 * share));
  element("track").setAttribute("aria-valuetext", text);
  setText("progress-text", text);
}

function refuse(field, title, advice) {
  showExplanation({ title, advice, details: "" });
  element(field).setAttribute("aria-invalid", "true");
  element(field).focus();
}

function showExplanation({ title, advice, details }) {
  setText("failure-title", title);
  setText("failure-advice", advice);
  setText("failure-details", details);
  element("failure").hidden = false;
}

// --- showing ---

async function show(picture) {
  selected = picture;
  strip.select(picture);
  if (picture?.error) showExplanation(explain(picture.error));
  else hide("failure");
  if (!picture?.result) hide("facts");
  writeSnippet();
  picker?.show();
  if (!picture) return showNothing("");
  try {
    await (picture.result ? showResult(picture) : showSource(picture));
  } catch { // the browser cannot read the file
    if (picture !== selected) return;
    if (picture.result) showFacts(picture, picture.size, null);
    showNothing(describeUnshown(picture));
  }
}

function describeUnshown({ address, result }) {
  if (result) return "This browser cannot show the result.";
  return address ? "The server fetches this picture once it is sent." : "This browser cannot show the file. The server may still read it.";
}

function showNothing(text) {
  viewer.clear();
  setText("caption", "");
  setText("no-preview", text);
  element("no-preview").hidden = !text;
}

async function showSource(picture) {
  const size = await viewer.showSource(picture.url);
  if (picture !== selected || picture.result) return;
  picture.size = size;
  hide("no-preview");
  setText("caption", "Your picture, as it is now.");
  strip.update(picture, scaleAsked());
  describeAll();
  picker?.show();
}

async function showResult(picture) {
  const { result } = picture;
  const shown = await viewer.showPair(picture.url, result.url);
  if (picture !== selected || result !== picture.result || !shown) return;
  hide("no-preview");
  setText("tag-after", `After ${result.scale}×`);
  const twice = matchMedia("(pointer: coarse)").matches ? "Double-tap" : "Double-click";
  setText("caption", `${shown.before ? "Drag the divider. " : ""}${twice} to zoom.`);
  showFacts(picture, shown.before, shown.after);
  writeSnippet();
  if (!run.length) {
    setText("status", `Done in ${describeSeconds(result.seconds)} by ${result.model}: ${describeSize(shown.after)}.`);
  }
}

// --- saving ---

async function downloadAll() {
  const done = strip.pictures.filter(({ result }) => result);
  const files = done.map(({ path, result: { name, blob } }) => ({ name: path.replace(/[^/]*$/, () => name), blob }));
  setText("summary", "Making the ZIP");
  try {
    const url = URL.createObjectURL(await makeZip(files));
    Object.assign(document.createElement("a"), { href: url, download: "upscaled.zip" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000); // a browser may ask where to save it first
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return setText("summary", "More than 4 GB: download them one by one.");
  }
  for (const id of ["summary", "status"]) setText(id, `${files.length} pictures are in upscaled.zip.`);
}

// --- the request as a program ---

const writeSnippet = () => program.write();

function readRequest() {
  const fileName = selected?.name ?? "photo.jpg";
  const scale = scaleAsked();
  const { result } = selected ?? {};
  const format = element("format").value.replace("lossless", "png");
  const mediaType = format ? `image/${format}` : result?.scale === scale ? result.blob.type : "image/jpeg";
  return {
    url: new URL("v1/upscale", location.href).href,
    key: element("with-key").checked && keyring.key ? keyring.key : NO_KEY,
    fileName,
    address: selected?.address ?? "",
    resultName: nameResult(fileName, scale, mediaType),
    scale,
    choices: readChoices(),
  };
}

// --- the model, and other choices ---

function readChoices() {
  const choices = { "X-Upscale-Model": picker?.name, "X-Upscale-Format": element("format").value };
  return Object.fromEntries(Object.entries(choices).filter(([, value]) => value));
}

// Loaded once it is opened: most visitors let the server choose.
let picker = null;

async function openModels() {
  if (!element("models").open) return;
  const { ModelPicker } = await import("./models.js");
  picker ??= new ModelPicker({
    list: element("model-list"), hint: element("model-hint"), chosen: element("model-chosen"),
    readKey: () => keyring.key,
    readPicture: () => ({ scale: scaleAsked(), px: selected?.size ? selected.size.width * selected.size.height : null }),
  }, writeSnippet);
  await picker.refresh();
}

// --- events ---

const ACTIONS = {
  select(picture) {
    show(picture);
    element("viewer").scrollIntoView({ block: "nearest" });
  },
  retry(picture) {
    if (keyring.key) send([picture]);
    else refuse("key", "The API key is missing.", "The server printed one at its first start.");
  },
  cancel: (picture) => (picture.isBusy ? queue.cancel([picture]) : remove(picture)),
  measured(picture) {
    strip.update(picture, scaleAsked());
    describeAll();
  },
};

const hasFiles = ({ dataTransfer }) => ["Files", "text/uri-list"].some((type) => dataTransfer?.types.includes(type));

function listenToDrops() {
  let depth = 0; // enter and leave come for every element on the way
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dropping", depth > 0);
  };
  document.addEventListener("dragenter", (event) => hasFiles(event) && mark(1));
  document.addEventListener("dragleave", (event) => hasFiles(event) && mark(-1));
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(-depth);
    choose(await readDropped(event.dataTransfer));
  });
}

listenToDrops();
document.addEventListener("paste", ({ target, clipboardData }) => {
  if (clipboardData.files.length || !target.matches("input, textarea")) choose(readPasted(clipboardData));
});
element("choose-address").addEventListener("click", () => choose(readAddresses(prompt("The address of a picture, which the server fetches:") ?? "")));
for (const id of ["image", "folder"]) element(id).addEventListener("change", ({ target }) => choose(readInput(target)));
element("choose-folder").addEventListener("click", () => element("folder").click());
element("sample").addEventListener("click", chooseSample);
element("scales").addEventListener("change", () => {
  for (const each of strip.pictures) strip.update(each, scaleAsked());
  foreseeAll();
  picker?.show();
  writeSnippet();
});
element("format").addEventListener("change", writeSnippet);
element("zip").addEventListener("click", downloadAll);
element("copy-image").addEventListener("click", async ({ target }) => {
  await copyImage(selected.result);
  target.textContent = "Copied";
  setTimeout(() => { target.textContent = "Copy image"; }, 2000);
});
document.addEventListener("keydown", ({ key }) => key === "Escape" && queue.cancel([...run]));
element("zoom").addEventListener("change", ({ target }) => viewer.zoom(target.value === "fit" ? "fit" : Number(target.value)));
element("key").addEventListener("input", writeSnippet);
element("key").addEventListener("change", openModels);
element("models").addEventListener("toggle", openModels);
for (const id of ["key", "image"]) {
  for (const name of ["input", "change"]) element(id).addEventListener(name, () => element(id).removeAttribute("aria-invalid"));
}
element("with-key").addEventListener("change", writeSnippet);
element("form").addEventListener("submit", submit);
element("cancel").addEventListener("click", () => queue.cancel([...run]));
element("list").addEventListener("act", ({ detail: { action, picture } }) => ACTIONS[action](picture));
addEventListener("beforeunload", (event) => run.length && event.preventDefault());
writeSnippet();
foreseeAll();
viewer.showPair("assets/sample.jpg", "assets/sample-x4.jpg");
