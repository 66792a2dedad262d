// Pictures out of what was chosen, dropped or pasted: files, folders with all that is in them, addresses.

import { LIMITS } from "./limits.js";

const isPicture = (file) => LIMITS.suffixes.some((suffix) => file.name.toLowerCase().endsWith(suffix));
const byPath = (one, other) => one.path.localeCompare(other.path, undefined, { numeric: true });

// As [{ file, path }]. Of a folder only what looks like a picture; a single file is the user's own choice.
export function readInput(input) {
  const found = [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
  input.value = ""; // so that the same may be chosen again
  return input.webkitdirectory ? found.filter(({ file }) => isPicture(file)).sort(byPath) : found;
}

// Addresses out of a text that holds nothing else, one a line.
export function readAddresses(text) {
  const lines = text.split(/\s*\n\s*/).map((line) => line.trim()).filter((line) => line && !line.startsWith("#"));
  return lines.every((line) => /^https?:\/\/\S+$/i.test(line) && URL.canParse(line)) ? lines.map((address) => ({ address })) : [];
}

export function readPasted(data) {
  const found = [...data.files].map((file) => ({ file }));
  return found.length ? found : readAddresses(data.getData("text/plain"));
}

// The entries must be taken in the event's own turn, before anything is waited for.
export async function readDropped(data) {
  const items = [...data.items].filter(({ kind }) => kind === "file");
  if (!items.length) return readAddresses(data.getData("text/uri-list"));
  const entries = items.map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
  const found = await Promise.all(entries.map(({ entry, file }) => (entry?.isDirectory ? readFolder(entry) : [{ file }])));
  return found.flat();
}

async function readFolder(folder) {
  const found = [];
  const reader = folder.createReader();
  const readSome = () => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  for (let entries = await readSome(); entries.length; entries = await readSome()) { // at most 100 a time
    for (const entry of entries) {
      if (entry.isDirectory) found.push(...await readFolder(entry));
      else if (isPicture(entry)) found.push({ file: await readEntry(entry), path: entry.fullPath.slice(1) });
    }
  }
  return found.sort(byPath);
}

const readEntry = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));
