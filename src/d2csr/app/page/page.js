// The page of d2csr-app: one image at a time, sent to /api/jobs, whose state is asked for until it is done.

const POLL = 400; // milliseconds between two questions about an image that is not done
const HEARTBEAT = 30000; // and about one that is done, so that the server keeps its files
const UNKNOWN = -1;

const byId = (id) => document.getElementById(id);
const [form, drop, fileInput, checkpoint, leaves] = ["form", "drop", "file", "checkpoint", "leaves"].map(byId);
const [start, cancel, message, progress] = ["start", "cancel", "message", "progress"].map(byId);
const [left, right, zoom, split, stage, gallery] = ["left", "right", "zoom", "split", "stage", "gallery"].map(byId);

let settings = null;
let file = null;
let job = null; // the state of the image on the server
let upload = null; // an AbortController while a file is sent
let timer = 0;

async function answer(path, options = {}) {
  const response = await fetch(path, options);
  const content = response.status === 204 ? {} : await response.json().catch(() => ({}));
  if (response.ok) return content;
  const error = new Error(content.error || `The server answered with status ${response.status}.`);
  error.status = response.status;
  throw error;
}

// The fraction is that of the progress bar; UNKNOWN shows that something happens, null no bar.
function say(text, { error = false, fraction = null } = {}) {
  byId("status").hidden = false;
  if (message.textContent !== text) message.textContent = text;
  message.classList.toggle("error", error);
  progress.hidden = error || fraction === null;
  if (fraction === UNKNOWN) progress.removeAttribute("value");
  else if (fraction !== null) progress.value = fraction;
}

function setBusy(busy) {
  start.disabled = busy || !file || !settings;
  fileInput.disabled = busy;
  cancel.hidden = !busy;
  form.setAttribute("aria-busy", busy);
}

// Choosing an image

function choose(files) {
  if (!files.length || !cancel.hidden) return;
  file = files[0];
  const more = files.length > 1 ? ` (the first of ${files.length}; one image at a time)` : "";
  const size = file.size < 1e6 ? `${Math.ceil(file.size / 1e3)} kB` : `${(file.size / 1e6).toFixed(1)} MB`;
  byId("chosen").textContent = `${file.name}, ${size}${more}`;
  showPreview();
  byId("status").hidden = true;
  if (settings && file.size > settings.max_bytes) {
    say(`${file.name}: larger than the limit of ${settings.max_bytes / 1e6} MB.`, { error: true });
    file = null;
  }
  setBusy(false);
}

function showPreview() {
  const preview = byId("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.hidden = true; // browsers cannot show TIFF
  preview.onload = () => { preview.hidden = false; };
  preview.src = URL.createObjectURL(file);
}

fileInput.addEventListener("change", () => choose(fileInput.files));
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const name of ["dragleave", "drop"]) document.addEventListener(name, () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => { event.preventDefault(); choose(event.dataTransfer.files); });
document.addEventListener("paste", (event) => choose(event.clipboardData.files));

// Sending it, and waiting for the result

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!file || !cancel.hidden) return;
  await leave();
  byId("result").hidden = true;
  setBusy(true);
  say("Sending …", { fraction: UNKNOWN });
  const query = new URLSearchParams({ name: file.name, checkpoint: checkpoint.value, leaves: leaves.checked ? 1 : 0 });
  const headers = { "Content-Type": "application/octet-stream" };
  upload = new AbortController();
  try {
    const created = await answer(`/api/jobs?${query}`, { method: "POST", body: file, headers, signal: upload.signal });
    job = created;
    show();
  } catch (error) {
    fail(error.name === "AbortError" ? "Cancelled." : error.message, error.name !== "AbortError");
  } finally {
    upload = null;
  }
});

cancel.addEventListener("click", async () => {
  if (upload) return upload.abort();
  await leave();
  fail("Cancelled.", false);
  start.focus();
});

function fail(text, error = true) {
  clearTimeout(timer);
  job = null;
  say(text, { error });
  setBusy(false);
}

