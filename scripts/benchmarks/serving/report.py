"""The tables of a run, in Markdown. scripts/docs/readme.py copies two of them into docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from eval.formatting import ms, percent, plural, significant, timestamp
from eval.samples.processors import Processor, engine_variant, parse_processor
from scripts.benchmarks.serving.goals import HIGH_CONCURRENCY, Goal, best_torch_baseline, evaluate_goals, missed
from scripts.benchmarks.serving.record import Record, ServerInfo

SERVING_MD = "serving.md"
GOALS_TITLE, SERVERS_TITLE = "## Goals", "## Servers"
BOTTLENECK = 0.9  # of its core; a client that needs more may limit the figures
NONE = "–"


def markdown(record: Record) -> str:
    """The whole page."""
    goals = evaluate_goals(record)
    parts = [
        "# Serving, side by side",
        verdict(record, goals),
        f"Processor: {processor(record).with_cores}",
        f"{GOALS_TITLE}\n\n{goals_table(goals)}",
        _notes(record),
        f"{SERVERS_TITLE}\n\n{servers_table(record)}",
        "Requests a second at each concurrency, then the median latency at c=1, p99 at c=64, memory under load "
        "(proportional set size of all processes), and process start to first correct response. A dash: too few "
        "samples in a window.",
        "![Requests a second](throughput.svg)\n\n![Median latency](latency.svg)",
        f"## Every cell\n\n{cells_table(record)}",
        f"## Engines alone\n\n{engines_table(record)}",
        f"## How\n\n{_how(record)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdict(record: Record, goals: list[Goal]) -> str:
    """One line: whether every goal meets its must."""
    missed_goals = missed(goals)
    aims_reached = sum(goal.meets_aim for goal in goals)
    text = f"All {len(goals)} goals meet what they must"
    if missed_goals:
        titles = ", ".join(f'"{goal.title}"' for goal in missed_goals)
        text = f"{len(missed_goals)} of {len(goals)} goals do not meet what they must: {titles}"
    flaws = [] if record.complete else ["the run was ended early"]
    flaws += ["a quick run, not for the record"] if record.quick else []
    flaws += ["the weights were replaced meanwhile: measure again"] if weights_replaced(record) else []
    return f"**{text}; {aims_reached} meet their aim.**" + (f" ({', '.join(flaws)})" if flaws else "")


def processor(record: Record) -> Processor:
    """The processor of the figures."""
    return parse_processor(
        record.machine, engine_variant({"engine_details": record.engines.get("torch", {}).get("details")})
    )


def weights_replaced(record: Record) -> bool:
    """Whether a server of ours ran other weights than its engine alone did."""
    return any(
        (reported := record.reported_versions.get(server.name, {}).get("model", {}).get("version"))
        and reported != record.engines.get(server.engine, {}).get("version", reported)
        for server in record.servers
    )


def goals_table(goals: list[Goal]) -> str:
    """A row for every goal."""
    lines = ["| | must reach | aim | reached | |", "|---|---|---|---|---|"]
    for goal in goals:
        grade = "aim" if goal.meets_aim else "must" if goal.meets_must else "missed"
        lines.append(f"| {goal.title} | {goal.must} | {goal.aim} | **{goal.reached}** | {grade} |")
    return "\n".join(lines)


def servers_table(record: Record) -> str:
    """A row for every server."""
    concurrencies = record.concurrencies()
    rates = [f"c={c}" for c in concurrencies]
    head = ["Server", *rates, "p50, c=1", f"p99, c={HIGH_CONCURRENCY}", "Memory", "Cold start"]
    lines = [_line(head), "|---|" + "--:|" * (len(head) - 1)]
    for server in record.measured_servers():
        title = f"**{server.title}**" if server.ours else server.title
        lines.append(_line([
            title,
            *(_text(record.rate_rps(server.name, c), _rate) for c in concurrencies),
            _text(record.latency_ms(server.name, 1, "p50_ms"), ms),
            _text(record.latency_ms(server.name, HIGH_CONCURRENCY, "p99_ms"), ms),
            _text(record.memory_mb(server.name), lambda mb: f"{mb:.0f} MB"),
            _text(record.cold_start_s(server.name), lambda s: f"{s:.2f} s"),
        ]))  # fmt: skip
    return "\n".join(lines)


def cells_table(record: Record) -> str:
    """A row for every server and concurrency."""
    head = ["Server", "c", "requests a second", "its rounds", "p50", "p99", "errors", "open at the end", "client"]
    lines = [_line(head), "|---|--:|--:|--:|--:|--:|---|--:|--:|"]
    for server in record.measured_servers():
        lines += [_cell(record, server, c) for c in record.concurrencies() if record.results(server.name, c)]
    return "\n".join(lines)


def _cell(record: Record, server: ServerInfo, c: int) -> str:
    results = record.results(server.name, c)
    rates = [result.rate_rps for result in results]
    busiest = max(result.client_cpu for result in results)
    client = percent(busiest, 0) + (" **the bottleneck**" if busiest > BOTTLENECK else "")
    return _line([
        server.title, str(c), _text(record.rate_rps(server.name, c), _rate),
        f"{_rate(min(rates))} to {_rate(max(rates))}",
        _text(record.latency_ms(server.name, c, "p50_ms"), ms), _text(record.latency_ms(server.name, c, "p99_ms"), ms),
        _errors(record.errors(server.name, c)), str(max(result.open_at_end for result in results)), client,
    ])  # fmt: skip


def engines_table(record: Record) -> str:
    """A row for every engine alone, over the run: its drift is the machine's."""
    lines = [
        "| Engine | one image | images a second | in batches of | measured, times | how |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for engine, info in record.engines.items():
        samples = [sample for sample in record.engine_samples if sample.engine == engine]
        if not samples:
            continue
        single = [sample.single_ms for sample in samples]
        rates = [sample.batch_rps for sample in samples]
        form = info.get("details", {}).get("form", "")
        lines.append(_line([
            engine, f"{min(single):.2f} to {max(single):.2f} ms", f"{_rate(min(rates))} to {_rate(max(rates))}",
            str(info["batch"]), str(len(samples)), str(form),
        ]))  # fmt: skip
    return "\n".join(lines)


def _notes(record: Record) -> str:
    """Notes on the goals."""
    baseline = best_torch_baseline(record)
    title = next((s.title for s in record.servers if s.name == baseline), None)
    notes = [
        "Ratios are medians of the rounds; an engine's raw ceiling is measured immediately before and after each visit "
        "to its server." + (f" The best torch baseline is {title}." if title else "")
    ]
    torch = record.engines.get("torch", {}).get("libraries", {}).get("torch", "")
    if "+cu" in torch:
        notes.append(f"PyTorch {torch} is the CUDA build, which takes more memory than the CPU build of the clouds.")
    notes += [f"{_title(record, name)}: not measured: {reason}." for name, reason in record.failures.items()]
    return "\n\n".join(notes)


def _title(record: Record, name: str) -> str:
    return next((s.title for s in record.servers if s.name == name), name)


def _how(record: Record) -> str:
    plan, machine, images = record.plan, record.machine, record.images
    image_count = f"{images.get('n', 0)} images ({images.get('source', 'none')})"
    clients = "; ".join(
        f"{_rate(cell.result.rate_rps)} a second at c={cell.concurrency}, "
        f"{percent(cell.result.client_cpu, 0)} of its core"
        for cell in record.client
    )
    lines = [
        f"- `{record.command}`, {timestamp(record.started_at)}, {record.duration_s / 60:.1f} minutes.",
        f"- {processor(record).with_cores}: the server and all its processes pinned to core "
        f"{record.cores['server']}, the client to core {record.cores['client']}. {machine['os']}.",
        f"- {', '.join(f'{name} {version}' for name, version in record.versions.items())}.",
        f"- {image_count}, the same for all, over connections that stay open; every response's label is checked. A 503 "
        "is retried after its Retry-After, at most a second later.",
        f"- {plural(plan['rounds'], 'round')} of {plan['window_s']:g} s a cell, after {plan['warmup_s']:g} s of "
        "warm-up, the servers in a new random order each round.",
        f"- Client alone, against a null server: {clients}.",
        *(f"- {server.title}: {server.description}." for server in record.servers),
    ]
    return "\n".join(lines)


def _errors(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(errors.items())) or "none"


def _text(value: float | None, text: Callable[[float], str]) -> str:
    return NONE if value is None else text(value)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else significant(value)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
