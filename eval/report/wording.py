"""Every sentence for what analysis finds: one template or function for each code, which needs only the code's values.

A template's format names a function of FORMATTERS, as in "{p95_ms:ms}". The answer, which joins many facts, is made in
answer.py.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from eval import formatting
from eval.analysis.findings import Finding, FindingCode
from eval.analysis.predictions.mcnemar import NonInferiority
from eval.codes import AssumptionCode, Code, DriftCode, ReasonCode, Statement
from eval.formatting import count, join_words, percent, plural
from eval.samples.model import IMAGE, RUNNING, TABULAR
from eval.samples.processors import Processor
from service.engines.names import engine_title

STILL_RUNNING = "still running, or killed"  # of a run that is not complete and does not say why
MEASURED_RATE = "the highest rate that one was measured to serve with its latency within the objective"
MEASURED_FROM = (
    "One at a time, latency is measured from sending to the end of the answer; in a stream from the scheduled send "
    "time (no coordinated omission), with the client's send delay in a column of its own. One at a time, the first "
    "request after a pause, in which other targets had their turn, is in no percentile: its median stands apart."
)
MAX_NAMED = 3  # targets in a remark, and remarks of one kind
TITLE_PLACE = "\0"  # of a target's title, in a message that is compared with others
CUDA_BUILD_NOTE = "; PyTorch's CUDA build ran here, the clouds install the much smaller CPU build"

NOUNS = {IMAGE: "image", TABULAR: "row"}  # what a run posts
IMAGE_WORD = re.compile(r"(?<!container )\b([Ii])mage(?=s?\b)")


def incomplete_text(note: str | None) -> str:
    """Why a run is not complete."""
    return STILL_RUNNING if not note or note == RUNNING else note


def message(statement: Statement) -> str:
    """The sentence for a finding, a reason or an assumption, without a capital and a full stop."""
    wording = WORDING[statement.code]
    values = dict(statement.values)
    if isinstance(statement, Finding):
        values["target"] = statement.target
    if isinstance(wording, str):
        return _TEMPLATES.vformat(wording, (), values)
    return wording(**statement.values)


def in_words_of(kind: str, text: str) -> str:
    """One of our texts, whose images are called rows where the run has rows; container images stay what they are."""
    return text if kind == IMAGE else IMAGE_WORD.sub(lambda match: "Row" if match[1] == "I" else "row", text)


def gathered(findings: Iterable[Finding]) -> list[str]:
    """One message for each code. Targets of which the same is said are named together; of others the first are told."""
    by_code: dict[Code, dict[str, list[str]]] = {}
    for finding in findings:
        title = finding.values.get("title", "")
        text = message(replace(finding, values={**finding.values, "title": TITLE_PLACE}) if title else finding)
        by_code.setdefault(finding.code, {}).setdefault(text, []).append(title)
    return [_first_texts(titles_by_text) for titles_by_text in by_code.values()]


def _first_texts(titles_by_text: Mapping[str, Sequence[str]]) -> str:
    texts = [text.replace(TITLE_PLACE, join_words(titles, most=MAX_NAMED)) for text, titles in titles_by_text.items()]
    others = texts[MAX_NAMED:]
    return "; ".join([*texts[:MAX_NAMED], *([f"and {len(others):,} more alike"] if others else [])])


class _TemplateFormatter(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        formatter = FORMATTERS.get(format_spec)
        return formatter(value) if formatter else super().format_field(value, format_spec)


_TEMPLATES = _TemplateFormatter()
FORMATTERS: dict[str, Callable[[Any], str]] = {
    "count": formatting.count,
    "hash": formatting.short_hash,
    "location": lambda twin: "a local twin" if twin else "in the cloud",
    "message": message,
    "mib": formatting.mib,
    "ms": formatting.ms,
    "or_nothing": lambda name: name or "nothing",
    "percent": lambda fraction: f"{fraction:.0%}",
    "rate": formatting.per_second,
    "short_count": formatting.short_count,
    "words": lambda words: join_words(list(words)),
    "all_words": lambda words: join_words(list(words), all_words=True),
}


def instances_line(instances: Mapping[str, Any]) -> str:
    """How many instances of a target were measured, and how much they differ; `instances` as in report.json."""
    spread = instances["spread"]
    if "reason" in spread:
        return spread["reason"]["message"]
    difference = f"{formatting.ms(spread['sd_ms'])} ({formatting.percent(spread['fraction_of_p50'], 1)} of p50)"
    included = "" if instances["in_intervals"] else "; too few for the intervals to include it"
    measured = plural(instances["measured"], "instance")
    return f"{measured}, whose medians have a standard deviation of {difference}{included}"


def starts_title(targets: Iterable[Mapping[str, Any]]) -> str:
    """What the starts of these targets are called: that of a twin is of its process, without a platform."""
    twins = {target["twin"] for target in targets}
    return "Cold starts and service starts" if len(twins) > 1 else "Service starts" if True in twins else "Cold starts"


def what_if_title(name: str) -> str:
    """The title of another assumption under which the bills are made: of `what_if` in report.json."""
    if match := re.fullmatch(r"processor_(\d+)x_slower", name):
        return f"the cloud's processor is {match[1]} times slower"
    return {
        "constant_rate": "no busy hours: the rate is the same all day",
        "new_connections": "a new TLS connection for every request",
    }[name]


def break_even_range(point: Mapping[str, Any]) -> str:
    """Where a break-even point lies over the range of the bills: "4.16M to 15.5M"."""
    low, high = (formatting.short_count(point[f"requests_per_month_{bound}"]) for bound in ("low", "high"))
    text = low if low == high else f"{low} to {high}"
    return f"{text}, or none" if point["may_be_absent"] else text


def _memory_exceeded(title: str, peak_mib: float, limit_mib: float, cuda_build: bool) -> str:
    note = CUDA_BUILD_NOTE if cuda_build else ""
    return f"{title}: took {formatting.mib(peak_mib)} of memory, the target has {formatting.mib(limit_mib)}{note}"


PAUSE_CAUSES = {  # as eval.load.pauses has them: what happened, and what to do
    "suspended": "the machine was suspended: keep it awake",
    "stopped": "it got no processor, or was stopped: keep a core free for it",
    "computing": "it was busy with itself: send at a lower --rate, or from more --workers",
}


def _client_paused(pauses: int, seconds_by_cause: Mapping[str, float], excluded: int) -> str:
    causes = "; ".join(f"{seconds:.1f} s, {PAUSE_CAUSES.get(each, each)}" for each, seconds in seconds_by_cause.items())
    are = "is" if excluded == 1 else "are"
    touched = f"{plural(excluded, 'request')} that this touched {are} left out, and sent again"
    times = f"the client stood still {plural(pauses, 'time')} ({causes})"
    return f"{times}; {touched if excluded else 'no request was touched'}"


def _sent_elsewhere(machines: Sequence[str], processes: int, uncertainty_ms: float) -> str:
    names = join_words(list(machines), most=MAX_NAMED)
    by = "one process" if processes == 1 else f"{count(processes)} processes"
    return (
        f"open loops were sent by {by} on {plural(len(machines), 'other machine')} ({names}): their latency has the "
        f"network from there; the clocks of these were known to {uncertainty_ms:.2g} ms"
    )


def _many_failures(title: str, failed: int, sent: int, errors: Mapping[str, int]) -> str:
    kinds = ", ".join(f"{kind} {count(number)}" for kind, number in errors.items())
    return f"{title}: {count(failed)} of {plural(sent, 'request')} failed ({percent(failed / sent)}): {kinds}"


def _latency_drift(title: str, results_by_scenario: Mapping[str, Statement]) -> str:
    results = "; ".join(f"{scenario}: {message(result)}" for scenario, result in results_by_scenario.items())
    return f"{title} drifted while the run went on ({results})"


def _machine_drift(results_by_scenario: Mapping[str, Statement]) -> str:
    results = "; ".join(f"{scenario}: {message(result)}" for scenario, result in results_by_scenario.items())
    return f"the client's machine or network drifted while the run went on ({results})"


def _predictions_differ(titles: Sequence[str], disagreements: int, n: int, max_agreement: float | None) -> str:
    explanation = "the same model must answer alike everywhere"
    if max_agreement is not None:
        explanation = (
            f"at most {percent(max_agreement)} of such images are answered alike (95% interval), and engines do not "
            "round differently so often: they cannot run the same model"
        )
    return f"{' and '.join(titles)} differ on {formatting.disagreement_text(disagreements, n)}; {explanation}"


def _model_versions_differ(titles_by_version: Mapping[str, Sequence[str]]) -> str:
    groups = "; ".join(f"{version}: {join_words(list(titles))}" for version, titles in titles_by_version.items())
    return f"the models differ ({groups}): deploy one model to all and measure again"


def _search_limited(p99_delay_ms_by_title: Mapping[str, float]) -> str:
    titles = join_words([f"{title} ({formatting.ms(p99_ms)})" for title, p99_ms in p99_delay_ms_by_title.items()])
    return (
        f"in the search for the highest rate the client sent late, at p99, to {titles}: a target alone on its machine "
        "may take more"
    )


def _client_saturated(titles: Sequence[str], max_p99_delay_ms: float, workers: int, cores: int | None) -> str:
    crowded = cores is not None and workers >= max(cores, 2)
    how = f"fewer --workers, as {workers} share {plural(cores or 0, 'core')}" if crowded else "more --workers"
    return (
        f"the client had too little processor time and sent late to {join_words(titles)} (p99 up to"
        f" {max_p99_delay_ms:.1f} ms): send from a machine with free cores, at a lower --rate, or with {how}"
    )


def _late_at_start(p99_delay_ms_by_title: Mapping[str, float], start_s: float) -> str:
    return (
        f"the requests of the first {start_s:g} s of a block were sent late, at p99, to"
        f" {_latest_first(p99_delay_ms_by_title)}, and later ones on time: connections or workers were not ready; keep"
        " a core free for the client, or choose a longer --duration"
    )


def _latest_first(p99_delay_ms_by_title: Mapping[str, float]) -> str:
    latest_first = sorted(p99_delay_ms_by_title.items(), key=lambda item: -item[1])
    return join_words([f"{title} ({formatting.ms(p99_ms)})" for title, p99_ms in latest_first], most=MAX_NAMED)


def _sent_late(p99_delay_ms_by_title: Mapping[str, float], limit_ms: float) -> str:
    return (
        f"requests of open loops were sent more than {limit_ms:g} ms late, at p99, to"
        f" {_latest_first(p99_delay_ms_by_title)}: that is part of their latency"
    )


def non_inferiority_text(decision: NonInferiority, margin: float) -> str:
    """What is said of the second engine's accuracy: "not inferior (a loss of 1 point or more is excluded)"."""
    points = f"{margin * 100:g} {'point' if margin == 0.01 else 'points'}"
    explanations = {
        NonInferiority.NOT_INFERIOR: f"a loss of {points} or more is excluded",
        NonInferiority.INFERIOR: f"a loss of more than {points} is shown",
        NonInferiority.NOT_DECIDED: f"a loss of {points} is neither excluded nor shown",
    }
    return f"{decision} ({explanations[decision]})"


