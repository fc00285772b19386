"""The tables of a run, in Markdown. scripts/readme.py copies two of them into README.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from eval.formatting import moment, ms, percent, plural, significant
from eval.samples.processors import Processor, form_of, processor_of
from scripts.bench_serve.record import Described, Record
from scripts.bench_serve.targets import BUSY_C, Row, best_torch_peer, missed, targets

SERVING_MD = "serving.md"
TARGETS_TITLE, SERVERS_TITLE = "## Targets", "## Servers"
BOTTLENECK = 0.9  # of its core; a client that needs more may be what is measured
NONE = "–"


def markdown(record: Record) -> str:
    """All of it."""
    rows = targets(record)
    parts = [
        "# Serving, side by side",
        verdict(record, rows),
        f"Processor: {processor(record).with_cores}",
        f"{TARGETS_TITLE}\n\n{targets_table(rows)}",
        _notes(record),
        f"{SERVERS_TITLE}\n\n{servers_table(record)}",
        "Requests a second at each concurrency, then the time of a lone request, the slowest hundredth at c=64, memory "
        "under load (proportional set size of all processes), and process start to first right answer. A dash stands "
        "for what a window saw too little of.",
        "![Requests a second](throughput.svg)\n\n![Median latency](latency.svg)",
        f"## Every cell\n\n{cells_table(record)}",
        f"## Engines alone\n\n{engines_table(record)}",
        f"## How\n\n{_how(record)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdict(record: Record, rows: list[Row]) -> str:
    """One line: whether all that must be reached is."""
    short = missed(rows)
    aimed = sum(row.meets_aim for row in rows)
    text = f"All {len(rows)} rows reach what they must" if not short else (
        f"{len(short)} of {len(rows)} rows do not reach what they must: " + ", ".join(f'"{row.what}"' for row in short)
    )  # fmt: skip
    flaws = [] if record.complete else ["the run was ended early"]
    flaws += ["a quick run, not for the record"] if record.quick else []
    flaws += ["the weights were replaced meanwhile: measure again"] if replaced(record) else []
    return f"**{text}; {aimed} reach the aim.**" + (f" ({', '.join(flaws)})" if flaws else "")


def processor(record: Record) -> Processor:
    """What gave the figures."""
    return processor_of(record.machine, form_of({"engine_details": record.engines.get("torch", {}).get("details")}))


def replaced(record: Record) -> bool:
    """Whether a server of ours ran other weights than its engine alone."""
    return any(
        (told := record.about.get(server.name, {}).get("model", {}).get("version"))
        and told != record.engines.get(server.engine, {}).get("version", told)
        for server in record.servers
    )


def targets_table(rows: list[Row]) -> str:
    """The issue's table, with what was reached."""
    lines = ["| | must reach | aim | reached | |", "|---|---|---|---|---|"]
    for row in rows:
        grade = "aim" if row.meets_aim else "must" if row.meets_must else "missed"
        lines.append(f"| {row.what} | {row.must} | {row.aim} | **{row.reached}** | {grade} |")
    return "\n".join(lines)


def servers_table(record: Record) -> str:
    """One line a server."""
    tried = record.concurrencies()
    head = ["Server", *(f"c={c}" for c in tried), "p50, c=1", f"p99, c={BUSY_C}", "Memory", "Cold start"]
    lines = [_line(head), "|---|" + "--:|" * (len(head) - 1)]
    for server in record.measured_servers():
        title = f"**{server.title}**" if server.ours else server.title
        lines.append(_line([
            title,
            *(_said(record.rps(server.name, c), _rate) for c in tried),
            _said(record.latency_ms(server.name, 1, "p50_ms"), ms),
            _said(record.latency_ms(server.name, BUSY_C, "p99_ms"), ms),
            _said(record.memory_mb(server.name), lambda mb: f"{mb:.0f} MB"),
            _said(record.start_s(server.name), lambda s: f"{s:.2f} s"),
        ]))  # fmt: skip
    return "\n".join(lines)


