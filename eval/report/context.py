"""What the report's templates need beside the summary: plots, groups of equals, mistakes, shares of time.

Pure: takes a run, its samples and its summary, gives plain records.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from markupsafe import Markup

from eval.analysis.latency import at_work
from eval.plan.config import FLOOR
from eval.report import figures, scenario_sections
from eval.report.engine_table import Row, break_evens, headline, switch_rows, titles_of
from eval.report.plots.style import numbers
from eval.report.scenario_sections import Audit, Scene, Start
from eval.samples.model import REFERENCE, Run, Sample
from eval.samples.processors import client_of, target_of
from eval.targets.engines import REFERENCE_ENGINE

MISTAKES_SHOWN = 12
INCOMPLETE = "the run is not complete"  # how that warning begins
INVALID = "not a valid comparison: "  # how those begin that make the run's figures no comparison of targets
PARTS = (  # of a request's time, in the order in which it is spent
    ("lateness", "late send"),
    ("decode", "decode"),
    ("queue", "queue"),
    ("inference", "inference"),
    ("server", "rest of the service"),
    ("outside", "server, proxy, network"),
)
SIGNATURES = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpeg"), (b"GIF8", "gif"), (b"BM", "bmp"), (b"RIFF", "webp"))

Summary = Mapping[str, Any]
ImageBytes = Callable[[int], bytes | None]


@dataclass(frozen=True)
class Group:
    """Targets that answered alike, and what they share."""

    titles: list[str]
    value: Any


@dataclass(frozen=True)
class Answer:
    """A wrong label and who gave it."""

    label: str
    probability: float | None  # the largest among those who gave it
    titles: list[str]


@dataclass(frozen=True)
class Mistake:
    """A picture that at least one target got wrong."""

    image: int
    name: str
    truth: str
    answers: list[Answer]
    picture: str | None  # data URI


@dataclass(frozen=True)
class View:
    """Everything the templates draw that is not in the summary."""

    colours: dict[str, int]  # target -> its number, of which colour and lines follow
    scenes: list[Scene]  # the scenarios that were tried, in their order
    latency_plots: dict[str, Markup]  # by scenario
    rate_plot: Markup | None
    course_plots: dict[str, Markup]  # by scenario
    pareto_plot: Markup | None
    cost_plot: Markup | None
    accuracy_plot: Markup | None
    calibration_plot: Markup | None
    parts: dict[str, dict[str, float]]  # target -> part -> mean ms
    confusion: list[Group]
    per_class: list[Group]
    mistakes: list[Mistake]
    mistakes_total: int
    error_kinds: list[str]
    parity_names: list[str]  # the rows and columns of the matrix
    titles: dict[str, str]  # target -> how people write it, the reference included
    what: dict[str, str]  # target -> kind, size and region in a line
    main_latency: dict[str, Mapping[str, Any] | None]  # target -> percentiles of its first scenario
    longest_mean_ms: float  # the longest bar
    phases: list[str]  # of the start-up, in the order in which they come
    measured_names: list[str]  # of the figures behind the costs
    assumed_by_all: list[str]
    assumed: dict[str, list[str]]  # target -> what is assumed for it beside that
    starts: dict[str, list[Start]]  # forced and natural cold starts, as bars
    cold_phases: dict[str, list[str]]  # of the kinds of start that were tried
    audits: list[Audit]  # for a cache of answers
    switch_rows: list[Row]  # what the switch of engines is worth
    switch_from_to: str
    break_even: tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]  # between targets of one engine; the others
    engine: dict[str, str]  # target -> what it answered with; the reference included
    network: dict[str, tuple[str, Mapping[str, Any]] | None]  # target -> scenario that opened most connections
    invalid: list[str]  # warnings for which the run is no comparison, and how to do better
    warnings: list[str]  # the others, but for the one that says what the banner says
    sent: int  # measured requests, failures included
    at_work: int  # those of them that were not sent to overload a target
    command: str
    client: str  # the processor of whoever sent the requests
    processors: dict[str, str]  # target -> its own, where it did not run on the client's machine

    @property
    def engines(self) -> list[str]:
        """Of the targets, each once."""
        return list(dict.fromkeys(engine for name, engine in self.engine.items() if name != REFERENCE))

    def may_differ(self, a: str, b: str) -> bool:
        """Whether different answers of these two are no fault."""
        return self.engine[a] != self.engine[b]


def view(run: Run, samples: Sequence[Sample], summary: Summary, image_bytes: ImageBytes) -> View:
    """Draw and group what the page shows."""
    measured = [s for s in samples if s.phase == "measure" and s.target != REFERENCE and s.scenario != FLOOR]
    work = at_work(measured)
    targets = summary["targets"]
    colours = numbers(targets, {one["b"]: one["a"] for one in summary["engines"]})
    mistakes = _mistakes(run, work, targets)
    parts = _mean_parts(scenario_sections.main_scenario(measured))
    by_all = _assumed_by_all(targets)
    return View(
        colours=colours,
        scenes=scenario_sections.scenes(run, targets),
        latency_plots=figures.latency_plots(measured, targets, colours),
        rate_plot=figures.rate_plot(targets, colours, summary["verdict"]["slo"]["p95_ms"]),
        course_plots=figures.course_plots(measured, targets, colours),
        pareto_plot=figures.pareto_plot(summary, colours),
        cost_plot=figures.cost_plot(summary, colours),
        accuracy_plot=figures.accuracy_plot(targets, colours),
        calibration_plot=figures.calibration_plot(run, work, targets, colours),
        parts=parts,
        confusion=_groups(targets, "confusion"),
        per_class=_groups(targets, "per_class"),
        mistakes=[_with_picture(run, m, image_bytes) for m in mistakes[:MISTAKES_SHOWN]],
        mistakes_total=len(mistakes),
        error_kinds=sorted({kind for facts in targets.values() for kind in facts["errors"]}),
        parity_names=_parity_names(summary),
        titles={name: facts["title"] for name, facts in targets.items()} | {REFERENCE: REFERENCE},
        what={name: _what(facts) for name, facts in targets.items()},
        main_latency={name: _main_latency(facts) for name, facts in targets.items()},
        longest_mean_ms=max((sum(one.values()) for one in parts.values()), default=0.0),
        phases=_ordered(facts["startup_phases_ms"] for facts in targets.values()),
        measured_names=_ordered(facts["cost"]["measured"] for facts in targets.values()),
        assumed_by_all=by_all,
        assumed={n: [line for line in f["cost"]["assumed"] if line not in by_all] for n, f in targets.items()},
        starts=scenario_sections.starts(targets),
        cold_phases=scenario_sections.cold_phases(targets),
        audits=scenario_sections.audits(targets),
        switch_rows=switch_rows(summary["engines"]),
        switch_from_to=headline(summary["engines"]),
        break_even=break_evens(summary),
        engine={n: facts["engine"] or REFERENCE_ENGINE for n, facts in targets.items()} | {REFERENCE: REFERENCE_ENGINE},
        network=scenario_sections.network(targets),
        invalid=[w.removeprefix(INVALID) for w in summary["run"]["warnings"] if w.startswith(INVALID)],
        warnings=[w for w in summary["run"]["warnings"] if not w.startswith((INCOMPLETE, INVALID))],
        sent=len(measured),
        at_work=len(work),
        command=shlex.join(as_typed(run.command)),
        client=client_of(run).with_cores,
        processors=_other_processors(run),
    )


def _other_processors(run: Run) -> dict[str, str]:
    """Of the targets that did not run on the client's machine, as their /version told it."""
    return {t.name: target_of(run, t).with_cores for t in run.targets if not t.twin}


