// The API key between visits: kept for this tab, or on this computer where the user asks for that.

const NAME = "upscaled-key";

// What the address brought, as #key=KEY: no server is sent it, and the address bar is rid of it at once.
function takeFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key") ?? "";
  if (given) history.replaceState(null, "", location.pathname + location.search);
  return given.trim();
}

function recall() {
  try {
    const [ofTab, kept] = [sessionStorage, localStorage].map((store) => store.getItem(NAME));
    return { key: ofTab ?? kept ?? "", isKept: ofTab === null && kept !== null };
  } catch { // a browser that stores nothing
    return { key: "", isKept: false };
  }
}

function keep(key, isKept) {
  try {
    for (const store of [localStorage, sessionStorage]) store.removeItem(NAME);
    if (key) (isKept ? localStorage : sessionStorage).setItem(NAME, key);
  } catch { /* as above */ }
}

function keepForTab(key) {
  try {
    if (key !== localStorage.getItem(NAME)) sessionStorage.setItem(NAME, key);
    else sessionStorage.removeItem(NAME);
  } catch { /* as above */ }
}

/* The field of the key and the box beside it. The field hears "input" when its key came with the address. */
export class Keyring {
  constructor(field, box) {
    Object.assign(this, { field, box, isNeeded: !field.closest("[hidden]") });
    if (!this.isNeeded) return; // the server has put one in that says so
    const { key, isKept } = recall();
    field.value = key;
    box.checked = isKept;
    for (const each of [field, box]) each.addEventListener("change", () => this.keep());
    addEventListener("hashchange", () => this.#take());
    this.#take();
  }

  get key() {
    return this.field.value.trim();
  }

  keep() {
    if (this.isNeeded) keep(this.key, this.box.checked);
  }

  #take() {
    const given = takeFromAddress();
    if (!given) return;
    this.field.value = given;
    keepForTab(given); // a link must not replace the key that the user keeps on this computer
    this.box.checked = recall().isKept;
    this.field.dispatchEvent(new Event("input"));
  }
}
