// What becomes of results: all of them as one archive, one of them on the clipboard.

import { element, flash, setText } from "./page.js";
import { makeZip } from "./zip.js";

// In the folders that their pictures were chosen with.
export async function downloadAll(pictures) {
  const done = pictures.filter(({ result }) => result);
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

// Clipboards take PNG alone.
async function toPng(blob) {
  if (blob.type === "image/png") return blob;
  const bitmap = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas.convertToBlob();
}

export async function copyImage({ blob }) {
  await navigator.clipboard.write([new ClipboardItem({ "image/png": toPng(blob) })]);
  flash(element("copy-image"), "Copied");
}
