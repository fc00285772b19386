"use strict";
// Answers for other traffic: the cost model and the rules of eval/analysis/recommendation.py, on the run's own figures.
// tests/eval/report/test_answer_page.py holds every number and word here against the Python that the report is made by.
(() => {
  const card = document.querySelector(".answer");
  if (!card) return;
  const data = JSON.parse(document.getElementById("answer-data").textContent);
  const { candidates, chips, constants: C } = data;
  const MONTH_S = C.HOURS_PER_MONTH * 3600, DAY_S = 24 * 3600, DAYS = C.HOURS_PER_MONTH / 24;

  // A whole number of instances; a rate that is a rounding error above a whole one needs no other.
  const instancesFor = (load) => Math.max(1, Math.ceil(Number(load.toFixed(9))));
  const alwaysOn = (rps, need) =>
    instancesFor(rps / (need.instance_rps * (need.rate_measured ? 1 : C.TARGET_UTILISATION)));
  const autoscaled = (rps, need, target) => instancesFor(Math.max(
    (rps * need.cpu_s) / (C.AUTOSCALER_UTILISATION * target.vcpus),
    (rps * need.service_s) / (C.AUTOSCALER_UTILISATION * target.concurrency),
    need.rate_measured ? rps / need.instance_rps : 0,
  ));
  const coldStarts = (requests, peak, idleS) => {
    const rps = (requests / MONTH_S) * peak, busyS = DAY_S / peak;
    const firstOfDay = DAY_S - busyS > idleS ? DAYS * -Math.expm1(-rps * busyS) : 0;
    return firstOfDay + (requests - firstOfDay) * Math.exp(-rps * idleS);
  };
  const sagemakerData = (requests, need, price) => {
    const egressGb = (requests * need.egress_bytes) / 1e9;
    const processed = ((requests * C.REQUEST_BYTES) / 1e9 + egressGb) * price.processed;
    const gross = processed + need.container_image_gib * price.image + egressGb * price.egress;
    return { gross, net: gross - Math.min(egressGb, price.free_egress) * price.egress };
  };
  // Each bill: dollars a month after free allowances, its bounds and its gross, and the number of instances.
  const bills = {
    hourly({ target, unit_prices: price }, need, requests, peak) {
      const rps = requests / MONTH_S, instances = alwaysOn(rps * peak, need);
      const fixed = instances * (C.HOURS_PER_MONTH * (price.hour + price.ipv4) + target.disk_gb * price.disk);
      const surplus = target.baseline_vcpus < target.vcpus ? (rps * need.cpu_s) / instances - target.baseline_vcpus : 0;
      const extra = instances * Math.max(0, surplus) * C.HOURS_PER_MONTH * (price.surplus || 0);
      const gb = (requests * need.egress_bytes) / 1e9;
      const net = fixed + extra + Math.max(0, gb - price.free_egress) * price.egress;
      return { net, low: net, high: net, gross: fixed + extra + gb * price.egress, instances };
    },
    dyno({ unit_prices: price }, need, requests, peak) {
      const instances = alwaysOn((requests / MONTH_S) * peak, need);
      const net = instances * (instances > 1 && "scaled" in price ? price.scaled : price.month);
      return { net, low: net, high: net, gross: net, instances };
    },
    request({ target, unit_prices: price }, need, requests, peak, warm) {
      const rps = (requests / MONTH_S) * peak, busyS = MONTH_S / peak, instances = autoscaled(rps, need, target);
      const startS = warm ? 0 : coldStarts(requests, peak, C.IDLE_TIMEOUT_S) * need.startup_s;
      const maxStartS = warm ? 0 : coldStarts(requests, peak, C.MIN_IDLE_TIMEOUT_S) * need.startup_s;
      const union = (s) => Math.max(requests * Math.min(s, need.cpu_s / target.vcpus),
        instances * busyS * -Math.expm1((-rps * s) / instances));
      const gib = (requests * need.egress_bytes) / 2 ** 30, memory = target.memory_mib / 1024;
      const boost = target.startup_cpu_boost ? 1 : 0;
      const idle = (billedS) => warm * MONTH_S * (1 - Math.min(1, billedS / (Math.max(instances, warm) * MONTH_S)));
      const cost = (billedS, boostedS, free) => {
        const over = (amount, allowance) => (free ? Math.max(0, amount - allowance) : amount);
        return over((billedS + boostedS) * target.vcpus, price.free_vcpu_s) * price.vcpu_s
          + over(billedS * memory, price.free_gib_s) * price.gib_s
          + (warm ? idle(billedS) * (target.vcpus * price.idle_vcpu_s + memory * price.idle_gib_s) : 0)
          + (over(requests, price.free_requests) / 1e6) * price.million
          + over(gib, price.free_egress) * price.egress
          + over(need.container_image_gib, price.free_image) * price.image;
      };
      const billedS = union(need.billed_s) + startS;
      return {
        net: cost(billedS, boost * startS, true),
        low: cost(union(need.service_s) + startS, boost * startS, true),
        high: cost(requests * need.billed_s + maxStartS, boost * maxStartS, true),
        gross: cost(billedS, boost * startS, false),
        instances,
      };
    },
    endpoint({ unit_prices: price }, need, requests, peak) {
      const instances = alwaysOn((requests / MONTH_S) * peak, need), data = sagemakerData(requests, need, price);
      const busyHours = Math.min(C.HOURS_PER_MONTH, C.HOURS_PER_MONTH / peak + (DAYS * C.SCALE_IN_DELAY_S) / 3600);
      const compute = (C.HOURS_PER_MONTH + (instances - 1) * busyHours) * price.hour, net = compute + data.net;
      return { net, low: net, high: net, gross: compute + data.gross, instances };
    },
    serverless({ target, unit_prices: price }, need, requests, peak) {
      const instances = alwaysOn((requests / MONTH_S) * peak, need), data = sagemakerData(requests, need, price);
      const secondUsd = (target.memory_mib / 1024) * price.gb_s, compute = requests * need.service_s * secondUsd;
      const maxStartS = coldStarts(requests, peak, C.MIN_IDLE_TIMEOUT_S) * need.startup_s, net = compute + data.net;
      return { net, low: net, high: net + maxStartS * secondUsd, gross: compute + data.gross, instances };
    },
  };
  // Seconds without a request after which the next one meets a cold start; 0: it never does.
  const idleTimeout = (target, bill, warm) => (warm ? 0
    : target.sleeps_after_s ? (bill.instances === 1 ? target.sleeps_after_s : 0)
      : target.scales_to_zero ? C.IDLE_TIMEOUT_S : 0);
  const cents = (usd) => Math.round(usd * 100) / 100;

  const p95Of = (candidate, need, coldFraction, slowdown) => {
    const tail = candidate.tail_ms.map((ms) => (ms === null ? Infinity : ms * slowdown));
    if (!tail.length) return null;
    if (coldFraction >= C.P95_TAIL) return candidate.startup_measured ? Math.max(need.startup_s * 1000, tail[0]) : null;
    const quantile = C.SLO_QUANTILE / (1 - coldFraction);
    return tail[Math.ceil(Number(((quantile - C.SLO_QUANTILE) / C.TAIL_STEP).toFixed(6)))];
  };
  const evaluate = (name, { rps, hours, slo }, slowdown, warm) => {
    const candidate = candidates[name], { target } = candidate, isTwin = slowdown in candidate.demand_by_slowdown;
    slowdown = isTwin ? slowdown : 1; // what is deployed has a processor of its own
    const need = candidate.demand_by_slowdown[slowdown];
    const peak = 24 / hours, requests = (rps * MONTH_S) / peak;
    const bill = bills[target.billing](candidate, need, requests, peak, warm);
    const idleS = idleTimeout(target, bill, warm), cold = idleS ? coldStarts(requests, peak, idleS) / requests : 0;
    const p95 = p95Of(candidate, need, cold, slowdown), p50Low = candidate.p50_low_ms * slowdown;
    const within = p95 !== null ? p95 <= slo : p50Low > slo ? false : null;
    const excluded = candidate.fails ? "too many failures"
      : candidate.fits_memory === false ? `needs more memory than its ${mib(target.memory_mib)}`
      : p95 === Infinity ? "too many failures"
      : within === false ? (p95 === null ? `p50 ${ms(p50Low)} or more` : `p95 ${ms(p95)}`)
      : bill.instances > target.max_instances ? `needs ${bill.instances} instances, more than it may have` : "";
    return { name, candidate, need, bill, warm, cold, p95, within, excluded };
  };
  // The cheapest that may be taken, or else the first; it says what the one that is always warm costs.
  const choose = (pair) => {
    const allowed = pair.filter((option) => !option.excluded), lowest = Math.min(...allowed.map((o) => cents(o.bill.net)));
    const chosen = allowed.find((option) => cents(option.bill.net) === lowest) || pair[0];
    return { ...chosen, alwaysWarm: pair.length > 1 ? pair[1].bill.net : null };
  };
  const evaluateAll = (names, traffic, slowdown = 1) => {
    const pairs = names.map((name) => (candidates[name].target.billing === "request" ? [0, C.ALWAYS_WARM] : [0])
      .map((warm) => evaluate(name, traffic, slowdown, warm)));
    const options = pairs.flat();
    if (options.some(({ p95, candidate }) => p95 !== null && p95 !== Infinity && !candidate.fails)) {
      for (const option of options) if (option.within === null) option.excluded = option.excluded || "p95 not known";
    }
    return pairs.map(choose);
  };
  const rank = (options) => options.filter((option) => !option.excluded)
    .sort((a, b) => cents(a.bill.net) - cents(b.bill.net) || a.bill.gross - b.bill.gross);
  const slowdownLimit = (names, traffic, first) => {
    let limit = null;
    if (first.within === null) return null;
    for (const slowdown of Object.keys(first.candidate.demand_by_slowdown).map(Number).slice(1)) {
      const options = evaluateAll(names, traffic, slowdown), [cheapest] = rank(options);
      const own = options.find((option) => option.name === first.name);
      if (own.excluded || own.warm !== first.warm || cents(cheapest.bill.net) < cents(own.bill.net)) return limit || { factor: 1 };
      limit = { factor: slowdown, price: usd(cents(own.bill.net)) };
    }
    return limit;
  };

  // Words, as eval/formatting.py and eval/report/answer.py write them.
  const grouped = (text) => text.replace(/\B(?=(\d{3})+(?!\d)(?<!\.\d*))/g, ",");
  // Half to even, as Python does: toFixed rounds it up. A tie is a number of halves of powers of two.
  const fixed = (value, digits) => {
    const isTie = Number.isInteger(value * 2 ** (digits + 1)) && !Number.isInteger(value * 2 ** digits);
    const text = value.toFixed(digits);
    return isTie && Number(text.at(-1)) % 2 ? (value - 0.5 / 10 ** digits).toFixed(digits) : text;
  };
  const significant = (value, digits = 3) => {
    if (value === 0) return "0";
    return grouped(fixed(value, Math.max(0, digits - 1 - Number(value.toExponential(digits - 1).split("e")[1]))));
  };
  const ms = (value) => (value >= 9999.5 ? `${significant(value / 1000)} s`
    : value < 1 ? (value < 0.01 ? "< 0.01 ms" : `${fixed(value, 2)} ms`) : `${significant(value)} ms`);
  const mib = (value) => (value >= 1024 && value % 1024 === 0 ? `${value / 1024} GiB` : `${grouped(fixed(value, 0))} MiB`);
  const usd = (value) => (value === 0 ? "$0" : value < 0.01 ? `$${significant(value, 2)}`
    : `$${grouped(fixed(value, value >= 1000 ? 0 : 2))}`);
  const percent = (value) => {
    const text = fixed(value * 100, 1);
    return Number(text) === 100 && value < 1 ? "> 99.9%" : Number(text) === 0 && value > 0 ? "< 0.1%"
      : value === 1 ? "100%" : `${text}%`;
  };
  const short = (value) => grouped(String(Number(value.toPrecision(3))));
  const rateText = (rps) => (rps >= 0.02 ? `${short(rps)} a second` : `${short(rps * 3600)} an hour`);
  const hoursText = (hours) => (hours >= 24 ? "all day" : `${short(hours)} h a day`);
  const words = (items) => (items.length > 1 ? `${items.slice(0, -1).join(", ")} and ${items.at(-1)}` : items.join(""));
  const leftOut = (options) => {
    const texts = options.filter((o) => o.excluded).map((o) => `${o.candidate.title} (${o.excluded})`);
    return texts.length ? `Left out: ${words(texts)}.` : "";
  };
  const conditionOf = (names, traffic, options, ranked) => {
    if (!ranked.length) return leftOut(options);
    const [first, ...others] = ranked, amount = (option) => usd(cents(option.bill.net));
    const why = first.candidate.p95_reason ? first.candidate.p95_reason.message : C.START_NOT_MEASURED;
    const parts = [
      engineInput && first.candidate.engine !== null ? `With ${engineInput.selectedOptions[0].textContent}.` : "",
      first.within === null ? `P95 not known (${why}): by the bill alone.` : "",
      first.warm ? C.ALWAYS_WARM_SETTING : "",
    ];
    const title = ({ candidate, warm }) => candidate.title + (warm ? " (always warm)" : "");
    const equal = others.filter((option) => amount(option) === amount(first)).map(title);
    if (!others.length) parts.push(leftOut(options));
    else if (equal.length) parts.push(`${words(equal)} ${equal.length === 1 ? "costs" : "cost"} the same.`);
    else {
      const ranges = [first, others[0]].map(({ bill }) => [cents(bill.low), cents(bill.high)]);
      const tied = ranges.some(([low, high]) => low < high) && ranges[0][1] >= ranges[1][0];
      parts.push(`Next: ${title(others[0])} at ${amount(others[0])}`
        + `${tied ? ", which may be as cheap: how billed time is rounded is not documented" : ""}.`);
    }
    const limit = data.twins ? slowdownLimit(names, traffic, first) : null;
    if (limit !== null) {
      const price = limit.price === amount(first) ? "" : `, at ${limit.price}`;
      parts.push(limit.factor <= 1 ? `The answer does not hold on a processor ${C.FIRST_SLOWDOWN} times slower than this machine's.`
        : `The answer holds on a processor up to ${limit.factor} times slower than this machine's${price}.`);
    }
    return parts.filter(Boolean).join(" ");
  };

  // The table.
  const element = (tag, className, ...children) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...children.filter((child) => child !== ""));
    return made;
  };
  const cell = (label, className, ...children) => {
    const made = element("td", className, element("div", "", ...children));
    made.dataset.label = label;
    return made;
  };
  const small = (text) => (text ? element("small", "", text) : "");
  const yesOrNo = (value) => (value === null ? "not known" : element("span", value ? "" : "bad", value ? "yes" : "no"));
  const row = (option, highest, recommended) => {
    const { name, candidate, need, bill } = option, head = element("th", "");
    const chip = element("span", `chip${Math.floor(chips[name] / 8) % 3 === 2 ? " open" : ""}`); // another engine
    chip.style.setProperty("--c", `var(--t${chips[name] % 8})`);
    head.scope = "row";
    head.append(chip, `${candidate.title} `, ...(recommended ? [element("span", "tag", "take this")] : []),
      small(option.excluded ? `left out: ${option.excluded}` : ""));
    const bar = element("i", "");
    bar.style.width = `${highest ? (100 * bill.net) / highest : 0}%`;
    bar.style.setProperty("--c", `var(--t${chips[name] % 8})`);
    const [low, high] = [usd(cents(bill.low)), usd(cents(bill.high))];
    const p95 = option.p95 === null || option.p95 === Infinity ? "not known" : ms(option.p95);
    const startMs = candidate.startup_measured ? ms(need.startup_s * 1000) : "not measured";
    const start = idleTimeout(candidate.target, bill, option.warm) ? startMs : "";
    const made = element("tr", recommended ? "take" : option.excluded ? "out" : "", head,
      cell("$ a month", "", usd(cents(bill.net)), small(low === high ? "" : `${low} to ${high}`),
        small(option.warm ? "always warm"
          : option.alwaysWarm === null ? "" : `always warm: ${usd(cents(option.alwaysWarm))}`)),
      element("td", "bar-cell", element("div", "usd-bar", bar)),
      cell("p95", "", p95, small(option.p95 === need.startup_s * 1000 ? "a cold start" : "")),
      cell("Cold starts", "", option.cold ? percent(option.cold) : "never", small(start)),
      cell("Fits memory", "", yesOrNo(candidate.fits_memory)),
      cell(card.querySelector("[data-slo-head]").textContent, "", yesOrNo(option.within)));
    return made;
  };

  const inputs = Object.fromEntries(["rps", "hours", "slo"].map((key) => [key, card.querySelector(`[data-input=${key}]`)]));
  const engineInput = card.querySelector("[data-input=engine]");
  const values = Object.fromEntries(Object.entries(inputs).map(([key, input]) => [key, JSON.parse(input.dataset.values)]));
  const texts = { rps: rateText, hours: hoursText, slo: ms };
  const draw = () => {
    const traffic = Object.fromEntries(Object.entries(inputs).map(([key, input]) => [key, values[key][input.value]]));
    const engine = engineInput ? engineInput.value : null;
    const names = data.names.filter((name) => !engineInput || [engine, null].includes(candidates[name].engine));
    for (const [key, input] of Object.entries(inputs)) {
      const text = texts[key](traffic[key]);
      card.querySelector(`[data-text=${key}]`).textContent = text;
      input.setAttribute("aria-valuetext", text);
    }
    card.querySelector("[data-slo-head]").textContent = `Within ${ms(traffic.slo)}`;
    const options = evaluateAll(names, traffic), ranked = rank(options);
    const others = options.filter((o) => !ranked.includes(o)).sort((a, b) => a.bill.net - b.bill.net);
    const highest = Math.max(...options.map((option) => option.bill.net));
    card.querySelector("tbody").replaceChildren(
      ...[...ranked, ...others].map((option) => row(option, highest, option === ranked[0])));
    const at = `At ${rateText(traffic.rps)}, ${hoursText(traffic.hours)}`;
    document.querySelector("h1").textContent = ranked.length
      ? `${at}, take ${ranked[0].candidate.title}: ${usd(cents(ranked[0].bill.net))} a month.`
      : `${at}, no target qualifies.`;
    document.querySelector(".condition").textContent = conditionOf(names, traffic, options, ranked);
    return { ...traffic, ...(engine ? { engine } : {}) };
  };
  // The settings stand in the address: a link shows what its sender saw.
  const load = () => {
    for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
      if (key === "engine" && engineInput && [...engineInput.options].some((o) => o.value === value)) engineInput.value = value;
      if (!(key in inputs) || !(Number(value) > 0)) continue;
      const nearest = values[key].map((v) => Math.abs(Math.log(v / Number(value))));
      inputs[key].value = nearest.indexOf(Math.min(...nearest));
    }
  };
  for (const input of [...Object.values(inputs), engineInput]) {
    if (input) input.addEventListener("input", () => history.replaceState(null, "", `#${new URLSearchParams(draw())}`));
  }
  addEventListener("hashchange", () => { load(); draw(); });
  card.querySelector("[data-controls]").hidden = false;
  load();
  draw();
})();
