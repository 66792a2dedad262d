// The same request as a command, and as a program in two languages, ready to run as it stands. Each
// waits for Retry-After: what is more than a key's rate is answered 429.

const inShell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
// Inside the double quotes of curl's -F.
const inForm = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
const quote = JSON.stringify; // a JSON string is a string in Python and in JavaScript
// More headers, in both languages.
const writeChoices = (choices) => Object.entries(choices).map(([name, value]) => `, ${quote(name)}: ${quote(value)}`).join("");

function curl({ url, key, fileName, resultName, scale, choices, address }) {
  return [
    `curl --fail --retry 20 ${inShell(url)}`,
    `-H ${inShell(`X-API-KEY: ${key}`)}`,
    "-H 'Accept: image/*'",
    ...Object.entries(choices).map(([name, value]) => `-H ${inShell(`${name}: ${value}`)}`),
    address ? `--form-string ${inShell(`image_url=${address}`)}` : `-F ${inShell(`image=@${inForm(fileName)}`)}`,
    `-F scale=${scale}`,
    `-o ${inShell(resultName)}`,
  ].join(" \\\n  ");
}

function python({ url, key, fileName, resultName, scale, choices, address }) {
  return `from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

session = requests.Session()
# After a 429 it waits for as long as Retry-After says.
retry = Retry(total=20, read=0, allowed_methods=["POST"])
session.mount(${quote(url)}, HTTPAdapter(max_retries=retry))
answer = session.post(
    ${quote(url)},
    headers={"X-API-KEY": ${quote(key)}, "Accept": "image/*"${writeChoices(choices)}},
    files={${address ? `"image_url": (None, ${quote(address)})` : `"image": Path(${quote(fileName)}).open("rb")`}},
    data={"scale": ${scale}},
    timeout=180,
)
answer.raise_for_status()
Path(${quote(resultName)}).write_bytes(answer.content)`;
}

function javascript({ url, key, fileName, resultName, scale, choices, address }) {
  return `import { ${address ? "" : "readFile, "}writeFile } from "node:fs/promises";

const form = new FormData();
${address ? `form.append("image_url", ${quote(address)})` : `form.append("image", new Blob([await readFile(${quote(fileName)})]), ${quote(fileName)})`};
form.append("scale", "${scale}");
const send = () => fetch(${quote(url)}, {
  method: "POST",
  headers: { "X-API-KEY": ${quote(key)}, Accept: "image/*"${writeChoices(choices)} },
  body: form,
});
let answer = await send();
while (answer.status === 429) {
  const seconds = Number(answer.headers.get("Retry-After"));
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  answer = await send();
}
if (!answer.ok) throw new Error((await answer.json()).error);
await writeFile(${quote(resultName)}, Buffer.from(await answer.arrayBuffer()));`;
}

export const WRITERS = { curl, python, javascript };
