// The page of administration: figures, keys, webhooks and changes, by the API under /admin/v1.

import { drawBars } from "./chart.js";
import { button, fill } from "./table.js";

const API = "/admin/v1";
const STORED = "upscaled-admin-key"; // for this tab, until it is closed
const FIGURES = ["requests", "images", "refused", "failed", "left", "credits", "input_mp", "output_mp", "device_s"];
const HEADS = ["requests", "images", "refused", "failed", "left", "credits", "MP in", "MP out", "device s"];
const REFUSED = [401, 403];
const DAY_MS = 86_400_000;

const at = (id) => document.getElementById(id);
const state = { usage: [], since: "" };

async function call(method, path, body) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(STORED)}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(API + path, { method, headers, body: body && JSON.stringify(body) }).catch(() => {
    throw new Error("The server did not answer. Reload the page to try again.");
  });
  if (answer.status === 204) return null;
  if (REFUSED.includes(answer.status)) sessionStorage.removeItem(STORED); // whatever else fails, the key may be right
  const content = await answer.json().catch(() => ({})); // a proxy's page, say
  if (!answer.ok) throw new Error(content.error ?? `The server answered with status ${answer.status}.`);
  return content;
}

// Run a step, and say on the page why it failed.
async function attempt(step) {
  at("message").textContent = "";
  try {
    await step();
    return true;
  } catch (error) {
    at("message").textContent = error.message;
    return false;
  }
}

function dayOf(time) {
  return new Date(time).toISOString().slice(0, 10);
}

async function loadUsage() {
  state.since = dayOf(Date.now() - (Number(at("period").value) - 1) * DAY_MS);
  state.usage = await call("GET", `/usage?since=${state.since}&by=day&by=key&by=model`);
  const chosen = at("of-key").value;
  const keys = new Map(state.usage.map((row) => [String(row.key_id), row.key ?? "no valid key"]));
  const options = [...keys].map(([id, name]) => new Option(name, id));
  at("of-key").replaceChildren(new Option("all", ""), ...options);
  at("of-key").value = keys.has(chosen) ? chosen : "";
  showUsage();
}

function showUsage() {
  const figure = at("figure").value, key = at("of-key").value;
  const rows = state.usage.filter((row) => !key || String(row.key_id) === key);
  const days = [];
  for (let time = Date.parse(state.since); dayOf(time) <= dayOf(Date.now()); time += DAY_MS) {
    const day = dayOf(time);
    const values = rows.filter((row) => row.day === day).map((row) => row[figure]);
    days.push([day, values.reduce((sum, value) => sum + value, 0)]);
  }
  const width = document.querySelector("main").clientWidth; // the plot may still be hidden
  at("plot").replaceChildren(drawBars(days, at("figure").selectedOptions[0].text, width));
  fill(at("by-key"), ["key", ...HEADS], totals(rows, "key_id", "key"));
  fill(at("by-model"), ["model", ...HEADS], totals(rows, "model", "model"));
}

// Rows of a name and its figures, one for each value of `group`.
function totals(rows, group, name) {
  const sums = new Map();
  for (const row of rows) {
    const sum = sums.get(row[group]) ?? [row[name], ...FIGURES.map(() => 0)];
    FIGURES.forEach((figure, number) => (sum[number + 1] += row[figure]));
    sums.set(row[group], sum);
  }
  return [...sums.values()].sort((one, other) => other[2] - one[2]);
}

async function loadKeys() {
  const keys = await call("GET", "/keys");
  const rows = keys.map((key) => [
    key.name, key.state, key.credits, key.shown_secret, key.created_at.slice(0, 10),
    key.expires_at?.slice(0, 10), key.rate, key.burst, actions(key),
  ]);
  fill(at("keys"), ["name", "state", "credits", "key", "made", "ends", "rate", "burst", "change"], rows);
}