def _less_accurate(
    engine: str, reference_engine: str, max_drop: float, alpha: float, decision: NonInferiority, margin: float
) -> str:
    drop = formatting.percentage_points(max_drop).removeprefix("+")
    return (
        f"{engine_title(engine)} is right less often than {engine_title(reference_engine)}, by up to {drop}; that is "
        f"not chance (McNemar's test, p below {alpha:g} after Holm); {non_inferiority_text(decision, margin)}"
    )


def _units_not_promised(units_by_title: Mapping[str, Sequence[str]]) -> str:
    titles = join_words([f"{title} ({', '.join(units)})" for title, units in units_by_title.items()])
    return (
        f"ONNX Runtime used what this machine's processor has and the target's is not promised to have: {titles}; "
        "there 8-bit integers may be slower, as in the bills for slower processors"
    )


def _prices_stale(max_age_days: int, date_by_price: Mapping[str, str]) -> str:
    prices = join_words([f"{price} ({date})" for price, date in date_by_price.items()], all_words=True)
    return f"prices older than {max_age_days} days when the run was made: {prices}"


def _option(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _load_option_differs(option: str, a: Any, b: Any) -> str:
    return f"{option} differs: {_option(a)}, and {_option(b)}"


def _client_processor_differs(a: Processor, b: Processor, twins: bool) -> str:
    consequence = "; latencies, rates and costs of twins cannot be compared, accuracy can" if twins else ""
    return f"the client's processor differs: {a}, and {b}{consequence}"


def _client_versions_differ(changes: Mapping[str, Sequence[str]]) -> str:
    return "versions of the client changed: " + ", ".join(f"{name} {a} -> {b}" for name, (a, b) in changes.items())


def _not_measured(runs: Sequence[str], failure: str | None) -> str:
    return f"not measured in {', nor in '.join(runs)}: {failure or 'no request of it is left'}"


def _machine_changes(changes_by_scenario: Mapping[str, Mapping[str, float]]) -> str:
    return "; ".join(
        f"{scenario}: {', '.join(f'{metric} {change:+.0%}' for metric, change in changes.items())}"
        for scenario, changes in changes_by_scenario.items()
    )


def _machine_changed(n_targets: int, changes_by_scenario: Mapping[str, Mapping[str, float]]) -> str:
    return (
        f"the machine, not the change: all {n_targets} targets moved alike ({_machine_changes(changes_by_scenario)}). "
        "A change in what they share would look the same; if you made one, measure A again"
    )


def _machine_changed_too(n_targets: int, changes_by_scenario: Mapping[str, Mapping[str, float]]) -> str:
    return (
        f"the machine changed too, by the middle one of {n_targets} targets ({_machine_changes(changes_by_scenario)}); "
        "changes are what is beyond that"
    )


def _autoscaled(utilisation: float, measured_rps: float | None) -> str:
    rate = (
        ", no figures of a load test"
        if measured_rps is None
        else f", or above {formatting.per_second(measured_rps)}, {MEASURED_RATE}"
    )
    return (
        f"an instance is added above {utilisation:.0%} of its CPU or concurrency, by the times of single requests{rate}"
    )


def _idle_instance_kept(timeout_s: float, min_timeout_s: float, assumed_startup_s: float | None) -> str:
    startup = "" if assumed_startup_s is None else f"; a start takes {formatting.significant(assumed_startup_s)} s"
    return (
        f"an idle instance is kept for {timeout_s} s, the provider's maximum, and at the upper end of the range of the "
        f"bills for {min_timeout_s} s; starts are billed{startup}; those to scale out are left out; no free allowance "
        "covers the idle time of one that is always warm"
    )


def _container_images_kept(gib: float, libraries_measured: bool, packed_fraction: float, base_mb: float) -> str:
    libraries = "as installed here" if libraries_measured else "as measured once"
    return (
        f"one container image of {gib:.2f} GiB is kept: the shipped files, the libraries ({libraries}) at "
        f"{packed_fraction:.0%} of their size, as gzip packs them, and a base of {base_mb:.0f} MB, an estimate; builds "
        "are not priced"
    )


MEASURE_BOTH_AGAIN = (
    "measure both in one run and give it twice with --pair, or use --steady-machine if the machine is as fast in both"
)
RANGE = "from {min_rps:g} to {max_rps:count} requests a second"
FAILED = "{failed} of {n} requests failed"
FIRST_TO_LAST = "{change:+.1%} from the first third of {blocks} blocks to the last"

WORDING: dict[Code, str | Callable[..., str]] = {
    FindingCode.RUN_INCOMPLETE: lambda note: f"the run is not complete: {incomplete_text(note)}",
    FindingCode.REQUESTS_DROPPED: "{dropped:count} of {planned:count} planned requests were never sent",
    FindingCode.REQUESTS_MISSING: (
        "{missing:count} of {planned:count} planned requests are missing: not sent, or sent without an answer that was "
        "kept; --resume sends them"
    ),
    FindingCode.CLIENT_PAUSED: _client_paused,
    FindingCode.SENT_ELSEWHERE: _sent_elsewhere,
    FindingCode.MODEL_VERSIONS_DIFFER: _model_versions_differ,
    FindingCode.CLIENT_SATURATED: _client_saturated,
    FindingCode.LATE_AT_START: _late_at_start,
    FindingCode.SENT_LATE: _sent_late,
    FindingCode.SEARCH_LIMITED_BY_CLIENT: _search_limited,
    FindingCode.TARGET_FAILED: "{title}: {failure}",
    FindingCode.MANY_FAILURES: _many_failures,
    FindingCode.MEMORY_EXCEEDED: _memory_exceeded,
    FindingCode.CPU_CONTENTION: (
        "{titles:words}: as many cores as this machine has ({cores}); the client competes with these targets for CPU, "
        "which inflates tail latency; rankings may differ in the cloud"
    ),
    FindingCode.UNITS_NOT_PROMISED: _units_not_promised,
    FindingCode.LATENCY_DRIFT: _latency_drift,
    FindingCode.MACHINE_DRIFT: _machine_drift,
    FindingCode.CACHE_SUSPECTED: (
        "{titles:words}: the same input again is answered faster than new ones; something caches"
    ),
    FindingCode.PREDICTIONS_DIFFER: _predictions_differ,
    FindingCode.SAME_MODEL_UNDECIDED: (
        "whether {titles:words} run the same model is not decided: it needs {min_n} distinct images of the kind that "
        "the model was trained on, of which {min_accuracy:percent} are answered right; here {n:count}, and "
        "{accuracy:percent}"
    ),
    FindingCode.LESS_ACCURATE: _less_accurate,
    FindingCode.NO_REFERENCE: (
        "the model's own answers could not be had, so the targets are compared with each other only"
    ),
    FindingCode.PRICE_LIST_CHANGED: "the price list has changed since the run; costs are by the list of {date}",
    FindingCode.PRICES_STALE: _prices_stale,
    FindingCode.PRICES_UNCONFIRMED: "prices from memory, or not confirmed: {price_ids:all_words}",
    FindingCode.IMAGES_DIFFER: (
        "the images differ: {a[source]} ({a[n]:count}, sha256 {a[sha256]:hash}), and {b[source]} ({b[n]:count}, sha256 "
        "{b[sha256]:hash})"
    ),
    FindingCode.SCENARIOS_DIFFER: "the scenarios differ: {a:words}, and {b:words}",
    FindingCode.TARGETS_DIFFER: "the targets differ: {a:words}, and {b:words}",
    FindingCode.LOCATION_DIFFERS: "{target} is {a:location}, and {b:location}",
    FindingCode.PRICED_TARGET_DIFFERS: "{target} is priced as {a:or_nothing}, and as {b:or_nothing}",
    FindingCode.ENGINE_DIFFERS: "{target} ran {a}, and {b}",
    FindingCode.CPUS_DIFFER: "{target} had {a} cores, and {b}",
    FindingCode.MODEL_DIFFERS: "the model of {names:words} differs: {a}, and {b}",
    FindingCode.LOAD_OPTION_DIFFERS: _load_option_differs,
    FindingCode.CLIENT_PROCESSOR_DIFFERS: _client_processor_differs,
    FindingCode.CLIENT_CORES_DIFFER: "the client's number of cores differs: {a}, and {b}",
    FindingCode.COMPARED_RUN_INVALID: "{run} is not a valid comparison: {finding:message}",
    FindingCode.COMPARED_RUN_INCOMPLETE: lambda run, note: f"{run} is not complete: {incomplete_text(note)}",
    FindingCode.PROCESSOR_DIFFERS: "{names:words} ran on {a}, and on {b}: that alone may change latencies",
    FindingCode.PROCESSOR_NOT_KNOWN: "whether {names:words} ran on like processors is not known: {a}, and {b}",
    FindingCode.CLIENT_VERSIONS_DIFFER: _client_versions_differ,
    FindingCode.MACHINE_CHANGED: _machine_changed,
    FindingCode.MACHINE_CHANGED_TOO: _machine_changed_too,
    FindingCode.MACHINE_NOT_TOLD_APART: (
        "no other target was measured that is the same in both runs, so the machine cannot be told from a change of "
        "{names:words}: latency, and cost that depends on it, are shown and not judged. Measure another target beside "
        "it, or use --steady-machine if the machine is as fast in both runs"
    ),
    FindingCode.PRICE_LIST_NOT_KEPT: (
        "{run}'s price list (sha256 {sha256:hash}) is not available; the list of {date} is used, which hides any price "
        "change"
    ),
    ReasonCode.TOO_FEW_SAMPLES: "needs n >= {needed}, have {n}",
    ReasonCode.TOO_FEW_EFFECTIVE_SAMPLES: (
        "needs n >= {needed} independent samples; {n:count} that depend on each other are worth {effective_n}"
    ),
    ReasonCode.TOO_FEW_SAMPLES_IN_BOTH: "needs n >= {needed} in both, have {n_a:count} and {n_b:count}",
    ReasonCode.INFINITE: f"it is infinite: {FAILED}",
    ReasonCode.UPPER_BOUND_INFINITE: f"the upper end of its interval is infinite: {FAILED}",
    ReasonCode.P99_UPPER_BOUND_INFINITE: f"the upper end of p99's interval is infinite: {FAILED}",
    ReasonCode.MEDIAN_MAY_BE_ZERO: "the median may be 0",
    ReasonCode.NO_SAMPLES: "no samples",
    ReasonCode.NO_REQUESTS: "no requests",
    ReasonCode.NO_RESPONSES: "no answers",
    ReasonCode.NO_REQUEST_SUCCEEDED: "no request was answered",
    ReasonCode.ZERO_DURATION: "the answers took no time",
    ReasonCode.TOO_FEW_INSTANCES_KNOWN: (
        "fewer than two instances are known to have answered {min_requests} single requests"
    ),
    ReasonCode.ONE_INSTANCE: "one instance: the variance between instances is not known",
    ReasonCode.SCENARIO_NOT_RUN: "scenario {scenario} was not tried",
    ReasonCode.CACHE_SCENARIOS_NOT_RUN: "needs the scenarios single and repeat",
    ReasonCode.NO_FORCED_START: "no start was forced (--restarts)",
    ReasonCode.NO_IDLE_GAP: "it was never left alone (scenario idle)",
    ReasonCode.NO_RATE_TRIED: "no rate was tested",
    ReasonCode.NO_RATE_PASSED: "it failed already at {lowest_rate_rps:g} requests/s",
    ReasonCode.NEVER_PREDICTED: "never answered",
    ReasonCode.NO_IMAGE_OF_CLASS: "no image of it",
    ReasonCode.NEITHER_IMAGE_NOR_PREDICTION: "no image of it, and never answered",
    ReasonCode.FEW_CLASSES: "says something of {needed} classes or more, and there are {n_classes}",
    ReasonCode.CLASSES_WITHOUT_IMAGE: ("needs an image of every class, {missing} of {n_classes} classes have none"),
    ReasonCode.PROBABILITIES_MISSING: "not every answer has a probability for each class",
    ReasonCode.PROBABILITIES_NOT_NORMALISED: "the probabilities of some answers do not add up to 1",
    ReasonCode.NO_COMMON_IMAGE: "no image that both answered",
    ReasonCode.NO_COMMON_PROBABILITIES: "no image with probabilities from both",
    ReasonCode.GOLDEN_SET: "the golden set checks a deployment, and tells no accuracy",
    ReasonCode.LOAD_CHANGES_BY_PLAN: "its load changes by plan, so its times do too",
    ReasonCode.TOO_FEW_BLOCKS: "needs {needed} blocks, has {n}",
    DriftCode.BECAME_SLOWER: f"slower, {FIRST_TO_LAST}",
    DriftCode.BECAME_FASTER: f"faster, {FIRST_TO_LAST}",
    DriftCode.ALL_BECAME_SLOWER: f"slower, as all targets became, {FIRST_TO_LAST}",
    DriftCode.ALL_BECAME_FASTER: f"faster, as all targets became, {FIRST_TO_LAST}",
    DriftCode.SMALL_TREND: f"a small trend, {FIRST_TO_LAST}",
    DriftCode.NO_DRIFT: f"no drift to be seen ({FIRST_TO_LAST})",
    ReasonCode.START_COMMAND_NOT_OBSERVABLE: "when the platform gave the start command cannot be seen",
    ReasonCode.NO_WARM_MEDIAN: "no warm median of the single scenario: {cause:message}",
    ReasonCode.REFUSED_DURING_START: (
        "nothing holds a request while the service starts: until then users are refused, and only then is one answered"
    ),
    ReasonCode.ROUTER_HOLDS_REQUESTS: "Heroku's router holds requests while the dyno starts",
    ReasonCode.CLOUD_RUN_HOLDS_REQUESTS: "Cloud Run holds requests while an instance starts",
    ReasonCode.CLOUD_FUNCTIONS_HOLDS_REQUESTS: "Cloud Functions holds requests while an instance starts",
    ReasonCode.ROUTED_WHEN_HEALTHY: (
        "SageMaker sends an instance no request before its health check passes: until then others answer"
    ),
    ReasonCode.MEASURED_AT_CLIENT: "measured at the client: what the platform made it wait is in it",
    ReasonCode.ONLY_TWIN_START_OBSERVED: "only the start of a twin is seen",
    ReasonCode.ONLY_TWIN_MEMORY_OBSERVED: "only a twin's memory is seen",
    ReasonCode.ONLY_TWIN_ARTIFACT_OBSERVED: "only of a twin it is known what was shipped",
    ReasonCode.LIBRARIES_NOT_MEASURED: "{detail}",
    ReasonCode.CUSTOM_ENDPOINT: "a custom endpoint: its size and price are unknown",
    ReasonCode.UNKNOWN_TARGET: "{target!r} is not one of the targets: {known:words}",
    ReasonCode.NO_SERVER_TIMING: (
        "no response has the service time (Server-Timing: total), and too few round trips were measured "
        "(--baseline-rtt) to take from the client's"
    ),
    ReasonCode.PRICE_UNKNOWN: "{detail}",
    ReasonCode.ALWAYS_CHEAPER: f"{{title}} is never dearer, and cheaper at some load, {RANGE}",
    ReasonCode.CHEAPER_WITH_EXCEPTIONS: (
        "{title} is cheaper, but for some traffic from {low_requests:short_count} to {high_requests:short_count} "
        "a month"
    ),
    ReasonCode.CHEAPER_WITHIN_RANGE: "{title} is cheaper, but not over the whole range of the bills",
    ReasonCode.NEVER_DIFFERENT: f"neither is dearer, {RANGE}",
    ReasonCode.TOO_MANY_FAILURES: "too many failures",
    ReasonCode.EXCEEDS_MEMORY: "needs more memory than its {limit_mib:mib}",
    ReasonCode.P95_OVER_OBJECTIVE: "p95 {p95_ms:ms}",
    ReasonCode.P50_OVER_OBJECTIVE: "p50 {p50_low_ms:ms} or more",
    ReasonCode.TOO_MANY_INSTANCES: "needs {instances} instances, more than it may have",
    ReasonCode.P95_UNKNOWN: "p95 not known",
    ReasonCode.NO_RESPONSE_OF_ONE: "one gave no answer",
    ReasonCode.NO_COMMON_SCENARIO: "no scenario that both were asked in",
    ReasonCode.NOT_KNOWN_OF_BOTH: "not known of both",
    ReasonCode.ZERO_LATENCY: "it took no time",
    ReasonCode.NO_COMMON_START: "no start of both was measured",
    ReasonCode.NOT_MEASURED: _not_measured,
    ReasonCode.ENDED_EARLY: "not measured to its end in {run}: {failure}",
    ReasonCode.TOO_FEW_BLOCKS_IN_BOTH: "needs {needed} blocks in both runs, has {n_a} and {n_b}",
    ReasonCode.NO_REQUEST: lambda runs: f"no request in {' and '.join(runs)}",
    ReasonCode.NO_RATE_PASSED_IN_BOTH: "no rate held in both runs",
    ReasonCode.NO_IMAGE_COMMON_TO_RUNS: "no image that both runs answered",
    ReasonCode.NO_SCENARIO_COMMON_TO_RUNS: "no scenario that both runs tried",
    ReasonCode.MACHINE_MAY_EXPLAIN: (
        "no other target was measured that is the same in both runs, so the machine cannot be told from a change: "
        f"{MEASURE_BOTH_AGAIN}"
    ),
    ReasonCode.SHARED_CHANGE: (
        "it is the target in the middle, and the machine cannot be told from its change of {change:+.0%}: "
        f"{MEASURE_BOTH_AGAIN}"
    ),
    ReasonCode.YARDSTICK: "its change is taken for the machine's",
    AssumptionCode.POISSON_ARRIVALS: (
        "requests come one image each, at random (Poisson), in the busy hours of each day, at {peak:g} times their "
        "mean rate over a month of {hours_per_month} hours; what is always on is sized for that"
    ),
    AssumptionCode.CLOUD_CPU_AS_FAST: (
        "the cloud's CPU is as fast as this machine's, on which the twin ran; the bills where it is slower are in a "
        "table of their own"
    ),
    AssumptionCode.MEAN_SERVICE_TIME: (
        "service time is the mean of what the service reports; the web server's and proxy's own time is left out"
    ),
    AssumptionCode.SERVICE_TIME_AT_CLIENT: (
        "no response has the service time: it is the client's {client_ms:.1f} ms less {rtt_ms:.1f} ms of a round trip "
        "that does nothing, with the image's way to the service in it; the upper end of the bills' range is by all of "
        "the client's time"
    ),
    AssumptionCode.CPU_TIME_MEASURED: (
        "CPU time is measured: that of all the twin's processes, its server and proxy too"
    ),
    AssumptionCode.CPU_TIME_OF_CORES: (
        "CPU time is not measured: it is the service time, {cores} cores counted as busy during inference"
    ),
    AssumptionCode.CPU_TIME_IS_SERVICE_TIME: "CPU time is not measured: it is the service time",
    AssumptionCode.SCALED_BY_MEASURED_RATE: f"another instance is added above {{capacity_rps:rate}}, {MEASURED_RATE}",
    AssumptionCode.SCALED_BY_CLIENT_TIME: (
        "one instance serves {instance_rps:rate}, the inverse of the client's time of single requests (or of the CPU "
        "time, where that is longer), no figure of a load test; another is added above {utilisation:percent} of that, "
        "{capacity_rps:rate}"
    ),
    AssumptionCode.MACHINE_ALWAYS_ON: (
        "each machine has {disk_gb} GB of gp3 disk and a public IPv4 address and is never stopped; there is "
        "one, as several need a load balancer, which is not priced"
    ),
    AssumptionCode.SURPLUS_CREDITS: ("CPU use above {baseline_vcpus} vCPUs on average is paid as surplus credits"),
    AssumptionCode.EGRESS_NOT_METERED: "egress is not metered",
    AssumptionCode.ONE_SMALL_DYNO: ("there can be but one {size} dyno; where one is not enough, all are Standard-1X"),
    AssumptionCode.ECO_POOL: (
        "nothing else uses the Eco pool; {requests_per_month:count} requests a month keep the dyno up "
        "{awake_hours:.0f} h"
    ),
    AssumptionCode.AUTOSCALED: _autoscaled,
    AssumptionCode.BILLED_TIME_ROUNDED: (
        "each request's time is rounded up to 100 ms, and what overlaps in an instance is billed once, the processor's "
        "work whole; whether each request or each active interval is rounded is not documented, so bills have a range: "
        "from no rounding to every request billed on its own"
    ),
    AssumptionCode.IDLE_INSTANCE_KEPT: _idle_instance_kept,
    AssumptionCode.ENDPOINT_SCALED: (
        "at least {least} instance(s) run all month, and those above them in the busy hours and for {delay_min} "
        "minutes after them each day; the policy's target is set to the rate above"
    ),
    AssumptionCode.SERVERLESS_SECONDS: (
        "each request's own time is billed, for {memory_mib} MB; that starts are billed is not documented, so bills "
        "have a range: from none to one for each gap of a minute"
    ),
    AssumptionCode.DATA_PROCESSED: (
        "a request has {request_bytes} bytes, an image as small as CIFAR's and headers; what goes in and out of the "
        "endpoint is billed by GB"
    ),
    AssumptionCode.CONTAINER_IMAGES_KEPT: _container_images_kept,
    AssumptionCode.STARTUP_CPU_BOOST: "a starting instance has twice its vCPUs, which are billed",
    AssumptionCode.FREE_ALLOWANCES_UNSHARED: (
        "the free allowances are one pot for the billing account, and nothing else uses it: the bills after the free "
        "tier of two Google targets do not add up"
    ),
    AssumptionCode.RESPONSE_HEADERS: (
        "an answer has {header_bytes} bytes of headers; connections stay open, TLS handshakes are not counted"
    ),
    AssumptionCode.EXCEEDS_MAX_INSTANCES: (
        "{requests_per_month:count} requests a month need {instances} instances; the target may have {max_instances}, "
        "so they would not be served, and are priced all the same"
    ),
    AssumptionCode.LIST_PRICES: (
        "list prices of {date}; dollars per million requests are gross, without free allowances"
    ),
    AssumptionCode.UNCONFIRMED_PRICES: "not confirmed: {price_ids:all_words}",
}
