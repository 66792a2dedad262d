// The playground: one form, one request, two pictures. Served from here, loads nothing else.

const element = (id) => document.getElementById(id);
const shown = new Set();

function show(text, isFailure = false) {
  element("status").textContent = text;
  element("status").classList.toggle("failed", isFailure);
}

function urlOf(blob) {
  const url = URL.createObjectURL(blob);
  shown.add(url);
  return url;
}

function forgetPictures() {
  shown.forEach((url) => URL.revokeObjectURL(url));
  shown.clear();
  element("pair").hidden = element("download").hidden = true;
}

async function showPicture(id, blob, title) {
  const image = element(id);
  image.src = urlOf(blob);
  await image.decode();
  element(`${id}-text`).textContent =
    `${title}: ${image.naturalWidth} x ${image.naturalHeight}, ${Math.ceil(blob.size / 1024)} KB`;
}

function describeTimes(header) {
  const stages = [...(header ?? "").matchAll(/(\w+);dur=([\d.]+)/g)];
  return stages.map(([, name, ms]) => `${name} ${(ms / 1000).toFixed(2)} s`).join(", ");
}

async function readFailure(response) {
  const id = response.headers.get("X-Request-Id");
  const body = await response.json().catch(() => ({}));
  return new Error(`${body.error ?? response.statusText} (${body.error_code ?? response.status}, request ${id})`);
}

async function upscale(file, key, scale) {
  const form = new FormData();
  form.append("scale", scale);
  form.append("image", file);
  const headers = { "X-API-KEY": key, Accept: "image/*" };
  const response = await fetch("v1/upscale", { method: "POST", headers, body: form });
  if (!response.ok) throw await readFailure(response);
  return { blob: await response.blob(), times: response.headers.get("Server-Timing") };
}

function offerDownload(file, blob, scale) {
  const link = element("download");
  const extension = blob.type === "image/png" ? "png" : "jpg";
  link.href = urlOf(blob);
  link.download = `${file.name.replace(/\.[^.]*$/, "")}-x${scale}.${extension}`;
  link.hidden = false;
}

async function submit(event) {
  event.preventDefault();
  const file = element("image").files[0];
  const scale = element("form").elements.scale.value;
  element("send").disabled = true;
  forgetPictures();
  show("Working ...");
  try {
    const { blob, times } = await upscale(file, element("key").value.trim(), scale);
    element("pair").hidden = false;
    await showPicture("before", file, "Before");
    await showPicture("after", blob, "After");
    offerDownload(file, blob, scale);
    show(describeTimes(times));
  } catch (error) {
    show(error.message, true);
  } finally {
    element("send").disabled = false;
  }
}

function choose(files) {
  if (files.length === 0) return;
  element("image").files = files;
  element("chosen").textContent = files[0].name;
}

const drop = element("drop");
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") choose(event.dataTransfer.files);
  });
}
element("image").addEventListener("change", (event) => choose(event.target.files));
element("form").addEventListener("submit", submit);
