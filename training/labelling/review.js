"use strict";
// Decisions are kept in the browser, so that a page that is closed goes on where it was; the CSV is what counts.
const cards = [...document.querySelectorAll(".card")];
const store = "cloudtrial-label-" + document.body.dataset.key;
const decisions = new Map();
const undo = [];
let current = 0;
let unsaved = false;
let stored = true;

try {
  for (const [path, label] of Object.entries(JSON.parse(localStorage.getItem(store) || "{}"))) decisions.set(path, label);
} catch { stored = false; }

function keep() {
  try { localStorage.setItem(store, JSON.stringify(Object.fromEntries(decisions))); } catch { stored = false; }
}

function show(card) {
  const label = decisions.get(card.dataset.path);
  let pressed = false;
  for (const button of card.querySelectorAll("button")) {
    const chosen = button.dataset.label === label;
    button.setAttribute("aria-pressed", String(chosen));
    pressed ||= chosen;
  }
  const input = card.querySelector("input");
  input.value = label === undefined || pressed ? "" : label;
  input.classList.toggle("chosen", input.value !== "");
  card.classList.toggle("done", label !== undefined);
}

function count() {
  const format = new Intl.NumberFormat("en");
  document.getElementById("count").value = `${format.format(decisions.size)} of ${format.format(cards.length)} decided`;
  document.getElementById("progress").value = decisions.size;
  document.getElementById("save").disabled = decisions.size === 0;
}

function moveTo(index, focus = true) {
  cards[current].classList.remove("current");
  current = Math.max(0, Math.min(cards.length - 1, index));
  cards[current].classList.add("current");
  cards[current].scrollIntoView({ block: "nearest" });
  if (focus) cards[current].querySelector("button").focus({ preventScroll: true });
}

function decide(card, label) {
  const path = card.dataset.path;
  undo.push([cards.indexOf(card), decisions.get(path)]);
  if (label) decisions.set(path, label); else decisions.delete(path);
  unsaved = true;
  keep();
  show(card);
  count();
}

function nextOpen(from) {
  const order = [...cards.keys()].map((offset) => (from + 1 + offset) % cards.length);
  return order.find((index) => !decisions.has(cards[index].dataset.path)) ?? from;
}

function takeBack() {
  const last = undo.pop();
  if (!last) return;
  const [index, label] = last;
  decide(cards[index], label);
  undo.pop();
  moveTo(index);
}

function csv() {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const rows = cards.map((card) => card.dataset.path).filter((path) => decisions.has(path));
  return ["path,label", ...rows.map((path) => `${quoted(path)},${quoted(decisions.get(path))}`)].join("\r\n") + "\r\n";
}

function download() {
  const page = /-(\d+)\.html$/.exec(location.pathname);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = page ? `decisions-${page[1]}.csv` : "decisions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  unsaved = false;
}

function columns() {
  const top = cards[0].offsetTop;
  const first = cards.findIndex((card) => card.offsetTop !== top);
  return first < 1 ? cards.length : first;
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.tagName === "INPUT";
  if (typing && event.key === "Escape") return moveTo(current);
  if (typing) return;
  const card = cards[current];
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() };
  if (event.key === "1" || event.key === "2") {
    const button = card.querySelectorAll("button")[Number(event.key) - 1];
    if (button) { decide(card, button.dataset.label); moveTo(nextOpen(current)); }
  } else if (event.key === "3") card.querySelector("input").focus();
  else if (event.key in steps) moveTo(current + steps[event.key]);
  else if (event.key.toLowerCase() === "u") takeBack();
  else return;
  event.preventDefault();
}

if (cards.length) {
  cards.forEach((card, index) => {
    show(card);
    card.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      moveTo(index, false);
      if (!button) return;
      const pressed = button.getAttribute("aria-pressed") === "true";
      decide(card, pressed ? "" : button.dataset.label);
    });
    card.addEventListener("focusin", () => moveTo(index, false));
    card.querySelector("input").addEventListener("change", (event) => {
      decide(card, event.target.value.trim());
      if (event.target.value) moveTo(nextOpen(index));
    });
  });
  document.addEventListener("keydown", press);
  document.getElementById("save").addEventListener("click", download);
  document.getElementById("open").addEventListener("click", (event) => {
    const hidden = document.body.classList.toggle("open-only");
    event.target.setAttribute("aria-pressed", String(hidden));
    event.target.textContent = hidden ? "Show decided" : "Hide decided";
  });
  window.addEventListener("beforeunload", (event) => { if (unsaved && !stored) event.preventDefault(); });
  count();
  moveTo(nextOpen(cards.length - 1), false);
}
