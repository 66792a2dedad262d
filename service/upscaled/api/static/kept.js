// Keeps the results of this tab over a reload: their descriptions in sessionStorage, which ends with the tab, and
// their files in IndexedDB, which holds more but does not end by itself.

import { makeId } from "./page.js";

const NAME = "upscaled-results";
const STORE = "files";
const MOST_BYTES = 200e6; // of a tab's files; the oldest go first

const nameLock = (tab) => `${NAME} ${tab}`;

const settle = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

async function openDatabase() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
  return settle(request);
}

/* Entries are { id, chosenAt, bytes, path, address, size, result } of a picture, the newest result last, with
   { source, blob } in the database for as long as that is. All belong to one API key, `owner`. */
export class KeptResults {
  #lifetimeMs;
  #database = openDatabase();
  #held = { tab: makeId(), owner: "", entries: [] };

  constructor(lifetimeS) {
    this.#lifetimeMs = 1000 * lifetimeS;
    this.#database.catch(() => {}); // each use reports it
    this.#held = JSON.parse(sessionStorage.getItem(NAME)) ?? this.#held;
    // Held until the tab ends, so that others see which tabs are there. Plain http:// pages have no locks.
    navigator.locks?.request(nameLock(this.#held.tab), () => new Promise(() => {}));
  }

  /* What is kept for the key, in the order in which it was chosen: entries with { source, blob }, without them where they
     have expired. What is kept for another key is deleted. */
  async recall(owner) {
    await this.#sweep();
    if (owner !== this.#held.owner) await this.clear();
    const find = (id) => this.#ask("readonly", (files) => files.get(id));
    const entries = [...this.#held.entries].sort((one, other) => one.chosenAt - other.chosenAt);
    return Promise.all(entries.map(async (entry) => ({ ...entry, ...await find(entry.id) })));
  }

  async put({ id, chosenAt, path, address, size, file, bytes, result: { blob, url, ...result } }, owner) {
    if (owner !== this.#held.owner) await this.clear();
    const others = this.#held.entries.filter((each) => each.id !== id);
    const entry = { id, chosenAt, bytes: bytes + blob.size, path, address, size, result };
    Object.assign(this.#held, { owner, entries: [...others, entry] });
    this.#save();
    const { tab } = this.#held;
    await this.#ask("readwrite", (files) => files.put({ id, tab, at: Date.now(), source: file, blob }));
    await this.#bound();
  }

  async remove(id) {
    this.#held.entries = this.#held.entries.filter((each) => each.id !== id);
    this.#save();
    await this.#ask("readwrite", (files) => files.delete(id));
  }

  async clear() {
    for (const { id } of this.#held.entries) await this.remove(id);
    sessionStorage.removeItem(NAME);
  }

  #save() {
    sessionStorage.setItem(NAME, JSON.stringify(this.#held));
  }

  async #ask(mode, question) {
    const transaction = (await this.#database).transaction(STORE, mode);
    return settle(question(transaction.objectStore(STORE)));
  }

  async #bound() {
    let bytes = 0;
    for (const entry of [...this.#held.entries].reverse()) {
      bytes += entry.bytes;
      if (bytes > MOST_BYTES) await this.#ask("readwrite", (files) => files.delete(entry.id));
    }
  }

  // Delete what has expired, and what closed tabs have left.
  async #sweep() {
    const { held, pending } = await navigator.locks?.query() ?? {};
    const open = held && new Set([...held, ...pending].map(({ name }) => name));
    for (const { id, tab, at } of await this.#ask("readonly", (files) => files.getAll())) {
      const isLeft = open && tab !== this.#held.tab && !open.has(nameLock(tab));
      if (isLeft || at + this.#lifetimeMs < Date.now()) await this.#ask("readwrite", (files) => files.delete(id));
    }
  }
}