function actions(key) {
  const made = document.createElement("span");
  if (key.state === "revoked") return made;
  const path = `/keys/${encodeURIComponent(key.name)}`;
  const change = (text, question, field, step) =>
    button(text, async () => {
      const value = await ask(question, field);
      if (value !== null && (await attempt(() => step(value)))) await attempt(load);
    });
  made.append(
    change("Add credits", `Add credits to ${key.name}`, "number", (value) =>
      call("POST", `${path}/credits/add`, { credits: Number(value) })),
    change("Rename", `Rename ${key.name}`, "text", (value) => call("PATCH", path, { name: value })),
    change("Webhook", `Send the webhooks of ${key.name} to this address; empty: to none`, "url", async (url) =>
      showSecret(await call("PUT", `${path}/webhook`, { url: url || null }), "Webhooks are verified with the secret of")),
    change("Rotate", `Give ${key.name} a new secret? The one it has stays valid for a day.`, "", async () =>
      showSecret(await call("POST", `${path}/rotate`, {}))),
    change("Revoke", `End ${key.name} at once?`, "", () => call("DELETE", path)),
  );
  for (const each of made.children) each.setAttribute("aria-label", `${each.textContent}: ${key.name}`);
  return made;
}

// Ask for a value, or for a yes where `field` is ""; null: cancelled.
function ask(question, field) {
  const dialog = at("ask"), input = at("ask-value");
  at("ask-heading").textContent = question;
  at("ask-label").hidden = !field;
  at("ask-name").textContent = { number: "How many", url: "Address" }[field] ?? "New name";
  input.type = field || "text";
  input.required = Boolean(field) && field !== "url";
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? input.value : null), { once: true });
  });
}

function showSecret(made, text = "This secret cannot be shown again, of") {
  at("made-of").textContent = `${text} ${made.name}:`;
  at("made-secret").textContent = made.secret;
  at("made").hidden = false;
}

async function loadWebhooks() {
  const sent = await call("GET", "/webhooks?limit=50");
  const rows = sent.map((each) => [
    each.job_id, each.key, each.state, each.attempts, each.next_at && timeOf(each.next_at),
    each.url, each.outcome, retryOf(each.job_id),
  ]);
  fill(at("webhooks"), ["job", "key", "state", "attempts", "next (UTC)", "to", "outcome", "change"], rows);
  at("webhooks-section").hidden = !rows.length;
}

function retryOf(job) {
  const made = button("Send again", async () => {
    if (await attempt(() => call("POST", `/webhooks/${job}/retry`))) await attempt(load);
  });
  made.setAttribute("aria-label", `Send again: ${job}`);
  return made;
}

function timeOf(text) {
  return text.slice(0, 19).replace("T", " ");
}

async function loadAudit() {
  const changes = (await call("GET", "/audit")).reverse().slice(0, 100);
  const rows = changes.map((each) => [
    timeOf(each.at), each.actor, each.action, each.subject,
    Object.entries(each.details).map(([name, value]) => `${name} ${value}`).join(", "),
  ]);
  fill(at("audit"), ["when (UTC)", "who", "what", "of", "details"], rows);
}

async function load() {
  await loadKeys(); // by itself: a wrong key counts as one guess, not as three
  await Promise.all([loadUsage(), loadWebhooks(), loadAudit()]);
}

async function open() {
  const isOpen = await attempt(load);
  at("content").hidden = at("leave").hidden = !isOpen;
  at("enter").hidden = isOpen;
}

at("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(STORED, at("secret").value.trim());
  at("secret").value = "";
  open();
});
at("leave").addEventListener("click", () => {
  sessionStorage.removeItem(STORED);
  location.reload();
});
at("create").addEventListener("submit", async (event) => {
  event.preventDefault();
  const fields = new FormData(at("create"));
  const body = { name: fields.get("name"), credits: Number(fields.get("credits")) };
  if (await attempt(async () => showSecret(await call("POST", "/keys", body)))) {
    at("create").reset();
    await attempt(load);
  }
});
at("copy").addEventListener("click", () => attempt(() => navigator.clipboard.writeText(at("made-secret").textContent)));
at("period").addEventListener("change", () => attempt(loadUsage));
at("figure").addEventListener("change", showUsage);
at("of-key").addEventListener("change", showUsage);
if (sessionStorage.getItem(STORED)) open();
