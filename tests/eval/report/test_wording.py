"""Every sentence for a finding, a reason or an assumption, in one place. Other tests assert their codes."""

# ruff: noqa: E501  # a sentence stays whole

import inspect
import string

import pytest

from eval.analysis.findings import Finding, FindingCode, Severity, invalid, warning
from eval.codes import AssumptionCode, DriftCode, DriftResult, ReasonCode, Statement, reason
from eval.report.wording import FORMATTERS, WORDING, gathered, message
from eval.samples.processors import parse_processor

ALL_CODES = [*FindingCode, *ReasonCode, *DriftCode, *AssumptionCode]
ZEN = parse_processor({"cpu_model": "AMD EPYC", "cpu_generation": "Zen 3", "instruction_sets": ["AVX2"], "cores": 2})
XEON = parse_processor({"cpu_model": "Intel Xeon", "instruction_sets": ["AVX-512"], "cores": 4})

# fmt: off
SENTENCES = [  # code, values, sentence
    (FindingCode.RUN_INCOMPLETE, {"note": "interrupted from the keyboard"},
     "the run is not complete: interrupted from the keyboard"),
    (FindingCode.RUN_INCOMPLETE, {"note": None},
     "the run is not complete: interrupted, or still running"),
    (FindingCode.REQUESTS_DROPPED, {"dropped": 620, "planned": 1600},
     "620 of 1,600 planned requests were never sent"),
    (FindingCode.MODEL_VERSIONS_DIFFER, {"titles_by_version": {"abc": ["Heroku", "AWS EC2"], "fed": ["the reference"]}},
     "the models differ (abc: Heroku and AWS EC2; fed: the reference): deploy one model to all and measure again"),
    (FindingCode.CLIENT_SATURATED, {"titles": ["AWS EC2", "Heroku"], "max_p99_delay_ms": 6.04},
     "the client sent late to AWS EC2 and Heroku (p99 up to 6.0 ms): send from a machine with free cores, at a lower --rate, or with more --workers"),
    (FindingCode.SENT_LATE, {"p99_delay_ms_by_title": {"AWS EC2": 0.612, "Heroku": 3.4}, "limit_ms": 0.5},
     "requests of open loops were sent more than 0.5 ms late, at p99, to Heroku (3.4 ms) and AWS EC2 (0.61 ms): that is part of their latency"),
    (FindingCode.SEARCH_LIMITED_BY_CLIENT, {"p99_delay_ms_by_title": {"AWS EC2": 22.1}},
     "in the search for the highest rate the client sent late, at p99, to AWS EC2 (22 ms): a target alone on its machine may take more"),
    (FindingCode.TARGET_FAILED, {"title": "Heroku", "failure": "port 5000 was never opened"},
     "Heroku: port 5000 was never opened"),
    (FindingCode.MANY_FAILURES, {"title": "AWS EC2", "failed": 40, "sent": 400, "errors": {"disconnected": 38, "timeout": 2}},
     "AWS EC2: 40 of 400 requests failed (10.00%): disconnected 38, timeout 2"),
    (FindingCode.MEMORY_EXCEEDED, {"title": "Heroku", "peak_mib": 600.0, "limit_mib": 512, "cuda_build": False},
     "Heroku: took 600 MiB of memory, the target has 512 MiB"),
    (FindingCode.MEMORY_EXCEEDED, {"title": "Heroku", "peak_mib": 600.0, "limit_mib": 512, "cuda_build": True},
     "Heroku: took 600 MiB of memory, the target has 512 MiB; PyTorch's CUDA build ran here, the clouds install the much smaller CPU build"),
    (FindingCode.CPU_CONTENTION, {"titles": ["AWS EC2"], "cores": 2},
     "AWS EC2: as many cores as this machine has (2); the client competes with these targets for CPU, which inflates tail latency; rankings may differ in the cloud"),
    (FindingCode.UNITS_NOT_PROMISED, {"units_by_title": {"AWS EC2 (ONNX int8)": ["AVX-512 VNNI"], "Heroku (ONNX int8)": ["AVX-512", "AVX-512 VNNI"]}},
     "ONNX Runtime used what this machine's processor has and the target's is not promised to have: AWS EC2 (ONNX int8) (AVX-512 VNNI) and Heroku (ONNX int8) (AVX-512, AVX-512 VNNI); there 8-bit integers may be slower, as in the bills for slower processors"),
    (FindingCode.MACHINE_DRIFT,
     {"results_by_scenario": {"single": Statement(DriftCode.ALL_BECAME_SLOWER, {"change": 0.125, "blocks": 24})}},
     "the client's machine or network drifted while the run went on (single: slower, as all targets became, "
     "+12.5% from the first third of 24 blocks to the last)"),
    (FindingCode.LATENCY_DRIFT, {"title": "Heroku", "results_by_scenario": {"single": Statement(DriftCode.BECAME_SLOWER, {"change": 0.2, "blocks": 24})}},
     "Heroku drifted while the run went on (single: slower, +20.0% from the first third of 24 blocks to the last)"),
    (FindingCode.CACHE_SUSPECTED, {"titles": ["Heroku", "AWS EC2"]},
     "Heroku and AWS EC2: the same image again is answered faster than new ones; something caches"),
    (FindingCode.PREDICTIONS_DIFFER, {"titles": ["Heroku", "the reference"], "disagreements": 2, "n": 400, "max_agreement": None},
     "Heroku and the reference differ on 2 of 400 images; the same model must answer alike everywhere"),
    (FindingCode.PREDICTIONS_DIFFER, {"titles": ["Heroku", "the reference"], "disagreements": 2, "n": 400, "max_agreement": 0.9282},
     "Heroku and the reference differ on 2 of 400 images; at most 92.82% of such images are answered alike (95% interval), and engines do not round differently so often: they cannot run the same model"),
    (FindingCode.SAME_MODEL_UNDECIDED, {"titles": ["Heroku (ONNX int8)", "the reference"], "n": 2, "min_n": 100, "accuracy": 0.5, "min_accuracy": 0.8},
     "whether Heroku (ONNX int8) and the reference run the same model is not decided: it needs 100 distinct images of the kind that the model was trained on, of which 80% are answered right; here 2, and 50%"),
    (FindingCode.LESS_ACCURATE, {"engine": "onnx", "reference_engine": "torch", "max_drop": 0.0125, "alpha": 0.05, "decision": "not decided", "margin": 0.01},
     "ONNX int8 is right less often than PyTorch, by up to 1.25 points; that is not chance (McNemar's test, p below 0.05 after Holm); not decided (a loss of 1 point is neither excluded nor shown)"),
    (FindingCode.NO_REFERENCE, {},
     "the model's own answers could not be had, so the targets are compared with each other only"),
    (FindingCode.PRICE_LIST_CHANGED, {"date": "2026-11-20"},
     "the price list has changed since the run; costs are by the list of 2026-11-20"),
    (FindingCode.PRICES_STALE, {"max_age_days": 180, "date_by_price": {"disk": "2021-08-30", "hour": "2022-01-02"}},
     "prices older than 180 days when the run was made: disk (2021-08-30) and hour (2022-01-02)"),
    (FindingCode.PRICES_UNCONFIRMED, {"price_ids": ["disk", "hour"]},
     "prices from memory, or not confirmed: disk and hour"),
    (FindingCode.IMAGES_DIFFER, {"a": {"source": "golden set", "n": 1000, "sha256": "a" * 64}, "b": {"source": "a folder", "n": 20, "sha256": "b" * 64}},
     "the images differ: golden set (1,000, sha256 aaaaaaaaaaaa), and a folder (20, sha256 bbbbbbbbbbbb)"),
    (FindingCode.SCENARIOS_DIFFER, {"a": ["single"], "b": ["single", "ramp"]},
     "the scenarios differ: single, and single and ramp"),
    (FindingCode.TARGETS_DIFFER, {"a": ["heroku", "aws_ec2"], "b": ["heroku"]},
     "the targets differ: heroku and aws_ec2, and heroku"),
    (FindingCode.LOCATION_DIFFERS, {"a": True, "b": False},
     "heroku is a local twin, and in the cloud"),
    (FindingCode.PRICED_TARGET_DIFFERS, {"a": "heroku", "b": None},
     "heroku is priced as heroku, and as nothing"),
    (FindingCode.ENGINE_DIFFERS, {"a": "torch", "b": "onnx"},
     "heroku ran torch, and onnx"),
    (FindingCode.CPUS_DIFFER, {"a": 1, "b": 2},
     "heroku had 1 cores, and 2"),
    (FindingCode.MODEL_DIFFERS, {"names": ["aws_ec2", "heroku"], "a": "abc", "b": "fed"},
     "the model of aws_ec2 and heroku differs: abc, and fed"),
    (FindingCode.LOAD_OPTION_DIFFERS, {"option": "rate_rps", "a": 10.0, "b": 2.5},
     "rate_rps differs: 10, and 2.5"),
    (FindingCode.LOAD_OPTION_DIFFERS, {"option": "fresh", "a": False, "b": True},
     "fresh differs: False, and True"),
    (FindingCode.CLIENT_PROCESSOR_DIFFERS, {"a": ZEN, "b": XEON, "twins": False},
     "the client's processor differs: AMD EPYC (Zen 3; AVX2), and Intel Xeon (AVX-512)"),
    (FindingCode.CLIENT_PROCESSOR_DIFFERS, {"a": ZEN, "b": XEON, "twins": True},
     "the client's processor differs: AMD EPYC (Zen 3; AVX2), and Intel Xeon (AVX-512); latencies, rates and costs of twins cannot be compared, accuracy can"),
    (FindingCode.CLIENT_CORES_DIFFER, {"a": 2, "b": 4},
     "the client's number of cores differs: 2, and 4"),
    (FindingCode.COMPARED_RUN_INVALID, {"run": "A", "finding": invalid(FindingCode.CLIENT_SATURATED, titles=["Heroku"], max_p99_delay_ms=6.0)},
     "A is not a valid comparison: the client sent late to Heroku (p99 up to 6.0 ms): send from a machine with free cores, at a lower --rate, or with more --workers"),
    (FindingCode.COMPARED_RUN_INCOMPLETE, {"run": "A", "note": "the disk is full"},
     "A is not complete: the disk is full"),
    (FindingCode.COMPARED_RUN_INCOMPLETE, {"run": "B", "note": None},
     "B is not complete: interrupted, or still running"),
    (FindingCode.PROCESSOR_DIFFERS, {"names": ["heroku", "aws_ec2"], "a": ZEN, "b": XEON},
     "heroku and aws_ec2 ran on AMD EPYC (Zen 3; AVX2), and on Intel Xeon (AVX-512): that alone may change latencies"),
    (FindingCode.PROCESSOR_NOT_KNOWN, {"names": ["the client"], "a": ZEN, "b": parse_processor({})},
     "whether the client ran on like processors is not known: AMD EPYC (Zen 3; AVX2), and a processor that was not recorded"),
    (FindingCode.CLIENT_VERSIONS_DIFFER, {"changes": {"numpy": ("1.0", "2.0"), "python": ("3.11", "3.12")}},
     "versions of the client changed: numpy 1.0 -> 2.0, python 3.11 -> 3.12"),
    (FindingCode.MACHINE_CHANGED, {"n_targets": 4, "changes_by_scenario": {"single": {"p50": 0.122, "p95": 0.13}, "poisson": {"p50": -0.1}}},
     "the machine, not the change: all 4 targets moved alike (single: p50 +12%, p95 +13%; poisson: p50 -10%). A change in what they share would look the same; if you made one, measure A again"),
    (FindingCode.MACHINE_CHANGED_TOO, {"n_targets": 4, "changes_by_scenario": {"single": {"p95": 0.13}}},
     "the machine changed too, by the middle one of 4 targets (single: p95 +13%); changes are what is beyond that"),
    (FindingCode.MACHINE_NOT_TOLD_APART, {"names": ["mine"]},
     "no other target was measured that is the same in both runs, so the machine cannot be told from a change of mine: latency, and cost that depends on it, are shown and not judged. Measure another target beside it, or use --steady-machine if the machine is as fast in both runs"),
    (FindingCode.PRICE_LIST_NOT_KEPT, {"run": "A", "sha256": "c" * 64, "date": "2026-11-20"},
     "A's price list (sha256 cccccccccccc) is not available; the list of 2026-11-20 is used, which hides any price change"),
    (ReasonCode.TOO_FEW_SAMPLES, {"needed": 72, "n": 5},
     "needs n >= 72, have 5"),
    (ReasonCode.TOO_FEW_EFFECTIVE_SAMPLES, {"needed": 662, "effective_n": 424, "n": 10_000},
     "needs n >= 662 independent samples; 10,000 that depend on each other are worth 424"),
    (ReasonCode.TOO_FEW_SAMPLES_IN_BOTH, {"needed": 72, "n_a": 1200, "n_b": 60},
     "needs n >= 72 in both, have 1,200 and 60"),
    (ReasonCode.INFINITE, {"failed": 2, "n": 5},
     "it is infinite: 2 of 5 requests failed"),
    (ReasonCode.UPPER_BOUND_INFINITE, {"failed": 2, "n": 5},
     "the upper end of its interval is infinite: 2 of 5 requests failed"),
    (ReasonCode.P99_UPPER_BOUND_INFINITE, {"failed": 2, "n": 5},
     "the upper end of p99's interval is infinite: 2 of 5 requests failed"),
    (ReasonCode.MEDIAN_MAY_BE_ZERO, {},
     "the median may be 0"),
    (ReasonCode.NO_SAMPLES, {},
     "no samples"),
    (ReasonCode.NO_REQUESTS, {},
     "no requests"),
    (ReasonCode.NO_RESPONSES, {},
     "no answers"),
    (ReasonCode.NO_REQUEST_SUCCEEDED, {},
     "no request was answered"),
    (ReasonCode.ZERO_DURATION, {},
     "the answers took no time"),
    (ReasonCode.TOO_FEW_INSTANCES_KNOWN, {"min_requests": 6},
     "fewer than two instances are known to have answered 6 single requests"),
    (ReasonCode.ONE_INSTANCE, {},
     "one instance: the variance between instances is not known"),
    (ReasonCode.SCENARIO_NOT_RUN, {"scenario": "ramp"},
     "scenario ramp was not tried"),
    (ReasonCode.CACHE_SCENARIOS_NOT_RUN, {},
     "needs the scenarios single and repeat"),
    (ReasonCode.NO_FORCED_START, {},
     "no start was forced (--restarts)"),
    (ReasonCode.NO_IDLE_GAP, {},
     "it was never left alone (scenario idle)"),
    (ReasonCode.NO_RATE_TRIED, {},
     "no rate was tested"),
    (ReasonCode.NO_RATE_PASSED, {"lowest_rate_rps": 2.5},
     "it failed already at 2.5 requests/s"),
    (ReasonCode.NEVER_PREDICTED, {},
     "never answered"),
    (ReasonCode.NO_IMAGE_OF_CLASS, {},
     "no image of it"),
    (ReasonCode.NEITHER_IMAGE_NOR_PREDICTION, {},
     "no image of it, and never answered"),
    (ReasonCode.FEW_CLASSES, {"needed": 6, "n_classes": 2},
     "says something of 6 classes or more, and there are 2"),
    (ReasonCode.CLASSES_WITHOUT_IMAGE, {"missing": 1, "n_classes": 5},
     "needs an image of every class, 1 of 5 classes have none"),
    (ReasonCode.PROBABILITIES_MISSING, {},
     "not every answer has a probability for each class"),
    (ReasonCode.PROBABILITIES_NOT_NORMALISED, {},
     "the probabilities of some answers do not add up to 1"),
    (ReasonCode.NO_COMMON_IMAGE, {},
     "no image that both answered"),
    (ReasonCode.NO_COMMON_PROBABILITIES, {},
     "no image with probabilities from both"),
    (ReasonCode.GOLDEN_SET, {},
     "the golden set checks a deployment, and tells no accuracy"),
    (ReasonCode.LOAD_CHANGES_BY_PLAN, {},
     "its load changes by plan, so its times do too"),
    (ReasonCode.TOO_FEW_BLOCKS, {"needed": 72, "n": 5},
     "needs 72 blocks, has 5"),
    (DriftCode.BECAME_SLOWER, {"change": -0.125, "blocks": 24},
     "slower, -12.5% from the first third of 24 blocks to the last"),
    (DriftCode.BECAME_FASTER, {"change": -0.125, "blocks": 24},
     "faster, -12.5% from the first third of 24 blocks to the last"),
    (DriftCode.ALL_BECAME_SLOWER, {"change": 0.125, "blocks": 24},
     "slower, as all targets became, +12.5% from the first third of 24 blocks to the last"),
    (DriftCode.ALL_BECAME_FASTER, {"change": -0.125, "blocks": 24},
     "faster, as all targets became, -12.5% from the first third of 24 blocks to the last"),
    (DriftCode.SMALL_TREND, {"change": -0.125, "blocks": 24},
     "a small trend, -12.5% from the first third of 24 blocks to the last"),
    (DriftCode.NO_DRIFT, {"change": -0.125, "blocks": 24},
     "no drift to be seen (-12.5% from the first third of 24 blocks to the last)"),
    (ReasonCode.START_COMMAND_NOT_OBSERVABLE, {},
     "when the platform gave the start command cannot be seen"),
    (ReasonCode.NO_WARM_MEDIAN, {"cause": Statement(ReasonCode.TOO_FEW_SAMPLES, {"needed": 6, "n": 5})},
     "no warm median of the single scenario: needs n >= 6, have 5"),
    (ReasonCode.REFUSED_DURING_START, {},
     "nothing holds a request while the service starts: until then users are refused, and only then is one answered"),
    (ReasonCode.ROUTER_HOLDS_REQUESTS, {},
     "Heroku's router holds requests while the dyno starts"),
    (ReasonCode.CLOUD_RUN_HOLDS_REQUESTS, {},
     "Cloud Run holds requests while an instance starts"),
    (ReasonCode.CLOUD_FUNCTIONS_HOLDS_REQUESTS, {},
     "Cloud Functions holds requests while an instance starts"),
    (ReasonCode.MEASURED_AT_CLIENT, {},
     "measured at the client: what the platform made it wait is in it"),
    (ReasonCode.ONLY_TWIN_START_OBSERVED, {},
     "only the start of a twin is seen"),
    (ReasonCode.ONLY_TWIN_MEMORY_OBSERVED, {},
     "only a twin's memory is seen"),
    (ReasonCode.ONLY_TWIN_ARTIFACT_OBSERVED, {},
     "only of a twin it is known what was shipped"),
    (ReasonCode.LIBRARIES_NOT_MEASURED, {"detail": "no pip here"},
     "no pip here"),
    (ReasonCode.CUSTOM_ENDPOINT, {},
     "a custom endpoint: its size and price are unknown"),
    (ReasonCode.UNKNOWN_TARGET, {"target": "azure", "known": ["heroku", "aws_ec2"]},
     "'azure' is not one of the targets: heroku and aws_ec2"),
    (ReasonCode.NO_SERVER_TIMING, {},
     "no response has the service time (Server-Timing: total), and no round trip was measured (--baseline-rtt) to take "
     "from the client's"),
    (ReasonCode.PRICE_UNKNOWN, {"detail": "no pip here"},
     "no pip here"),
    (ReasonCode.ALWAYS_CHEAPER, {"title": "Heroku", "min_rps": 0.001, "max_rps": 10000},
     "Heroku is never dearer, and cheaper at some load, from 0.001 to 10,000 requests a second"),
    (ReasonCode.CHEAPER_WITH_EXCEPTIONS, {"title": "Heroku", "low_requests": 244.7e6, "high_requests": 315.8e6},
     "Heroku is cheaper, but for some traffic from 245M to 316M a month"),
    (ReasonCode.CHEAPER_WITHIN_RANGE, {"title": "Heroku"},
     "Heroku is cheaper, but not over the whole range of the bills"),
    (ReasonCode.NEVER_DIFFERENT, {"min_rps": 0.001, "max_rps": 10000},
     "neither is dearer, from 0.001 to 10,000 requests a second"),
    (ReasonCode.TOO_MANY_FAILURES, {},
     "too many failures"),
    (ReasonCode.EXCEEDS_MEMORY, {"limit_mib": 512},
     "needs more memory than its 512 MiB"),
    (ReasonCode.P95_OVER_OBJECTIVE, {"p95_ms": 312.4},
     "p95 312 ms"),
    (ReasonCode.TOO_MANY_INSTANCES, {"instances": 11},
     "needs 11 instances, more than it may have"),
    (ReasonCode.P95_UNKNOWN, {},
     "p95 not known"),
    (ReasonCode.NO_RESPONSE_OF_ONE, {},
     "one gave no answer"),
    (ReasonCode.NO_COMMON_SCENARIO, {},
     "no scenario that both were asked in"),
    (ReasonCode.NOT_KNOWN_OF_BOTH, {},
     "not known of both"),
    (ReasonCode.ZERO_LATENCY, {},
     "it took no time"),
    (ReasonCode.NO_COMMON_START, {},
     "no start of both was measured"),
    (ReasonCode.NOT_MEASURED, {"runs": ["B"], "failure": "it would not listen"},
     "not measured in B: it would not listen"),
    (ReasonCode.NOT_MEASURED, {"runs": ["A", "B"], "failure": None},
     "not measured in A, nor in B: no request of it is left"),
    (ReasonCode.ENDED_EARLY, {"run": "B", "failure": "its process ended"},
     "not measured to its end in B: its process ended"),
    (ReasonCode.TOO_FEW_BLOCKS_IN_BOTH, {"needed": 6, "n_a": 3, "n_b": 40},
     "needs 6 blocks in both runs, has 3 and 40"),
    (ReasonCode.NO_REQUEST, {"runs": ["A", "B"]},
     "no request in A and B"),
    (ReasonCode.NO_RATE_PASSED_IN_BOTH, {},
     "no rate held in both runs"),
    (ReasonCode.NO_IMAGE_COMMON_TO_RUNS, {},
     "no image that both runs answered"),
    (ReasonCode.NO_SCENARIO_COMMON_TO_RUNS, {},
     "no scenario that both runs tried"),
    (AssumptionCode.POISSON_ARRIVALS, {"hours_per_month": 730, "peak": 3.0},
     "requests come one image each, at random (Poisson), in the busy hours of each day, at 3 times their mean rate over a month of 730 hours; what is always on is sized for that"),
    (AssumptionCode.CLOUD_CPU_AS_FAST, {},
     "the cloud's CPU is as fast as this machine's, on which the twin ran; the bills where it is slower are in a table of their own"),
    (AssumptionCode.SERVICE_TIME_AT_CLIENT, {"client_ms": 52.04, "rtt_ms": 11.96},
     "no response has the service time: it is the client's 52.0 ms less 12.0 ms of a round trip that does nothing, with "
     "the image's way to the service in it; the upper end of the bills' range is by all of the client's time"),
    (AssumptionCode.MEAN_SERVICE_TIME, {},
     "service time is the mean of what the service reports; the web server's and proxy's own time is left out"),
    (AssumptionCode.CPU_TIME_MEASURED, {},
     "CPU time is measured: that of all the twin's processes, its server and proxy too"),
    (AssumptionCode.CPU_TIME_OF_CORES, {"cores": 2},
     "CPU time is not measured: it is the service time, 2 cores counted as busy during inference"),
    (AssumptionCode.CPU_TIME_IS_SERVICE_TIME, {},
     "CPU time is not measured: it is the service time"),
    (AssumptionCode.SCALED_BY_MEASURED_RATE, {"capacity_rps": 7.5},
     "another instance is added above 7.50/s, the highest rate that one was measured to serve with its latency within the objective"),
    (AssumptionCode.SCALED_BY_CLIENT_TIME, {"instance_rps": 12.5, "utilisation": 0.6, "capacity_rps": 7.5},
     "one instance serves 12.5/s, the inverse of the client's time of single requests (or of the CPU time, where that is longer), no figure of a load test; another is added above 60% of that, 7.50/s"),
    (AssumptionCode.MACHINE_ALWAYS_ON, {"disk_gb": 8},
     "each machine has 8 GB of gp3 disk and a public IPv4 address and is never stopped; there is one, as several need a load balancer, which is not priced"),
    (AssumptionCode.SURPLUS_CREDITS, {"baseline_vcpus": 0.2},
     "CPU use above 0.2 vCPUs on average is paid as surplus credits"),
    (AssumptionCode.EGRESS_NOT_METERED, {},
     "egress is not metered"),
    (AssumptionCode.ONE_SMALL_DYNO, {"size": "basic"},
     "there can be but one basic dyno; where one is not enough, all are Standard-1X"),
    (AssumptionCode.ECO_POOL, {"requests_per_month": 10000, "awake_hours": 123.4},
     "nothing else uses the Eco pool; 10,000 requests a month keep the dyno up 123 h"),
    (AssumptionCode.AUTOSCALED, {"utilisation": 0.6, "measured_rps": None},
     "an instance is added above 60% of its CPU or concurrency, by the times of single requests, no figures of a load test"),
    (AssumptionCode.AUTOSCALED, {"utilisation": 0.6, "measured_rps": 12.5},
     "an instance is added above 60% of its CPU or concurrency, by the times of single requests, or above 12.5/s, the highest rate that one was measured to serve with its latency within the objective"),
    (AssumptionCode.BILLED_TIME_ROUNDED, {},
     "each request's time is rounded up to 100 ms, and what overlaps in an instance is billed once; whether each request or each active interval is rounded is not documented, so bills have a range: from no rounding to every request billed on its own"),
    (AssumptionCode.IDLE_INSTANCE_KEPT, {"timeout_s": 900, "min_timeout_s": 60, "assumed_startup_s": None},
     "an idle instance is kept for 900 s, the provider's maximum, and at the upper end of the range of the bills for 60 s; starts are billed; those to scale out are left out; no free allowance covers the idle time of one that is always warm"),
    (AssumptionCode.IDLE_INSTANCE_KEPT, {"timeout_s": 900, "min_timeout_s": 60, "assumed_startup_s": 8.0},
     "an idle instance is kept for 900 s, the provider's maximum, and at the upper end of the range of the bills for 60 s; starts are billed; a start takes 8.00 s; those to scale out are left out; no free allowance covers the idle time of one that is always warm"),
    (AssumptionCode.CONTAINER_IMAGES_KEPT, {"gib": 0.1034, "libraries_measured": True, "packed_fraction": 0.3296, "base_mb": 50.0},
     "one container image of 0.10 GiB is kept: the shipped files, the libraries (as installed here) at 33% of their size, as gzip packs them, and a base of 50 MB, an estimate; builds are not priced"),
    (AssumptionCode.CONTAINER_IMAGES_KEPT, {"gib": 0.3143, "libraries_measured": False, "packed_fraction": 0.2663, "base_mb": 50.0},
     "one container image of 0.31 GiB is kept: the shipped files, the libraries (as measured once) at 27% of their size, as gzip packs them, and a base of 50 MB, an estimate; builds are not priced"),
    (AssumptionCode.ENDPOINT_SCALED, {"least": 1, "delay_min": 15},
     "at least 1 instance(s) run all month, and those above them in the busy hours and for 15 minutes after them each day; the policy's target is set to the rate above"),
    (AssumptionCode.SERVERLESS_SECONDS, {"memory_mib": 2048},
     "each request's own time is billed, for 2048 MB; that starts are billed is not documented, so bills have a range: from none to one for each gap of a minute"),
    (AssumptionCode.DATA_PROCESSED, {"request_bytes": 3000},
     "a request has 3000 bytes, an image as small as CIFAR's and headers; what goes in and out of the endpoint is billed by GB"),
    (AssumptionCode.STARTUP_CPU_BOOST, {},
     "a starting instance has twice its vCPUs, which are billed"),
    (AssumptionCode.FREE_ALLOWANCES_UNSHARED, {},
     "the free allowances are one pot for the billing account, and nothing else uses it: the bills after the free tier of two Google targets do not add up"),
    (AssumptionCode.RESPONSE_HEADERS, {"header_bytes": 500},
     "an answer has 500 bytes of headers; connections stay open, TLS handshakes are not counted"),
    (AssumptionCode.EXCEEDS_MAX_INSTANCES, {"requests_per_month": 10000, "instances": 11, "max_instances": 3},
     "10,000 requests a month need 11 instances; the target may have 3, so they would not be served, and are priced all the same"),
    (AssumptionCode.LIST_PRICES, {"date": "2026-11-20"},
     "list prices of 2026-11-20; dollars per million requests are gross, without free allowances"),
    (AssumptionCode.UNCONFIRMED_PRICES, {"price_ids": ["disk", "hour"]},
     "not confirmed: disk and hour"),
]
# fmt: on