async function leave() {
  clearTimeout(timer);
  if (job) await answer(`/api/jobs/${job.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  job = null;
}

async function ask() {
  const asked = job;
  try {
    const state = await answer(`/api/jobs/${asked.id}`);
    if (job !== asked) return; // cancelled meanwhile
    job = state;
    show(asked.state !== state.state);
  } catch (error) {
    if (job !== asked) return;
    if (error.status === 404 && asked.state === "done") return; // what is shown stays
    if (error.status) return fail(error.message);
    say("The server does not answer. Trying again …", { fraction: UNKNOWN });
    timer = setTimeout(ask, 5 * POLL);
  }
}

function show(changed = true) {
  if (job.state === "failed") {
    const text = job.error;
    leave();
    return fail(text);
  }
  timer = setTimeout(ask, job.state === "done" ? HEARTBEAT : POLL);
  if (job.state === "waiting") {
    say(`Waiting: ${job.ahead} ${job.ahead === 1 ? "image is" : "images are"} before yours.`, { fraction: UNKNOWN });
  } else if (job.state === "running") {
    say("Computing …", { fraction: job.progress });
  } else if (changed) {
    showResult();
  }
}

// A page that the browser may show again, by its back button, keeps its result.
addEventListener("pagehide", (event) => { if (!event.persisted) leave(); });

// The result

const imageOf = (name) => `/api/jobs/${job.id}/${name}.png`;

function title(name) {
  return name.replace(/^sr$/, "result").replace(/^(leaf|weight)/, "$1 ");
}

function showResult() {
  setBusy(false);
  const [width, height] = job.size;
  say(`Done: ${width}×${height} pixels.`);
  byId("notes").replaceChildren(...job.notes.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  stage.style.setProperty("--width", width);
  stage.style.setProperty("--height", height);
  const outputs = job.files.filter((name) => name !== "lr" && name !== "bicubic");
  right.replaceChildren(...outputs.map((name) => new Option(title(name), name)));
  gallery.replaceChildren(...(outputs.length > 1 ? outputs.map(thumbnail) : []));
  byId("colours").hidden = outputs.length === 1;
  byId("result").hidden = false;
  compare();
}

function thumbnail(name) {
  const figure = document.createElement("figure");
  const button = Object.assign(document.createElement("button"), { type: "button" });
  const image = Object.assign(document.createElement("img"), { src: imageOf(name), alt: `Compare ${title(name)}` });
  button.dataset.name = name;
  button.append(image);
  button.addEventListener("click", () => { right.value = name; compare(); });
  const caption = document.createElement("figcaption");
  caption.append(title(name), downloadLink(document.createElement("a"), name, "PNG"));
  figure.append(button, caption);
  return figure;
}

function downloadLink(link, name, text) {
  link.href = `${imageOf(name)}?download=1`;
  link.download = "";
  link.textContent = text;
  link.setAttribute("aria-label", `Download ${title(name)} as PNG`);
  return link;
}

function compare() {
  for (const [element, name] of [[byId("left-image"), left.value], [byId("right-image"), right.value]]) {
    element.src = imageOf(name);
    element.alt = "";
  }
  byId("left-image").classList.toggle("nearest", left.value === "lr");
  byId("viewer").setAttribute("aria-label", `${left.selectedOptions[0].text} on the left, ${title(right.value)} on the right`);
  for (const button of gallery.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", button.dataset.name === right.value);
  }
  downloadLink(byId("download"), "sr", "Download 16-bit PNG");
  setZoom();
  setSplit();
}

function setZoom() {
  stage.className = zoom.value === "fit" ? "fit" : "zoomed";
  stage.style.setProperty("--zoom", zoom.value === "fit" ? 1 : zoom.value / devicePixelRatio);
}

function setSplit() {
  stage.style.setProperty("--split", `${split.value}%`);
}

for (const choice of [left, right]) choice.addEventListener("change", compare);
zoom.addEventListener("change", setZoom);
split.addEventListener("input", setSplit);
for (const name of ["pointerdown", "pointermove"]) {
  stage.addEventListener(name, (event) => {
    if (!event.buttons) return;
    const box = stage.getBoundingClientRect();
    split.value = (100 * (event.clientX - box.left)) / box.width;
    setSplit();
  });
}
stage.addEventListener("dragstart", (event) => event.preventDefault());
for (const id of ["left-image", "right-image"]) {
  byId(id).addEventListener("error", () => say("This browser cannot show an image of this size. Download it instead."));
}

// Start

try {
  settings = await answer("/api/settings");
  checkpoint.replaceChildren(...settings.models.map((model, index) => new Option(`${model.name} (×${model.scale})`, index)));
  byId("limits").textContent =
    `PNG, JPEG, WebP, TIFF, BMP, PPM or GIF; at most ${settings.max_pixels.toLocaleString("en")} pixels and ` +
    `${settings.max_bytes / 1e6} MB.`;
  setBusy(false);
} catch (error) {
  say(`The server does not answer (${error.message}). Reload the page.`, { error: true });
}
