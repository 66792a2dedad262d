// What every module of the page does with its elements.

export const element = (id) => document.getElementById(id);

export const setText = (id, text) => { element(id).textContent = text; };

export function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// For two seconds the button says what it has done.
export function flash(button, text) {
  const usual = button.textContent;
  button.textContent = text;
  setTimeout(() => { button.textContent = usual; }, 2000);
}

// Not crypto.randomUUID, which plain http:// pages do not have.
export function makeId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