@pytest.mark.parametrize(("code", "values", "sentence"), SENTENCES, ids=[str(code) for code, _, _ in SENTENCES])
def test_each_code_has_its_sentence(code, values, sentence):
    found = (
        Finding(code, values, Severity.NOTICE, "heroku") if isinstance(code, FindingCode) else Statement(code, values)
    )
    assert message(found) == sentence


def test_no_code_lacks_a_sentence_or_has_the_name_of_another():
    assert len(set(map(str, ALL_CODES))) == len(ALL_CODES)
    assert set(WORDING) == {code for code, _, _ in SENTENCES} == set(ALL_CODES)


@pytest.mark.parametrize("code", ALL_CODES)
def test_a_sentence_needs_the_values_of_its_code_and_no_other(code):
    wording = WORDING[code]
    if isinstance(wording, str):
        fields = [(name, spec) for _, name, spec, _ in string.Formatter().parse(wording) if name]
        names = {name.partition("[")[0] for name, _ in fields} - (
            {"target"} if isinstance(code, FindingCode) else set()
        )
        assert all(spec in FORMATTERS for _, spec in fields if spec.isidentifier() and spec != "g")
    else:
        names = set(inspect.signature(wording).parameters)
    assert names == set(code.value_names)


def drift(title, change):
    result = DriftResult(DriftCode.BECAME_SLOWER, {"change": change, "blocks": 24})
    return warning(FindingCode.LATENCY_DRIFT, title=title, results_by_scenario={"single": result})


def test_targets_of_which_the_same_is_said_are_named_together():
    findings = [drift(title, 0.2) for title in ("AWS EC2", "Heroku", "Run", "Functions")]
    assert gathered([*findings, warning(FindingCode.NO_REFERENCE)]) == [
        "AWS EC2, Heroku and 2 more drifted while the run went on (single: slower, +20.0% from the first third of 24 "
        "blocks to the last)",
        message(warning(FindingCode.NO_REFERENCE)),
    ]


def test_of_unlike_targets_one_remark_tells_the_first_three():
    findings = [drift(title, change / 10) for change, title in enumerate(("A", "B", "C", "D", "E"), 1)]
    (text,) = gathered(findings)
    assert text.count(" drifted while the run went on (single: slower, +") == 3
    assert text.startswith("A drifted") and "; C drifted" in text and text.endswith("; and 2 more alike")


def test_a_statement_refuses_values_that_its_code_has_not():
    with pytest.raises(ValueError, match="too_few_samples comes with"):
        reason(ReasonCode.TOO_FEW_SAMPLES, needed=6)
