// The picker of models: those that the server lists, each with an example where there is one.

import { readRefusal } from "./errors.js";
import { element, make, setText } from "./page.js";
import { describeSeconds } from "./text.js";

// Written by scripts/sample/examples.py: one part of the sample through each, as assets/model-NAME.jpg.
const EXAMPLES = new Set([
  "realesr-animevideov3", "realesrgan-x4plus", "realesrgan-x4plus-anime-6b", "upscaled-x2", "upscaled-x4",
  "upscaled-x2-faithful", "upscaled-x4-faithful",
]);
const AUTO = "auto";
const HINTS = {
  key: "Enter the API key to see the models of this server.",
  loading: "Asking the server.",
  other: "The server did not list its models. It can still choose one by itself.",
};

export class ModelPicker {
  // `page`: readKey(), readPicture() with { scale, px or null }. `onChange`: another model was chosen.
  constructor(page, onChange) {
    this.page = page;
    this.list = element("model-list");
    this.onChange = onChange;
    this.listed = null; // the answer of GET /v1/models, and the key that it was for
    this.list.addEventListener("change", () => this.note());
    this.show();
  }

  // The name to send; "" for the server's own choice.
  get name() {
    const name = this.list.querySelector("input:checked").value;
    return name === AUTO ? "" : name;
  }

  // The key, the picture or the scale may be another now.
  async refresh() {
    const key = this.page.readKey();
    if (key !== this.listed?.key) {
      this.listed = null; // what one key may use is not shown under another
      await this.load(key);
    }
    this.show();
  }

  async load(key) {
    if (!key) return this.hint(HINTS.key);
    this.hint(HINTS.loading);
    try {
      const answer = await fetch("v1/models", { headers: { "X-API-KEY": key } });
      if (!answer.ok) return this.hint(await describeRefusal(answer));
      this.listed = { key, ...await answer.json() };
      this.hint("");
    } catch { // no answer, or a key with characters that no header can hold
      this.hint(HINTS.other);
    }
  }

  hint(text) {
    setText("model-hint", text);
    element("model-hint").hidden = !text;
  }

  show() {
    const { list } = this;
    const picture = this.page.readPicture();
    const models = this.listed?.models.filter(({ same_as: sameAs, scales }) => !sameAs && scales.includes(picture.scale)) ?? [];
    const chosen = list.querySelector("input:checked")?.value ?? AUTO;
    const hadFocus = list.contains(document.activeElement);
    list.replaceChildren(
      makeCard(AUTO, "Automatic", describeAuto(this.listed, picture), exampleOfAuto(this.listed, picture)),
      ...models.map((model) => makeCard(model.name, model.name, describeModel(model, picture), model.name)),
    );
    const inputs = [...list.querySelectorAll("input")];
    const checked = inputs.find(({ value }) => value === chosen) ?? inputs[0];
    checked.checked = true;
    if (hadFocus) checked.focus();
    this.note();
  }

  note() {
    setText("model-chosen", this.name || "automatic");
    this.onChange();
  }
}

async function describeRefusal(answer) {
  const { title, advice } = readRefusal({ status: answer.status, body: await answer.text() }).explanation;
  return `${title} ${advice}`;
}

function makeCard(value, title, facts, example) {
  return make(
    "label", { className: "model" }, make("input", { type: "radio", name: "model", value }), ...makeExample(example),
    make("span", {}, make("strong", {}, title), make("span", {}, facts)),
  );
}

function makeExample(name) {
  return EXAMPLES.has(name) ? [make("img", { src: `assets/model-${name}.jpg`, alt: "", width: 104, height: 84 })] : [];
}

// The rung of a ladder that takes the picture; of the harmed ones, if harm is what decides.
function findRungs(listed, { scale, px }) {
  const fitting = (listed?.auto[scale] ?? []).filter(({ most_input_px: most }) => most === null || (px !== null && px <= most));
  const last = fitting.findIndex(({ harmed_only: harmedOnly }) => !harmedOnly);
  return fitting.slice(0, last + 1);
}

function exampleOfAuto(listed, picture) {
  const [first] = listed?.auto[picture.scale] ?? [];
  return (findRungs(listed, picture)[0] ?? first)?.model ?? "";
}

function describeAuto(listed, picture) {
  const [first, ...others] = picture.px === null ? [] : findRungs(listed, picture);
  if (!first) return "The best model that this server can afford for the picture.";
  const seconds = (rung) => describeTime(listed.models.find(({ name }) => name === rung.model), picture);
  if (!others.length) return `For this picture: ${first.model}${seconds(first)}.`;
  const clean = others.at(-1);
  return `If this picture shows compression or noise: ${first.model}${seconds(first)}; else ${clean.model}${seconds(clean)}.`;
}

function describeModel(model, picture) {
  return `${model.native_scale}×, ${model.licence}${describeTime(model, picture)}`;
}

function describeTime(model, { scale, px }) {
  const perMegapixel = model?.seconds_per_megapixel[scale] ?? null;
  if (perMegapixel === null) return "";
  return px === null ? `, ${describeSeconds(perMegapixel)} a megapixel` : `, about ${describeSeconds((perMegapixel * px) / 1e6)}`;
}
