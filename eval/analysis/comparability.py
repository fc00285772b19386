"""Whether two runs measured the same thing in the same way, so that a difference between them means something."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eval.formatting import join_words, short_hash
from eval.samples.model import Run, Sample
from eval.samples.processors import client_processor, processors_differ, target_processor
from eval.targets.engines import engine_of

# Options of a run that shape its load, and the scenarios that they shape; where there are none, every scenario.
LOAD_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "rate_rps": ("poisson", "ramp"),
    "burst": ("burst",),
    "gap_s": ("idle",),
    "slo_ms": ("max_rate",),
    "max_in_flight": ("poisson", "ramp", "max_rate"),
    "fresh": (),
    "timeout_s": (),
}
NON_TARGET_SCENARIOS = ("floor", "reference")  # scenarios that every run has, or that are no target's

ModelVersions = Mapping[str, str]  # target -> versions that answered


def incompatibilities(a: Run, b: Run, models_a: ModelVersions, models_b: ModelVersions) -> list[str]:
    """Every difference that makes a comparison of the two doubtful, one line each; none when they are alike."""
    return [
        *_image_differences(a, b),
        *_scenario_differences(a, b),
        *_target_differences(a, b),
        *_model_differences(models_a, models_b),
        *_load_differences(a, b),
        *_client_differences(a, b),
    ]


def common_targets(a: Run, b: Run) -> list[str]:
    """Names that both have, in the order of the first."""
    names = {t.name for t in b.targets}
    return [t.name for t in a.targets if t.name in names]


def common_scenarios(a: Run, b: Run) -> list[str]:
    """Those that both tried, in the order of the first."""
    return [name for name in a.scenarios if name in b.scenarios]


def models_by_target(samples: Iterable[Sample]) -> dict[str, str]:
    """Target -> the model versions that answered."""
    versions_by_target: dict[str, set[str]] = {}
    for sample in samples:
        if sample.model_version and sample.scenario not in NON_TARGET_SCENARIOS:
            versions_by_target.setdefault(sample.target, set()).add(sample.model_version)
    return {target: ", ".join(sorted(versions)) for target, versions in versions_by_target.items()}


def _image_differences(a: Run, b: Run) -> list[str]:
    if a.images_sha256 == b.images_sha256:
        return []
    return [f"the images differ: {_describe_images(a)}, and {_describe_images(b)}"]


def _describe_images(run: Run) -> str:
    return f"{run.images_source} ({len(run.image_manifest):,}, sha256 {short_hash(run.images_sha256)})"


def _scenario_differences(a: Run, b: Run) -> list[str]:
    if set(a.scenarios) == set(b.scenarios):
        return []
    return [f"the scenarios differ: {join_words(a.scenarios)}, and {join_words(b.scenarios)}"]


def _target_differences(a: Run, b: Run) -> list[str]:
    names_a, names_b = [t.name for t in a.targets], [t.name for t in b.targets]
    lines = []
    if set(names_a) != set(names_b):
        lines.append(f"the targets differ: {join_words(names_a)}, and {join_words(names_b)}")
    targets_a, targets_b = ({t.name: t for t in run.targets} for run in (a, b))
    for name in common_targets(a, b):
        first, second = targets_a[name], targets_b[name]
        if first.twin != second.twin:
            lines.append(f"{name} is {_location(first.twin)}, and {_location(second.twin)}")
        if first.target != second.target:
            lines.append(f"{name} is priced as {first.target or 'nothing'}, and as {second.target or 'nothing'}")
        engines = engine_of(first), engine_of(second)
        if all(engines) and engines[0] != engines[1]:
            lines.append(f"{name} ran {engines[0]}, and {engines[1]}")
        if first.twin and second.twin and first.cpus != second.cpus:
            lines.append(f"{name} had {first.cpus} cores, and {second.cpus}")
    return lines


def _location(twin: bool) -> str:
    return "a local twin" if twin else "in the cloud"


def _model_differences(a: ModelVersions, b: ModelVersions) -> list[str]:
    changed: dict[tuple[str, str], list[str]] = {}
    for name in a.keys() & b.keys():
        if a[name] != b[name]:
            changed.setdefault((a[name], b[name]), []).append(name)
    return [
        f"the model of {join_words(sorted(names))} differs: {old}, and {new}"
        for (old, new), names in sorted(changed.items())
    ]


def _load_differences(a: Run, b: Run) -> list[str]:
    """Options that shape the load. A run of before they were kept has none to compare."""
    common = set(common_scenarios(a, b))
    return [
        f"{option} differs: {_format_option(a.config[option])}, and {_format_option(b.config[option])}"
        for option, scenarios in LOAD_OPTIONS.items()
        if option in a.config
        and option in b.config
        and a.config[option] != b.config[option]
        and (not scenarios or common.intersection(scenarios))
    ]


def _format_option(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _client_differences(a: Run, b: Run) -> list[str]:
    """The client's machine; the twins run on it as well."""
    lines = []
    first, second = client_processor(a), client_processor(b)
    if processors_differ(first, second):
        any_twin = any(t.twin for run in (a, b) for t in run.targets)
        consequence = "; latencies, rates and costs of twins cannot be compared, accuracy can" if any_twin else ""
        lines.append(f"the client's processor differs: {first}, and {second}{consequence}")
    if first.cores and second.cores and first.cores != second.cores:
        lines.append(f"the client's number of cores differs: {first.cores}, and {second.cores}")
    return lines


def processor_notices(a: Run, b: Run) -> list[str]:
    """Processors that may be unlike, where that makes no run unlike: clouds change theirs, older runs lack them."""
    targets_a, targets_b = ({t.name: t for t in run.targets} for run in (a, b))
    pairs = {"the client": (client_processor(a), client_processor(b))} | {
        name: (target_processor(a, targets_a[name]), target_processor(b, targets_b[name]))
        for name in common_targets(a, b)
        if not (targets_a[name].twin or targets_b[name].twin)
    }
    targets_by_difference: dict[tuple[str, str, bool], list[str]] = {}
    for name, (first, second) in pairs.items():
        differs = processors_differ(first, second)
        any_recorded = first.cpu_model or second.cpu_model  # endpoints of other people need not tell theirs
        if (differs is None and any_recorded) or (differs and name in targets_a):
            targets_by_difference.setdefault((str(first), str(second), bool(differs)), []).append(name)
    return [
        f"{join_words(names)} ran on {first}, and on {second}: that alone may change latencies"
        if differs
        else f"whether {join_words(names)} ran on like processors is not known: {first}, and {second}"
        for (first, second, differs), names in targets_by_difference.items()
    ]


def notices(runs: Sequence[tuple[str, Run]]) -> list[str]:
    """What a reader has to know of each run, though it does not make them unlike."""
    lines = [
        f"{name} is not complete: {run.incomplete_reason or 'interrupted, or still running'}"
        for name, run in runs
        if not run.complete
    ]
    (_, a), (_, b) = runs
    lines += processor_notices(a, b)
    common_libraries = a.versions.keys() & b.versions.keys()
    changed_versions = [
        f"{key} {_short_version(a, key)} -> {_short_version(b, key)}"
        for key in sorted(common_libraries)
        if a.versions[key] != b.versions[key]
    ]
    return lines + ([f"versions of the client changed: {', '.join(changed_versions)}"] if changed_versions else [])


def _short_version(run: Run, key: str) -> str:
    return run.versions[key][:12]
