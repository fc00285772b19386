"""Whether two runs measured the same thing in the same way, so that a difference between them means something."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from eval.analysis.findings import Finding, FindingCode, invalid, notice
from eval.plan.config import OPEN_LOOPS
from eval.samples.model import Run, Sample, TargetRun
from eval.samples.processors import Processor, client_processor, processors_differ, target_processor
from eval.targets.engines import engine_of

# Options of a run that shape its load or its bills, and the scenarios that they shape; where there are none, all.
LOAD_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "rate_rps": ("poisson", "ramp"),
    "burst": ("burst",),
    "gap_s": ("idle",),
    "slo_ms": ("max_rate",),
    "in_flight": ("poisson", "ramp", "max_rate"),
    "fresh": (),
    "timeout_s": (),
    "peak": (),
}
NON_TARGET_SCENARIOS = ("baseline_rtt", "reference")  # scenarios that every run has, or that are no target's

ModelVersions = Mapping[str, str]  # target -> versions in its responses


def incompatibilities(
    a: Run,
    b: Run,
    models_a: ModelVersions,
    models_b: ModelVersions,
    paired: Collection[str] = (),
) -> list[Finding]:
    """Every difference that makes a comparison of the two doubtful; none when they are alike.

    paired: targets that were chosen to be compared, so their engines may differ, their models, and all other targets.
    """
    of_targets = [
        finding
        for finding in _target_differences(a, b)
        if finding.code != FindingCode.ENGINE_DIFFERS or finding.target not in paired
    ]
    same_model = {name: model for name, model in models_a.items() if name not in paired}
    return [
        *_image_differences(a, b),
        *_scenario_differences(a, b),
        *([] if paired else _set_of_targets_differs(a, b)),
        *of_targets,
        *_model_differences(same_model, models_b),
        *_load_differences(a, b),
        *_client_differences(a, b),
    ]


def common_targets(a: Run, b: Run) -> list[str]:
    """Names that both have, in the order of the first."""
    names = {t.name for t in b.targets}
    return [t.name for t in a.targets if t.name in names]


def possible_pairs(a: Run, b: Run) -> list[tuple[str, str]]:
    """Of targets that differ in the engine only."""
    return [
        (first.name, second.name)
        for first in a.targets
        for second in b.targets
        if first.target and (first.target, first.twin) == (second.target, second.twin)
    ]


def common_scenarios(a: Run, b: Run) -> list[str]:
    """Those that both ran, in the order of the first."""
    return [name for name in a.scenarios if name in b.scenarios]


def models_by_target(samples: Iterable[Sample]) -> dict[str, str]:
    """Target -> the model versions in its responses."""
    versions_by_target: dict[str, set[str]] = {}
    for sample in samples:
        if sample.model_version and sample.scenario not in NON_TARGET_SCENARIOS:
            versions_by_target.setdefault(sample.target, set()).add(sample.model_version)
    return {target: ", ".join(sorted(versions)) for target, versions in versions_by_target.items()}


def _image_differences(a: Run, b: Run) -> list[Finding]:
    if a.images_sha256 == b.images_sha256:
        return []
    images_a, images_b = (
        {"source": run.images_source, "n": len(run.image_manifest), "sha256": run.images_sha256} for run in (a, b)
    )
    return [invalid(FindingCode.IMAGES_DIFFER, a=images_a, b=images_b)]


def _scenario_differences(a: Run, b: Run) -> list[Finding]:
    if set(a.scenarios) == set(b.scenarios):
        return []
    return [invalid(FindingCode.SCENARIOS_DIFFER, a=a.scenarios, b=b.scenarios)]


def _set_of_targets_differs(a: Run, b: Run) -> list[Finding]:
    names_a, names_b = [t.name for t in a.targets], [t.name for t in b.targets]
    return [] if set(names_a) == set(names_b) else [invalid(FindingCode.TARGETS_DIFFER, a=names_a, b=names_b)]


def _priced_as(target_run: TargetRun) -> str | None:
    """As `--priced-as` has it."""
    return f"{target_run.target}:{target_run.size}" if target_run.size else target_run.target


def _target_differences(a: Run, b: Run) -> list[Finding]:
    findings = []
    targets_a, targets_b = ({t.name: t for t in run.targets} for run in (a, b))
    for name in common_targets(a, b):
        first, second = targets_a[name], targets_b[name]
        engine_a, engine_b = engine_of(first), engine_of(second)
        cpus_a, cpus_b = (first.cpus, second.cpus) if first.twin and second.twin else (None, None)
        differences = {
            FindingCode.LOCATION_DIFFERS: (first.twin, second.twin),
            FindingCode.PRICED_TARGET_DIFFERS: (_priced_as(first), _priced_as(second)),
            FindingCode.ENGINE_DIFFERS: (engine_a or engine_b, engine_b or engine_a),
            FindingCode.CPUS_DIFFER: (cpus_a or cpus_b, cpus_b or cpus_a),  # one that did not start has none
        }
        findings += [
            invalid(code, name, a=value_a, b=value_b)
            for code, (value_a, value_b) in differences.items()
            if value_a != value_b
        ]
    return findings


def _model_differences(a: ModelVersions, b: ModelVersions) -> list[Finding]:
    changed: dict[tuple[str, str], list[str]] = {}
    for name in a.keys() & b.keys():
        if a[name] != b[name]:
            changed.setdefault((a[name], b[name]), []).append(name)
    return [
        invalid(FindingCode.MODEL_DIFFERS, names=sorted(names), a=old, b=new)
        for (old, new), names in sorted(changed.items())
    ]


def _load_differences(a: Run, b: Run) -> list[Finding]:
    """Options that shape the load. Older runs that do not have them cannot be compared in them."""
    common = set(common_scenarios(a, b))
    return [
        invalid(FindingCode.LOAD_OPTION_DIFFERS, option=option, a=a.config[option], b=b.config[option])
        for option, scenarios in LOAD_OPTIONS.items()
        if option in a.config
        and option in b.config
        and a.config[option] != b.config[option]
        and (not scenarios or common.intersection(scenarios))
    ] + _sender_differences(a, b, common)


def _sender_differences(a: Run, b: Run, common: Collection[str]) -> list[Finding]:
    """Open loops may have come from other places."""
    of_a, of_b = (", ".join(sorted({sender.name for sender in run.senders})) or "none" for run in (a, b))
    if of_a == of_b or not OPEN_LOOPS.intersection(common):
        return []
    return [invalid(FindingCode.LOAD_OPTION_DIFFERS, option="cluster", a=of_a, b=of_b)]


def _client_differences(a: Run, b: Run) -> list[Finding]:
    """The client's machine; the twins run on it as well."""
    findings = []
    first, second = client_processor(a), client_processor(b)
    if processors_differ(first, second):
        any_twin = any(t.twin for run in (a, b) for t in run.targets)
        findings.append(invalid(FindingCode.CLIENT_PROCESSOR_DIFFERS, a=first, b=second, twins=any_twin))
    if first.cores and second.cores and first.cores != second.cores:
        findings.append(invalid(FindingCode.CLIENT_CORES_DIFFER, a=first.cores, b=second.cores))
    return findings


