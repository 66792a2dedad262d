// The strip: a row for each picture, with its state, its progress, and what can be done with it.

import { refusalOf } from "./limits.js";
import { make } from "./page.js";
import { describeProgress, shareOf } from "./progress.js";
import { describeBytes, describeSeconds, describeSize } from "./text.js";

export class Strip {
  #list;
  #rows = new Map();
  pictures = [];

  // What is pressed in a row comes out of `list` as an event `act`, its detail { action, picture }.
  constructor(list) {
    this.#list = list;
  }

  add(pictures) {
    for (const picture of pictures) {
      const row = makeRow(picture);
      for (const [action, button] of Object.entries(row.buttons)) {
        button.addEventListener("click", () => this.#act(action, picture));
      }
      row.thumb.addEventListener("load", () => {
        if (!this.#rows.has(picture)) return; // removed meanwhile
        picture.size = { width: row.thumb.naturalWidth, height: row.thumb.naturalHeight };
        this.#act("measured", picture);
      });
      row.thumb.addEventListener("error", () => { row.thumb.hidden = true; });
      this.#rows.set(picture, row);
      this.#list.append(row.line);
    }
    this.pictures.push(...pictures);
  }

  // The focus goes to a neighbour. Gives what to show next, if anything is left.
  remove(picture) {
    const at = this.pictures.indexOf(picture);
    const [row, next] = [this.#rows.get(picture), this.pictures[at + 1] ?? this.pictures[at - 1]];
    const hadFocus = row.line.contains(document.activeElement);
    this.pictures.splice(at, 1);
    this.#rows.delete(picture);
    row.line.remove();
    picture.forget();
    if (hadFocus && next) this.#rows.get(next).buttons.select.focus();
    return next ?? null;
  }

  select(picture) {
    for (const [each, { buttons }] of this.#rows) buttons.select.setAttribute("aria-pressed", each === picture);
  }

  update(picture, scale) {
    const { line, buttons, state, bar, save } = this.#rows.get(picture);
    const { result, isBusy } = picture;
    line.dataset.state = picture.state;
    state.textContent = describeState(picture, scale);
    bar.hidden = !isBusy;
    bar.value = shareOf(picture);
    save.hidden = isBusy || !result;
    if (result) Object.assign(save, { href: result.url, download: result.name });
    // Never hidden while it has the focus: a retry turns into the picture's cancelling.
    if (document.activeElement === buttons.retry && picture.state !== "failed") buttons.cancel.focus();
    buttons.retry.hidden = picture.state !== "failed";
    const word = isBusy ? "Cancel" : "Remove";
    buttons.cancel.setAttribute("aria-label", `${word} ${picture.name}`);
    buttons.cancel.title = word;
  }

  #act(action, picture) {
    this.#list.dispatchEvent(new CustomEvent("act", { detail: { action, picture } }));
  }
}

function describeState(picture, scale) {
  const { state, progress, result, error, size, file, address } = picture;
  if (state === "waiting") return "In the queue";
  if (state === "running") return describeProgress(progress);
  if (state === "done") return `${result.scale}× in ${describeSeconds(result.seconds)}, ${describeBytes(result.blob.size)}`;
  if (state === "failed") return error.explanation.title;
  if (state === "expired") return "Expired: no longer kept here";
  return [size && describeSize(size), file ? describeBytes(file.size) : address, refusalOf(picture, scale)].filter(Boolean).join(", ");
}

function makeAction(tag, text, label, properties) {
  const action = make(tag, { className: "act", title: label.split(" ")[0], ...properties }, text);
  action.setAttribute("aria-label", label);
  return action;
}

function makeRow({ name, path, url }) {
  const thumb = make("img", { src: url, alt: "", loading: "lazy", className: "thumb", hidden: !url });
  const state = make("span", {});
  const words = make("span", {}, make("strong", { textContent: name, title: path }), state);
  const bar = make("progress", { max: 1, ariaLabel: `Progress of ${name}` });
  const buttons = {
    select: make("button", { type: "button", className: "pick" }, thumb, words),
    retry: makeAction("button", "↻", `Retry ${name}`, { type: "button" }),
    cancel: makeAction("button", "×", `Remove ${name}`, { type: "button" }),
  };
  const save = makeAction("a", "↓", `Download ${name}`, {});
  const line = make("li", {}, buttons.select, save, buttons.retry, buttons.cancel, bar);
  return { line, buttons, thumb, state, bar, save };
}
