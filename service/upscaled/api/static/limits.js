// What this server takes, as it wrote it into the page, and which pictures are beyond it.

import { describeSize } from "./text.js";

const form = document.getElementById("form");
/* { sides: the longest side of an input in pixels, by scale, minSide, resultSide, file: in words, fileBytes, suffixes,
   keptS: how long results are kept }. */
export const LIMITS = JSON.parse(form.dataset.limits);

// Why a picture is refused at a scale; "" where it is not, or that is not known.
export function refusalOf({ size, bytes = 0 }, scale) {
  if (bytes > LIMITS.fileBytes) return "too large a file";
  if (!size) return "";
  if (Math.min(size.width, size.height) < LIMITS.minSide) return "too small";
  return Math.max(size.width, size.height) > LIMITS.sides[scale] ? `too large for ${scale}×` : "";
}

function adviseOn(why, scale) {
  if (why === "too large a file") return adviseOnFile();
  return why === "too small" ? adviseOnSmallSide() : adviseOnSide(scale);
}

// What to do about a picture that is too large at a scale; 0 where that is not known.
export function adviseOnSide(scale) {
  const { 2: twofold, 4: fourfold } = LIMITS.sides;
  if (scale === 4 && twofold > fourfold) {
    return `At 4× a side may have at most ${fourfold} px, at 2× ${twofold} px. Choose 2×, or a smaller picture.`;
  }
  return `${scale ? `At ${scale}× a` : "A"} side may have at most ${LIMITS.sides[scale] ?? twofold} px. Choose a smaller picture.`;
}

export const adviseOnFile = () => `The server takes files of at most ${LIMITS.file}. Save it with a lower quality, or as JPEG.`;
export const adviseOnSmallSide = () => `Each side must be at least ${LIMITS.minSide} pixels long.`;

// What a size becomes.
export function grow({ width, height }, scale) {
  const factor = scale * Math.min(1, LIMITS.resultSide / (Math.max(width, height) * scale));
  return { width: Math.round(width * factor), height: Math.round(height * factor) };
}

/* What will become of the pictures at a scale: { text, isRefused }. */
export function foresee(pictures, scale) {
  const refused = pictures.filter((each) => refusalOf(each, scale));
  const [{ size, name }] = pictures;
  if (refused.length) {
    const why = refusalOf(refused[0], scale);
    const one = size ? describeSize(size) : name;
    const which = pictures.length === 1 ? `${one} is ${why}` : `${refused.length} of ${pictures.length} pictures: ${why}`;
    return { text: `${which}. ${adviseOn(why, scale)}`, isRefused: true };
  }
  if (pictures.length === 1 && size) return { text: `${describeSize(size)} becomes ${describeSize(grow(size, scale))}.` };
  return { text: `Sides of up to ${LIMITS.sides[scale]} px grow ${scale === 2 ? "twofold" : "fourfold"}.` };
}