def as_typed(command: list[str]) -> list[str]:
    """A run's command line as it is typed now: runs of before ./cloudtrial hold `python -m eval ...`."""
    return ["./cloudtrial", *command[3:]] if command[:3] == ["python", "-m", "eval"] else command


def cell(parity: Mapping[str, Any], a: str, b: str) -> Mapping[str, Any] | None:
    """The comparison of two targets, whichever way round it is stored."""
    return parity.get(f"{a}|{b}") or parity.get(f"{b}|{a}")


def _mean_parts(samples: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """Where the mean request's time went. Means, because they add up to the mean latency; percentiles do not."""
    spent: dict[str, list[dict[str, float]]] = defaultdict(list)
    for s in samples:
        if s.error is None and "total" in s.server_ms:
            inside = {part: s.server_ms.get(part, 0.0) for part in ("decode", "queue", "inference")}
            rest = max(0.0, s.server_ms["total"] - sum(inside.values()))
            outside = max(0.0, s.service_ms - s.server_ms["total"])
            spent[s.target].append({"lateness": s.lateness_ms, **inside, "server": rest, "outside": outside})
    return {name: {part: fmean(one[part] for one in all_) for part, _ in PARTS} for name, all_ in spent.items()}


def _groups(targets: Mapping[str, Any], key: str) -> list[Group]:
    """Targets whose `key` is the same, together; those that have none are left out."""
    groups: list[tuple[Any, list[str]]] = []
    for name, facts in targets.items():
        value = facts.get(key)
        if not value or isinstance(value, Mapping):
            continue
        same = next((names for known, names in groups if known == value), None)
        if same:
            same.append(name)
        else:
            groups.append((value, [name]))
    return [Group(titles_of(names, targets), value) for value, names in groups]


def _mistakes(run: Run, samples: Iterable[Sample], targets: Mapping[str, Any]) -> list[Mistake]:
    """Every picture that somebody got wrong: those on which targets differ first, then the surest mistakes."""
    answers: dict[int, dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    asked: dict[int, set[str]] = defaultdict(set)
    for s in samples:
        if s.error is None and s.label is not None:
            asked[s.image].add(s.target)
            if s.label != run.images[s.image].label:
                answers[s.image][s.label].append(s)

    def key(image: int) -> tuple:
        everyone = len(answers[image]) == 1 and {s.target for s in next(iter(answers[image].values()))} == asked[image]
        return everyone, -max(_confidence(s) or 0 for given in answers[image].values() for s in given), image

    return [_mistake(run, image, answers[image], targets) for image in sorted(answers, key=key)]


def _mistake(run: Run, image: int, answers: Mapping[int, list[Sample]], targets: Mapping[str, Any]) -> Mistake:
    entry = run.images[image]
    given = []
    for label, samples in sorted(answers.items()):
        names = {s.target for s in samples}
        titles = titles_of([name for name in targets if name in names], targets)
        given.append(Answer(run.classes[label], max((_confidence(s) or 0 for s in samples), default=None), titles))
    return Mistake(image, entry.name, run.classes[entry.label], given, picture=None)


def _confidence(sample: Sample) -> float | None:
    return max(sample.probabilities) if sample.probabilities else None


def _with_picture(run: Run, mistake: Mistake, image_bytes: ImageBytes) -> Mistake:
    """The mistake with its picture, if its bytes can be had and are the ones that were posted."""
    data = image_bytes(mistake.image)
    if data is None or hashlib.sha256(data).hexdigest() != run.images[mistake.image].sha256:
        return mistake
    kind = next((kind for start, kind in SIGNATURES if data.startswith(start)), None)
    if kind is None:
        return mistake
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Mistake(mistake.image, mistake.name, mistake.truth, mistake.answers, uri)


def _parity_names(summary: Summary) -> list[str]:
    """Targets that were compared with any other, the reference last."""
    compared = {name for pair in summary["parity"] for name in pair.split("|")}
    return [name for name in (*summary["targets"], REFERENCE) if name in compared]


def _what(facts: Mapping[str, Any]) -> str:
    """Kind, size and region, or the address of an endpoint of which no more is known."""
    known = [str(facts[key]) for key in ("kind", "size", "region") if facts.get(key)]
    return ", ".join(known) or str(facts["url"])


def _main_latency(facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((one["latency_ms"] for one in facts["scenarios"].values()), None)


def _ordered(namings: Iterable[Iterable[str]]) -> list[str]:
    """Every name once, in the order in which they first come."""
    return list(dict.fromkeys(name for names in namings for name in names))


def _assumed_by_all(targets: Mapping[str, Any]) -> list[str]:
    """What is assumed for every target that has a price."""
    lists = [facts["cost"]["assumed"] for facts in targets.values() if facts["cost"]["assumed"]]
    return [line for line in lists[0] if all(line in other for other in lists)] if len(lists) > 1 else []