def cells_table(record: Record) -> str:
    """One line for every server and concurrency."""
    head = ["Server", "c", "requests a second", "its rounds", "p50", "p99", "errors", "open at the end", "client"]
    lines = [_line(head), "|---|--:|--:|--:|--:|--:|---|--:|--:|"]
    for server in record.measured_servers():
        lines += [_cell(record, server, c) for c in record.concurrencies() if record.of(server.name, c)]
    return "\n".join(lines)


def _cell(record: Record, server: Described, c: int) -> str:
    measured = record.of(server.name, c)
    rates = [m.per_second for m in measured]
    busiest = max(m.client_cpu for m in measured)
    client = percent(busiest, 0) + (" **the bottleneck**" if busiest > BOTTLENECK else "")
    return _line([
        server.title, str(c), _said(record.rps(server.name, c), _rate), f"{_rate(min(rates))} to {_rate(max(rates))}",
        _said(record.latency_ms(server.name, c, "p50_ms"), ms), _said(record.latency_ms(server.name, c, "p99_ms"), ms),
        _errors(record.errors(server.name, c)), str(max(m.open_at_end for m in measured)), client,
    ])  # fmt: skip


def engines_table(record: Record) -> str:
    """Each engine without a server, over the run: its drift is the machine's."""
    lines = ["| Engine | one picture | pictures a second | in batches of | looks | how |", "|---|--:|--:|--:|--:|---|"]
    for engine, about in record.engines.items():
        looks = [ceiling for ceiling in record.ceilings if ceiling.engine == engine]
        if not looks:
            continue
        single = [look.single_ms for look in looks]
        rates = [look.batch_rps for look in looks]
        form = about.get("details", {}).get("form", "")
        lines.append(_line([
            engine, f"{min(single):.2f} to {max(single):.2f} ms", f"{_rate(min(rates))} to {_rate(max(rates))}",
            str(about["batch"]), str(len(looks)), str(form),
        ]))  # fmt: skip
    return "\n".join(lines)


def _notes(record: Record) -> str:
    """What a reader of the targets has to know."""
    best = best_torch_peer(record)
    title = next((s.title for s in record.servers if s.name == best), None)
    notes = [
        "Ratios are medians of the rounds; an engine's raw ceiling is measured right before and right after each visit "
        "to its server." + (f" The best torch peer is {title}." if title else "")
    ]
    torch = record.engines.get("torch", {}).get("libraries", {}).get("torch", "")
    if "+cu" in torch:
        notes.append(f"PyTorch {torch} is the CUDA build, which takes more memory than the CPU build of the clouds.")
    notes += [f"{_title(record, name)}: not measured: {why}." for name, why in record.failures.items()]
    return "\n\n".join(notes)


def _title(record: Record, name: str) -> str:
    return next((s.title for s in record.servers if s.name == name), name)


def _how(record: Record) -> str:
    plan, machine, images = record.plan, record.machine, record.images
    pictures = f"{images.get('n', 0)} pictures ({images.get('source', 'none')})"
    clients = "; ".join(
        f"{_rate(cell.measured.per_second)} a second at c={cell.concurrency}, "
        f"{percent(cell.measured.client_cpu, 0)} of its core"
        for cell in record.client
    )
    lines = [
        f"- `{record.command}`, {moment(record.begun_at)}, {record.took_s / 60:.1f} minutes.",
        f"- {processor(record).with_cores}: the server and all its processes kept to core "
        f"{record.cores['server']}, the client to core {record.cores['client']}. {machine['os']}.",
        f"- {', '.join(f'{name} {version}' for name, version in record.versions.items())}.",
        f"- {pictures}, the same for all, over connections that stay open; the label of every answer is checked. A 503 "
        "is asked again after its Retry-After, at most a second later.",
        f"- {plural(plan['rounds'], 'round')} of {plan['window_s']:g} s a cell, after {plan['warmup_s']:g} s of "
        "warm-up, the servers in an order drawn anew for each round.",
        f"- Client alone, against a server that does nothing: {clients}.",
        *(f"- {server.title}: {server.how}." for server in record.servers),
    ]
    return "\n".join(lines)


def _errors(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(errors.items())) or "none"


def _said(value: float | None, text: Callable[[float], str]) -> str:
    return NONE if value is None else text(value)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else significant(value)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
