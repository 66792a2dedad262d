// The request as a program: which language is shown, and copying it.

import { WRITERS } from "./snippets.js";

const element = (id) => document.getElementById(id);

export class Program {
  #language = "curl";
  #read;

  // `read`: gives what a writer of snippets.js takes.
  constructor(read) {
    this.#read = read;
    element("copy").addEventListener("click", () => this.#copy());
    element("tabs").addEventListener("keydown", (event) => this.#moveTab(event));
    for (const tab of element("tabs").children) tab.addEventListener("click", () => this.#select(tab));
  }

  write() {
    element("snippet").textContent = WRITERS[this.#language](this.#read());
  }

  #select(tab) {
    this.#language = tab.id.replace("tab-", "");
    for (const each of element("tabs").children) {
      each.setAttribute("aria-selected", each === tab);
      each.tabIndex = each === tab ? 0 : -1;
    }
    element("snippet").setAttribute("aria-labelledby", tab.id);
    this.write();
  }

  #moveTab(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const tabs = [...element("tabs").children];
    const next = tabs.at((tabs.indexOf(event.target) + step) % tabs.length);
    this.#select(next);
    next.focus();
  }

  async #copy() {
    const [button, status] = [element("copy"), element("status")];
    try {
      await navigator.clipboard.writeText(element("snippet").textContent);
    } catch { // a plain http:// page has no clipboard, but may copy what is selected
      getSelection().selectAllChildren(element("snippet"));
      if (!document.execCommand("copy")) {
        status.textContent = "Press Ctrl+C to copy.";
        return;
      }
    }
    button.textContent = "Copied";
    status.textContent = "Copied.";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }
}
