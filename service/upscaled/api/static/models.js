// The picker of models: those that the server lists, each with an example where there is one.

import { describeSeconds } from "./text.js";

// Written by scripts/sample/examples.py: one part of the sample through each, as assets/model-NAME.jpg.
const EXAMPLES = new Set([
  "realesr-animevideov3", "realesrgan-x4plus", "realesrgan-x4plus-anime-6b", "upscaled-x2", "upscaled-x4",
]);
const AUTO = "auto";
const HINTS = {
  key: "Enter the API key to see the models of this server.",
  loading: "Asking the server.",
  401: "The server does not know this API key.",
  429: "The server is busy. Close this and open it again in a moment.",
  other: "The server did not list its models. It can still choose one by itself.",
};

export class ModelPicker {
  // `elements`: list, hint, chosen, readKey(), readPicture() with { scale, px or null }.
  constructor(elements, onChange) {
    this.elements = elements;
    this.onChange = onChange;
    this.listed = null; // the answer of GET /v1/models, and the key that it was for
    elements.list.addEventListener("change", () => this.note());
    this.show();
  }

  // The name to send; "" for the server's own choice.
  get name() {
    const name = this.elements.list.querySelector("input:checked").value;
    return name === AUTO ? "" : name;
  }

  // The key, the picture or the scale may be another now.
  async refresh() {
    const key = this.elements.readKey();
    if (key && key !== this.listed?.key) await this.load(key);
    else if (!key) this.hint(HINTS.key);
    this.show();
  }

  async load(key) {
    this.hint(HINTS.loading);
    try {
      const answer = await fetch("v1/models", { headers: { "X-API-KEY": key } });
      if (!answer.ok) return this.hint(HINTS[answer.status] ?? HINTS.other);
      this.listed = { key, ...await answer.json() };
      this.hint("");
    } catch { // no answer, or a key with characters that no header can hold
      this.hint(HINTS.other);
    }
  }

  hint(text) {
    this.elements.hint.textContent = text;
    this.elements.hint.hidden = !text;
  }

  show() {
    const { list, readPicture } = this.elements;
    const picture = readPicture();
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
    this.elements.chosen.textContent = this.name || "automatic";
    this.onChange();
  }
}

function makeCard(value, title, facts, example) {
  const card = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(input, { type: "radio", name: "model", value });
  const words = document.createElement("span");
  const name = document.createElement("strong");
  name.textContent = title;
  const line = document.createElement("span");
  line.textContent = facts;
  words.append(name, line);
  card.className = "model";
  card.append(input, ...makeExample(example), words);
  return card;
}

function makeExample(name) {
  if (!EXAMPLES.has(name)) return [];
  const picture = document.createElement("img");
  Object.assign(picture, { src: `assets/model-${name}.jpg`, alt: "", width: 104, height: 84 });
  return [picture];
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
