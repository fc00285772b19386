"use strict";
// Picks targets out, hides them, and reads their curves. Everything else is there without JavaScript.
(() => {
  const bar = document.querySelector(".filter");
  const buttons = [...bar.querySelectorAll("button")], titles = JSON.parse(bar.dataset.titles); // by number
  for (const chip of document.querySelectorAll("tbody th > [data-chip]")) {
    const row = chip.closest("tr");
    row.dataset.target = row.dataset.target || chip.dataset.chip;
  }
  const parts = [...document.querySelectorAll("main [data-target]")];
  const targetsOf = (part) => part.dataset.target.split(" ");
  const hidden = new Set(), readings = []; // numbers of targets; functions that read a plot again
  let pinned = [], pointed = [];

  // Marks what belongs to the targets under the pointer, or to the one that was chosen.
  const mark = () => {
    const picked = pointed.length ? pointed : pinned;
    document.body.classList.toggle("picked", picked.length > 0);
    for (const part of [...parts, ...buttons]) {
      part.classList.toggle("lit", targetsOf(part).some((target) => picked.includes(target)));
    }
  };
  const point = (targets) => {
    if (targets.join() === pointed.join()) return;
    pointed = targets;
    mark();
  };
  const pin = (targets) => {
    pinned = targets.join() === pinned.join() ? [] : targets;
    mark();
  };
  const filter = () => {
    for (const part of parts) part.classList.toggle("off", targetsOf(part).every((target) => hidden.has(target)));
    for (const read of readings) read();
  };

  for (const button of buttons) {
    button.addEventListener("click", () => {
      const press = (one, on) => one.setAttribute("aria-pressed", String(on));
      const released = () => buttons.filter((one) => one.getAttribute("aria-pressed") === "false").flatMap(targetsOf);
      press(button, button.getAttribute("aria-pressed") === "false");
      const every = new Set(buttons.flatMap(targetsOf));
      if (new Set(released()).size === every.size) buttons.forEach((one) => press(one, true)); // an empty page helps nobody
      hidden.clear();
      for (const target of released()) hidden.add(target);
      filter();
    });
  }
  const partAt = (event) => event.target.closest && event.target.closest("[data-target]");
  document.addEventListener("pointerover", (event) => {
    const part = partAt(event);
    if (event.pointerType !== "touch" && !event.target.closest("svg[data-read]")) point(part ? targetsOf(part) : []);
  });
  document.addEventListener("focusin", (event) => point(bar.contains(event.target) ? targetsOf(event.target) : []));
  document.addEventListener("focusout", () => point([]));
  document.addEventListener("click", (event) => {
    const part = partAt(event);
    if (part && !bar.contains(part) && !event.target.closest("a, summary") && !String(getSelection())) {
      pin(targetsOf(part));
    }
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && pin(pinned));
  // What a link points at is unfolded. Paper has what is unfolded.
  const unfold = () => {
    const end = location.hash && document.getElementById(location.hash.slice(1));
    for (let part = end; part; part = part.parentElement) if (part.localName === "details") part.open = true;
    if (end && end.type === "radio") end.checked = true;
    if (end) end.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  unfold();
  // Reading values off the curves, by pointer or by a slider below the plot.
  const figures = (value, digits) => Number(value.toPrecision(digits)).toLocaleString("en");
  const UNITS = {
    ms: (value) => (value >= 9999.5 ? `${figures(value / 1000, 3)} s` : `${figures(value, 3)} ms`),
    percent: (value) => `${figures(Math.min(100, Math.max(0, value)), 3)}%`,
    requests: (value) => `${value >= 1e9 ? `${figures(value / 1e9, 3)}B` : value >= 1e6 ? `${figures(value / 1e6, 3)}M`
      : value >= 1e3 ? `${figures(value / 1e3, 3)}k` : figures(value, 3)} requests a month`,
    usd: (value) => (value <= 0.105 ? "$0.10 or less" : `$${value.toFixed(value < 100 ? 2 : 0).replace(/\B(?=(\d{3})+$)/g, ",")}`),
  };
  const valueAt = (scale, place) => {
    const value = scale.low + ((place - scale.start) / (scale.end - scale.start)) * (scale.high - scale.low);
    return scale.log ? 10 ** value : value;
  };
  const curvesOf = (svg) => [...svg.querySelectorAll("[data-curve]")].map((group) => {
    const numbers = group.querySelector("path").getAttribute("d").match(/-?\d+(\.\d+)?(e-?\d+)?/g).map(Number);
    return { group, points: numbers.flatMap((x, i) => (i % 2 ? [] : [[x, numbers[i + 1]]])) };
  });
  // The height of a curve above a place; of a step the upper end. A share stays what it was beyond the last answer.
  const heightAt = (points, x, unit) => {
    const next = points.findIndex((point) => point[0] > x + 0.01);
    if (next === 0) return unit === "percent" ? null : undefined;
    if (next < 0) return unit === "percent" || x - points.at(-1)[0] < 0.5 ? points.at(-1)[1] : undefined;
    const [[x0, y0], [x1, y1]] = [points[next - 1], points[next]];
    return y0 + ((x - x0) / (x1 - x0)) * (y1 - y0);
  };
  const makeReadable = (figure) => {
    const svg = figure.querySelector("svg[data-read]"), scroller = svg.parentElement;
    const scales = JSON.parse(svg.dataset.read), curves = curvesOf(svg);
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("y1", scales.y.start);
    cursor.setAttribute("y2", scales.y.end);
    svg.append(cursor);
    const [box, slider, said] = ["div", "input", "p"].map((name) => document.createElement(name));
    box.className = "readout";
    Object.assign(slider, { type: "range", min: 0, max: 1000, value: 500 });
    slider.setAttribute("aria-label", "Read the curves at");
    box.append(slider, said);
    scroller.after(box);
    const read = () => {
      const x = scales.x.start + (slider.value / 1000) * (scales.x.end - scales.x.start);
      const at = UNITS[scales.x.unit](valueAt(scales.x, x));
      const told = curves.filter(({ group }) => !group.classList.contains("off")).map(({ group, points }) => {
        const y = heightAt(points, x, scales.y.unit);
        const value = y === undefined ? "–" : UNITS[scales.y.unit](y === null ? 0 : valueAt(scales.y, y));
        return [group.dataset.target, `${titles[group.dataset.target]} ${value}`];
      });
      said.replaceChildren(`${at}:`, ...told.map(([target, text]) => {
        const one = document.createElement("span");
        one.append(document.querySelector(`[data-chip="${target}"]`).cloneNode(), text);
        return one;
      }));
      slider.setAttribute("aria-valuetext", `${at}: ${told.map(([, text]) => text).join(", ")}`);
      for (const end of ["x1", "x2"]) cursor.setAttribute(end, x);
    };
    slider.addEventListener("input", () => {
      read();
      const x = Number(cursor.getAttribute("x1")) * (svg.clientWidth / svg.viewBox.baseVal.width);
      scroller.scrollLeft = x - scroller.clientWidth / 2; // keeps the cursor in sight where the plot scrolls
    });
    svg.addEventListener("pointermove", (event) => {
      const around = svg.getBoundingClientRect(), zoom = svg.viewBox.baseVal.width / around.width;
      const x = (event.clientX - around.left) * zoom, y = (event.clientY - around.top) * zoom;
      slider.value = Math.round(((x - scales.x.start) / (scales.x.end - scales.x.start)) * 1000);
      read();
      const gap = (curve) => Math.abs((heightAt(curve.points, x, scales.y.unit) ?? Infinity) - y);
      const shown = curves.filter(({ group }) => !group.classList.contains("off")).sort((a, b) => gap(a) - gap(b));
      const named = partAt(event); // an entry of the legend
      point(named ? targetsOf(named) : shown.length && gap(shown[0]) < 24 ? targetsOf(shown[0].group) : []);
    });
    svg.addEventListener("pointerleave", () => point([]));
    readings.push(read);
  };
  for (const figure of document.querySelectorAll("figure")) if (figure.querySelector("svg[data-read]")) makeReadable(figure);

  // The commands name this folder where it is known.
  if (location.protocol === "file:") {
    const folder = decodeURIComponent(location.pathname.replace(/\/[^/]*$/, "")) || "/";
    const word = /^[\w@%+=:,.\/-]+$/.test(folder) ? folder : `'${folder.replaceAll("'", `'\\''`)}'`;
    for (const code of document.querySelectorAll("code")) {
      if (/^(\.\/cloudtrial|cat) /.test(code.textContent)) code.textContent = code.textContent.replace(/(?<=\s)DIR(?=\s|\/|$)/g, () => word);
    }
  }
  bar.hidden = false;
  filter();
})();
