// The form without a reload. Without this script it posts to the server, which renders the same page.

import { offerCurl } from "./curl.js";
import { askWhetherRight } from "./feedback.js";

const byId = (id) => document.getElementById(id);
const [form, drop, preview, image, token, send, answer] = [
  "form", "drop", "preview", "image", "token", "send", "answer",
].map(byId);
const MIB = 2 ** 20;
const NO_ANSWER = 0; // in place of a status
const UNREADABLE = [415, 422];
const NAME_CHARACTERS = 40;
const SLOW_MS = 150; // an answer that comes sooner replaces the last one without a flicker

let running = null; // AbortController of the request under way
let shownVersion = byId("version").textContent; // of the model whose classes the page names
let refused = null; // the file that the service could not read

send.hidden = !token; // a picture is sent as soon as it is chosen, unless something else must be filled in first

const CURL_OPTIONS = "-F image=@picture.png";
offerCurl(CURL_OPTIONS);

image.addEventListener("change", () => image.files.length && choose(image.files));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.submitter?.name === "sample") chooseSample(event.submitter.value);
  else ask();
});
document.addEventListener("paste", (event) => event.clipboardData.files.length && choose(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault(); // or the browser would open the file in place of the page
  drop.classList.add("is-over");
});
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (name === "drop" || !event.relatedTarget) drop.classList.remove("is-over");
  });
}
document.addEventListener("drop", (event) => {
  event.preventDefault();
  choose(event.dataTransfer.files);
});
preview.addEventListener("error", hidePreview);

// Take the first of the files, wherever they came from, and ask about it.
function choose(files) {
  running?.abort();
  if (!files.length) return fail(400);
  const [file] = files;
  const only = new DataTransfer();
  only.items.add(file);
  image.files = only.files;
  show(image.files[0]);
  if (token && !token.value) {
    answer.dataset.state = "empty";
    token.focus();
  } else {
    ask();
  }
}

async function chooseSample(name) {
  running?.abort();
  const mine = (running = new AbortController());
  try {
    const response = await fetch(`static/samples/${name}.png`, { signal: mine.signal });
    if (response.ok) choose([new File([await response.blob()], `${name}.png`, { type: "image/png" })]);
    else fail(response.status);
  } catch {
    if (!mine.signal.aborted) fail(NO_ANSWER);
  }
}

// An <img> would show as much of a damaged picture as there is; createImageBitmap reads all of it or nothing.
async function show(file) {
  hidePreview();
  drop.classList.add("chosen");
  const name = shortName(file.name);
  byId("unseen").textContent = name;
  const whole = await createImageBitmap(file).catch(() => null);
  whole?.close();
  if (!whole || file !== image.files[0] || file === refused) return;
  preview.src = URL.createObjectURL(file);
  preview.alt = `Your picture, ${name}`;
  preview.hidden = false;
  drop.classList.add("has-image");
}

function hidePreview() {
  URL.revokeObjectURL(preview.src);
  preview.hidden = true;
  drop.classList.remove("has-image");
}

// A name may hold characters that turn the text around it, and be long.
function shortName(name) {
  const plain = name.replace(/\p{C}/gu, "?");
  const half = NAME_CHARACTERS / 2;
  return plain.length > NAME_CHARACTERS ? `${plain.slice(0, half)}…${plain.slice(-half)}` : plain;
}

async function ask() {
  running?.abort();
  const mine = (running = new AbortController());
  const [file] = image.files;
  if (!file) return fail(400);
  if (file.size > form.dataset.maxMib * MIB) return fail(413, `this file has ${(file.size / MIB).toFixed(1)} MiB`);
  const slow = setTimeout(() => (answer.dataset.state = "busy"), SLOW_MS);
  try {
    const response = await fetch("predict", {
      method: "POST",
      body: new FormData(form),
      headers: { Accept: "application/json" },
      signal: mine.signal,
    });
    const body = (await response.json().catch(() => null)) ?? {}; // a proxy's refusal is no JSON
    const answered = response.ok && body.top;
    if (answered && body.model.version !== shownVersion) await learnNames(body.model.version).catch(() => {});
    if (mine.signal.aborted) return;
    if (answered) return succeed(body, response.headers);
    if (UNREADABLE.includes(response.status)) {
      refused = file;
      hidePreview();
    }
    fail(response.status, typeof body.detail === "string" ? body.detail : "");
  } catch {
    if (!mine.signal.aborted) fail(NO_ANSWER);
  } finally {
    clearTimeout(slow);
  }
}

// The model was replaced since the page was loaded: take what names its classes and weights from a new page.
async function learnNames(version) {
  const response = await fetch("./", { headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const id of ["known", "truth", "precision"]) byId(id)?.replaceWith(page.getElementById(id) ?? "");
  shownVersion = version;
}

function succeed(prediction, headers) {
  const { name, version, engine } = prediction.model;
  const took = /total;dur=([\d.]+)/.exec(headers.get("Server-Timing") ?? "");
  fill({ label: prediction.label, probability: percent(prediction.probability), model: name, version, engine });
  byId("ms").textContent = took ? Math.max(1, Math.round(took[1])) : "";
  byId("took").hidden = !took;
  byId("top").replaceChildren(...prediction.top.map(bar));
  offerCurl(CURL_OPTIONS);
  askWhetherRight(prediction.label, headers);
  send.hidden = !token;
  reveal("result", `${prediction.label} ${percent(prediction.probability)}`);
}

function fail(status, detail = "") {
  const all = byId("all-words").content;
  const words = all.querySelector(`[data-status="${status}"]`) ?? all.querySelector('[data-status="other"]');
  byId("words").replaceChildren(...words.cloneNode(true).childNodes);
  byId("detail").textContent = detail;
  byId("detail").parentElement.hidden = !detail;
  const again = [NO_ANSWER, 401].includes(status) || status >= 500;
  send.hidden = !(token || again);
  reveal("problem", `Problem: ${words.firstElementChild.textContent}`);
}

function reveal(state, title) {
  answer.dataset.state = state;
  document.title = `${title} · Cloudtrial`;
  answer.scrollIntoView({ block: "nearest" });
}

function fill(texts) {
  for (const [id, text] of Object.entries(texts)) byId(id).textContent = text;
}

function bar({ label, probability }) {
  const row = byId("bar").content.firstElementChild.cloneNode(true);
  row.querySelector(".bar-label").textContent = label;
  row.querySelector(".bar-fill").setAttribute("width", `${(probability * 100).toFixed(2)}%`);
  row.querySelector(".bar-percent").textContent = percent(probability);
  return row;
}

// As the template's macro: never up to certainty, never down to nothing.
function percent(p) {
  if (p >= 0.9995) return ">99.9%";
  return p < 0.0005 ? "<0.1%" : `${(p * 100).toFixed(1)}%`;
}