def processor_notices(a: Run, b: Run) -> list[Finding]:
    """Processors that may differ, where that makes no run incompatible: clouds change theirs, older runs lack them."""
    targets_a, targets_b = ({t.name: t for t in run.targets} for run in (a, b))
    pairs = {"the client": (client_processor(a), client_processor(b))} | {
        name: (target_processor(a, targets_a[name]), target_processor(b, targets_b[name]))
        for name in common_targets(a, b)
        if not (targets_a[name].twin or targets_b[name].twin)
    }
    groups: dict[tuple[FindingCode, str, str], tuple[list[str], Processor, Processor]] = {}
    for name, (first, second) in pairs.items():
        differs = processors_differ(first, second)
        any_recorded = first.cpu_model or second.cpu_model  # endpoints of other people need not report theirs
        if (differs is None and any_recorded) or (differs and name in targets_a):
            code = FindingCode.PROCESSOR_DIFFERS if differs else FindingCode.PROCESSOR_NOT_KNOWN
            groups.setdefault((code, str(first), str(second)), ([], first, second))[0].append(name)
    return [notice(code, names=names, a=first, b=second) for (code, _, _), (names, first, second) in groups.items()]


def notices(runs: Sequence[tuple[str, Run]]) -> list[Finding]:
    """What a reader has to know of each run, though it does not make them incompatible."""
    findings = [
        notice(FindingCode.COMPARED_RUN_INCOMPLETE, run=letter, note=run.incomplete_reason)
        for letter, run in runs
        if not run.complete
    ]
    (_, a), (_, b) = runs
    findings += processor_notices(a, b)
    changes = {
        name: (a.versions[name][:12], b.versions[name][:12])
        for name in sorted(a.versions.keys() & b.versions.keys())
        if a.versions[name] != b.versions[name]
    }
    return findings + ([notice(FindingCode.CLIENT_VERSIONS_DIFFER, changes=changes)] if changes else [])
