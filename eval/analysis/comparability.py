"""Whether two runs measured the same thing in the same way, so that a difference between them means something."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eval.formatting import listing, short_hash
from eval.samples.model import Run, Sample
from eval.samples.processors import client_of, differ, target_of
from eval.targets.engines import engine_of

# Options of a run that shape its load, and the scenarios that they shape; where there are none, every scenario.
LOAD: Mapping[str, tuple[str, ...]] = {
    "rate_rps": ("poisson", "ramp"),
    "burst": ("burst",),
    "gap_s": ("idle",),
    "slo_ms": ("max_rate",),
    "in_flight": ("poisson", "ramp", "max_rate"),
    "fresh": (),
    "timeout_s": (),
}
APART = ("floor", "reference")  # scenarios that every run has, or that are no target's

Models = Mapping[str, str]  # target -> versions that answered


def unlike(a: Run, b: Run, models_a: Models, models_b: Models) -> list[str]:
    """Every difference that makes a comparison of the two doubtful, one line each; none when they are alike."""
    return [*_pictures(a, b), *_scenarios(a, b), *_targets(a, b), *_models(models_a, models_b), *_load(a, b),
            *_machine(a, b)]  # fmt: skip


def common_targets(a: Run, b: Run) -> list[str]:
    """Names that both have, in the order of the first."""
    names = {t.name for t in b.targets}
    return [t.name for t in a.targets if t.name in names]


def common_scenarios(a: Run, b: Run) -> list[str]:
    """Those that both tried, in the order of the first."""
    return [name for name in a.scenarios if name in b.scenarios]


def models(samples: Iterable[Sample]) -> dict[str, str]:
    """Target -> the model versions that answered."""
    seen: dict[str, set[str]] = {}
    for sample in samples:
        if sample.model_version and sample.scenario not in APART:
            seen.setdefault(sample.target, set()).add(sample.model_version)
    return {target: ", ".join(sorted(versions)) for target, versions in seen.items()}


def _pictures(a: Run, b: Run) -> list[str]:
    if a.images_sha256 == b.images_sha256:
        return []
    return [f"the images differ: {_set(a)}, and {_set(b)}"]


def _set(run: Run) -> str:
    return f"{run.images_source} ({len(run.images):,}, sha256 {short_hash(run.images_sha256)})"


def _scenarios(a: Run, b: Run) -> list[str]:
    if set(a.scenarios) == set(b.scenarios):
        return []
    return [f"the scenarios differ: {listing(a.scenarios)}, and {listing(b.scenarios)}"]


def _targets(a: Run, b: Run) -> list[str]:
    names_a, names_b = [t.name for t in a.targets], [t.name for t in b.targets]
    lines = []
    if set(names_a) != set(names_b):
        lines.append(f"the targets differ: {listing(names_a)}, and {listing(names_b)}")
    of_a, of_b = ({t.name: t for t in run.targets} for run in (a, b))
    for name in common_targets(a, b):
        first, second = of_a[name], of_b[name]
        if first.twin != second.twin:
            lines.append(f"{name} is {_place(first.twin)}, and {_place(second.twin)}")
        if first.target != second.target:
            lines.append(f"{name} is priced as {first.target or 'nothing'}, and as {second.target or 'nothing'}")
        engines = engine_of(first), engine_of(second)
        if all(engines) and engines[0] != engines[1]:
            lines.append(f"{name} ran {engines[0]}, and {engines[1]}")
        if first.twin and second.twin and first.cpus != second.cpus:
            lines.append(f"{name} had {first.cpus} cores, and {second.cpus}")
    return lines


def _place(twin: bool) -> str:
    return "a local twin" if twin else "in the cloud"


def _models(a: Models, b: Models) -> list[str]:
    changed: dict[tuple[str, str], list[str]] = {}
    for name in a.keys() & b.keys():
        if a[name] != b[name]:
            changed.setdefault((a[name], b[name]), []).append(name)
    return [
        f"the model of {listing(sorted(names))} differs: {old}, and {new}"
        for (old, new), names in sorted(changed.items())
    ]


def _load(a: Run, b: Run) -> list[str]:
    """Options that shape the load. A run of before they were kept has none to compare."""
    shared = set(common_scenarios(a, b))
    return [
        f"{option} differs: {_value(a.config[option])}, and {_value(b.config[option])}"
        for option, of in LOAD.items()
        if option in a.config and option in b.config and a.config[option] != b.config[option]
        and (not of or shared.intersection(of))
    ]  # fmt: skip


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _machine(a: Run, b: Run) -> list[str]:
    """The client's machine; the twins run on it as well."""
    lines = []
    first, second = client_of(a), client_of(b)
    if differ(first, second):
        twins = any(t.twin for run in (a, b) for t in run.targets)
        rule = "; latencies, rates and costs of twins cannot be compared, accuracy can" if twins else ""
        lines.append(f"the client's processor differs: {first}, and {second}{rule}")
    if first.cores and second.cores and first.cores != second.cores:
        lines.append(f"the client's number of cores differs: {first.cores}, and {second.cores}")
    return lines


def processor_notes(a: Run, b: Run) -> list[str]:
    """Processors that may be unlike, where that makes no run unlike: clouds change theirs, older runs lack them."""
    of_a, of_b = ({t.name: t for t in run.targets} for run in (a, b))
    pairs = {"the client": (client_of(a), client_of(b))} | {
        name: (target_of(a, of_a[name]), target_of(b, of_b[name]))
        for name in common_targets(a, b)
        if not (of_a[name].twin or of_b[name].twin)
    }
    told: dict[tuple[str, str, bool], list[str]] = {}
    for name, (first, second) in pairs.items():
        unlike = differ(first, second)
        known = first.cpu_model or second.cpu_model  # endpoints of other people need not tell theirs
        if (unlike is None and known) or (unlike and name in of_a):
            told.setdefault((str(first), str(second), bool(unlike)), []).append(name)
    return [
        f"{listing(names)} ran on {first}, and on {second}: that alone may change latencies"
        if unlike
        else f"whether {listing(names)} ran on like processors is not known: {first}, and {second}"
        for (first, second, unlike), names in told.items()
    ]


def notes(runs: Sequence[tuple[str, Run]]) -> list[str]:
    """What a reader has to know of each run, though it does not make them unlike."""
    lines = [f"{name} is not complete: {run.note or 'interrupted, or still running'}"
             for name, run in runs if not run.complete]  # fmt: skip
    (_, a), (_, b) = runs
    lines += processor_notes(a, b)
    shared = a.versions.keys() & b.versions.keys()
    changed = [f"{key} {_version(a, key)} -> {_version(b, key)}" for key in sorted(shared)
               if a.versions[key] != b.versions[key]]  # fmt: skip
    return lines + ([f"versions of the client changed: {', '.join(changed)}"] if changed else [])


def _version(run: Run, key: str) -> str:
    return run.versions[key][:12]
