// The page at /: choosing, sending, showing. Served from here, loads nothing from elsewhere.

import { readAddresses, readDropped, readInput, readPasted } from "./gather.js";
import { Keyring } from "./keyring.js";
import { foresee, LIMITS } from "./limits.js";
import { element, setText } from "./page.js";
import { Program } from "./program.js";
import { describeProgress, describeRun, shareOf } from "./progress.js";
import { FOR_ALL, Picture, Queue } from "./queue.js";
import { Strip } from "./strip.js";
import { describeBytes, describeSeconds, describeSize, nameResult } from "./text.js";
import { Viewer } from "./viewer.js";

const NO_KEY = "YOUR_API_KEY";

const hide = (...ids) => ids.forEach((id) => { element(id).hidden = true; });
const scaleAsked = () => Number(element("form").elements.scale.value);
const WELCOME = element("chosen-facts").textContent;
const SAMPLE = element("caption").textContent;

const viewer = new Viewer((zoom) => {
  for (const each of document.querySelectorAll("[name=zoom]")) each.checked = each.value === String(zoom);
});
const strip = new Strip(element("list"));
const queue = new Queue(note);
const program = new Program(readRequest);
const keyring = new Keyring(element("key"), element("remember"));

let owner = keyring.key; // of every result that is here
let selected = null; // the picture in the viewer
let run = []; // the pictures sent since the queue was empty last

// --- choosing ---

const choose = (found) => add(found.map((each) => new Picture(each)));

function add(pictures) {
  if (!pictures.length) return;
  strip.add(pictures);
  for (const each of pictures) strip.update(each, scaleAsked());
  show(pictures[0]);
  describeAll();
}

// What a user meant to hold pictures, and holds none, is not passed over in silence.
function chooseFrom(found, title, advice) {
  if (found.length) choose(found);
  else showExplanation({ title, advice });
}

const chooseFromFolder = (found) => chooseFrom(found, "There are no pictures in it.", `Of a folder these are taken: ${LIMITS.suffixes.join(" ")}`);

function chooseAddress() {
  const text = prompt("The address of a picture, which the server fetches:");
  if (text) chooseFrom(readAddresses(text), "This is no address of a picture.", "It begins with https:// or http:// and has no spaces.");
}

async function chooseSample() {
  const picture = await fetch("assets/sample.jpg");
  choose([{ file: new File([await picture.blob()], "sample.jpg", { type: "image/jpeg" }) }]);
}

function remove(picture) {
  const next = strip.remove(picture);
  if (kept) withKept(() => kept.remove(picture.id));
  if (picture === selected) show(next);
  describeAll();
  if (element("strip").hidden) element("image").focus(); // the strip had the focus
}

function removeAll() {
  queue.cancel([...run]);
  for (const each of [...strip.pictures]) strip.remove(each);
  if (kept) withKept(() => kept.clear());
  show(null);
  describeAll();
  element("image").focus();
}

// What the form says about the pictures that are there.
function describeAll() {
  const { pictures } = strip;
  const [first] = pictures;
  const isOne = pictures.length === 1;
  const bytes = describeBytes(pictures.reduce((sum, each) => sum + each.bytes, 0));
  element("drop").classList.toggle("filled", pictures.length > 0);
  element("strip").hidden = pictures.length < 2;
  element("remove-all").hidden = !pictures.length;
  setText("chosen", isOne ? first.name : pictures.length ? `${pictures.length} pictures` : "Choose pictures");
  if (isOne) setText("chosen-facts", [first.address, first.size && describeSize(first.size), first.file && bytes].filter(Boolean).join(", "));
  else setText("chosen-facts", pictures.length ? `${bytes} in all. Add more in the same way` : WELCOME);
  const thumb = pictures.find(({ size, url }) => size && url);
  element("thumb").hidden = !thumb;
  element("drop-icon").toggleAttribute("hidden", Boolean(thumb));
  if (thumb && element("thumb").src !== thumb.url) element("thumb").src = thumb.url;
  foreseeAll();
  describeQueue();
}

function foreseeAll() {
  const open = strip.pictures.filter(({ state }) => state !== "done" && state !== "expired");
  const { text, isRefused } = foresee(open.length ? open : [selected?.canBeSent ? selected : {}], scaleAsked());
  setText("size-hint", text);
  element("size-hint").classList.toggle("warning", Boolean(isRefused));
}

// --- sending ---

// What the button sends: what is new or failed; once nothing is, the picture in the viewer again.
function pickOpen() {
  const fresh = strip.pictures.filter(({ state }) => state === "new");
  if (run.length) return fresh;
  const open = strip.pictures.filter(({ state }) => state === "new" || state === "failed");
  return open.length || !selected?.canBeSent ? open : [selected];
}

function submit(event) {
  event.preventDefault();
  followKey(); // a password manager may have filled it in without a change
  const open = pickOpen();
  if (!open.length && run.length) return;
  if (!open.length) return refuse("image", "Choose a picture first.", "Or try the sample picture.");
  if (!keyring.key) return refuse("key", "The API key is missing.", "The server printed one at its first start.");
  send(open);
}

function send(pictures) {
  hide("failure");
  setText("status", "");
  keyring.keep();
  loadRest();
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
  withKept(() => kept.put(picture, picture.options.key));
  const others = run.length > 1 ? ` ${describeRun(run)}.` : "";
  setText("status", `${picture.name}: done in ${describeSeconds(picture.result.seconds)}.${others}`);
  if (picture === selected) show(picture);
}

