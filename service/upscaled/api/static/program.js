// The request as a program, in the language that is chosen, and copying it.

import { element, flash, setText } from "./page.js";
import { WRITERS } from "./snippets.js";

export class Program {
  #read;

  // `read`: gives what a writer of snippets.js takes.
  constructor(read) {
    this.#read = read;
    element("copy").addEventListener("click", () => copy());
    element("languages").addEventListener("change", () => this.write());
  }

  write() {
    const { value } = document.querySelector("[name=language]:checked");
    setText("snippet", WRITERS[value](this.#read()));
  }
}

async function copy() {
  try {
    await navigator.clipboard.writeText(element("snippet").textContent);
  } catch { // a plain http:// page has no clipboard, but may copy what is selected
    getSelection().selectAllChildren(element("snippet"));
    if (!document.execCommand("copy")) return setText("status", "Press Ctrl+C to copy.");
  }
  flash(element("copy"), "Copied");
  setText("status", "Copied.");
}