function fail(picture) {
  const isKey = picture.error.code === "invalid_auth_token";
  if (run.length === 1 || FOR_ALL.has(picture.error.code)) show(picture);
  else if (picture === selected) showExplanation(picture.error.explanation);
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
  const track = element("track");
  const text = run.length === 1 ? describeProgress(run[0].progress) : describeRun(run);
  track.value = run.reduce((sum, each) => sum + shareOf(each), 0) / run.length;
  track.setAttribute("aria-valuetext", text);
  setText("progress-text", text);
}

function refuse(field, title, advice) {
  showExplanation({ title, advice });
  element(field).setAttribute("aria-invalid", "true");
  element(field).focus();
}

function showExplanation({ title, advice, details = "" }) {
  setText("failure-title", title);
  setText("failure-advice", advice);
  setText("failure-details", details);
  element("failure").hidden = false;
}

// --- showing ---

async function show(picture) {
  selected = picture;
  strip.select(picture);
  if (picture?.error) showExplanation(picture.error.explanation);
  else hide("failure");
  if (!picture?.result) hide("facts");
  foreseeAll();
  writeSnippet();
  picker?.show();
  if (!picture) return showSample();
  try {
    await (picture.result ? showResult(picture) : showSource(picture));
  } catch { // the browser cannot read the file
    if (picture !== selected) return;
    if (picture.result) (await import("./facts.js")).showFacts(picture, picture.size, null);
    showNothing(describeUnshown(picture));
  }
}

function showSample() {
  hide("no-preview");
  setText("caption", SAMPLE);
  setText("tag-after", "After");
  viewer.showPair("assets/sample.jpg", "assets/sample-x4.jpg").catch(() => viewer.clear()); // out of reach
}

function describeUnshown({ address, result, state }) {
  if (state === "expired") return "This result has expired. Choose the picture again to upscale it anew.";
  if (result) return "This browser cannot show the result.";
  return address ? "The server fetches this picture once it is sent." : "This browser cannot show the file. The server may still read it.";
}

function showNothing(text) {
  viewer.clear();
  setText("caption", "");
  setText("no-preview", text);
  element("no-preview").hidden = false;
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
  const [shown, { showFacts }] = await Promise.all([viewer.showPair(picture.url, result.url), import("./facts.js")]);
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

// --- what outlives a reload ---

let kept = null;

// A browser that stores nothing, or no more, is enough.
async function withKept(step) {
  try {
    const { KeptResults } = await import("./kept.js");
    kept ??= new KeptResults(LIMITS.keptS);
    return await step();
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    return null;
  }
}

async function recall() {
  const databases = await Promise.resolve().then(() => indexedDB.databases()).catch(() => []);
  if (!databases.length) return; // nothing has ever been kept
  let asked = null;
  const entries = await withKept(() => kept.recall(asked = keyring.key)) ?? [];
  if (asked !== keyring.key) return; // they are of the key that was there before
  if (entries.length) loadRest();
  add(entries.map(Picture.recall));
}

// Loaded while the first picture is on its way: what comes back can be saved even if the server has gone.
const loadRest = () => Promise.allSettled(["facts", "saving", "kept"].map((name) => import(`./${name}.js`)));

// No result of one key is shown, or kept, under another.
function followKey() {
  if (keyring.key === owner) return;
  owner = keyring.key;
  queue.cancel([...run]);
  if (kept) withKept(() => kept.clear());
  const others = strip.pictures.filter(({ result, isRecalled }) => result || isRecalled);
  for (const picture of others) {
    if (picture.isRecalled) strip.remove(picture);
    else {
      picture.forgetResult();
      strip.update(picture, scaleAsked());
    }
  }
  if (!others.length) return;
  show(strip.pictures.includes(selected) ? selected : strip.pictures[0] ?? null);
  describeAll();
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
    followKey();
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
    chooseFromFolder(await readDropped(event.dataTransfer));
  });
}

listenToDrops();
document.addEventListener("paste", ({ target, clipboardData }) => {
  if (clipboardData.files.length || !target.matches("input, textarea")) choose(readPasted(clipboardData));
});
element("choose-address").addEventListener("click", chooseAddress);
element("image").addEventListener("change", ({ target }) => choose(readInput(target)));
element("folder").addEventListener("change", ({ target }) => chooseFromFolder(readInput(target)));
element("choose-folder").addEventListener("click", () => element("folder").click());
element("sample").addEventListener("click", chooseSample);
element("remove-all").addEventListener("click", removeAll);
element("scales").addEventListener("change", () => {
  for (const each of strip.pictures) strip.update(each, scaleAsked());
  foreseeAll();
  picker?.show();
  writeSnippet();
});
element("format").addEventListener("change", writeSnippet);
element("zip").addEventListener("click", async () => (await import("./saving.js")).downloadAll(strip.pictures));
element("copy-image").addEventListener("click", async () => (await import("./saving.js")).copyImage(selected.result));
document.addEventListener("keydown", ({ key }) => key === "Escape" && queue.cancel([...run]));
element("zoom").addEventListener("change", ({ target }) => viewer.zoom(target.value === "fit" ? "fit" : Number(target.value)));
element("key").addEventListener("input", writeSnippet);
element("key").addEventListener("change", openModels);
element("key").addEventListener("change", followKey);
addEventListener("hashchange", followKey); // a link has brought another
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
showSample();
recall();
