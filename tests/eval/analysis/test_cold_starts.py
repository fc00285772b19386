"""Cold starts: proven by the instance itself, reported with n and interval, forced on real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from eval.analysis.cold_starts import (
    STARTUP_PHASES,
    ColdStartReport,
    cold_start_metrics,
    expected_labels,
    find_cold_starts,
    first_seen,
    startup_s_for_billing,
)
from eval.codes import ReasonCode, reason, unavailable
from eval.dataset.images import load_images
from eval.errors import EndpointError, RestartFailed
from eval.load.client import Client, RequestSpec
from eval.load.cold_start import measure_cold_start, startup_phases
from eval.mock_server.behaviour import MockEndpoint
from eval.mock_server.profile import EndpointProfile
from eval.plan.arrivals import idle_arrivals
from eval.report.report_json import to_jsonable
from eval.samples.model import TargetRun
from eval.stats.intervals import Estimate, ci_ranks
from eval.targets import restart
from eval.targets.restart import (
    check_restart_targets,
    command_restart,
    fill_revision,
    parse_restart_commands,
    twin_restart,
)
from infra.local.twins import local_twins
from infra.targets import AWS_EC2, GCP_CLOUDRUN, HEROKU, TARGETS
from tests.helpers.fake_endpoint import CLASSES, picture
from tests.helpers.mock_endpoint import pictures, with_mock_endpoint
from tests.helpers.synthetic_run import FOUR, make_run, make_sample
from tests.helpers.twin_files import small_service

pytestmark = pytest.mark.integration

ROUNDING_MS = 0.002  # of three figures of three digits
STARTUP = {"time_to_first_prediction": 3000.0, "ready": 2960.0, "process": 400.0, "import": 1800.0, "load": 300.0,
           "first_prediction": 100.0, "total": 2200.0}  # fmt: skip


def twin_run(name: str = "heroku", twin: bool = True) -> TargetRun:
    return TargetRun(name, name if name in TARGETS else None, "http://127.0.0.1:1", twin)


def cold(number: int, scenario: str = "cold", **changes):
    """The number-th first request of its instance, 60 s after the one before."""
    usual = {
        "scenario": scenario, "block": 100 + number, "scheduled_s": 60.0 * (number + 1), "instance_id": f"i{number}",
        "instance_request_number": 1, "latency_ms": 40.0 + number,
        "startup_ms": {**STARTUP, "time_to_first_prediction": 3000.0 + number},
    }  # fmt: skip
    return make_sample(**usual | changes)


def warm(count: int = 50, latency_ms: float = 10.0, instance: str = "warm"):
    return [
        make_sample(block=1, index_in_block=i, scheduled_s=i / 10, latency_ms=latency_ms, instance_id=instance,
                    instance_request_number=i + 1)
        for i in range(count)
    ]  # fmt: skip


def metrics(samples, it: TargetRun | None = None) -> ColdStartReport:
    return cold_start_metrics(it or twin_run(), samples, expected_labels([0], samples, []))


def report(samples, it: TargetRun | None = None) -> dict:
    return to_jsonable(metrics(samples, it))


def missing(code: ReasonCode, **values) -> dict:
    return to_jsonable(Estimate(None, reason=reason(code, **values)))


# What is a cold start


def test_the_instances_word_decides_and_not_the_time():
    slow = cold(0, instance_request_number=7, latency_ms=90_000.0)
    fast = cold(1, latency_ms=0.1)
    found = find_cold_starts([*warm(), slow, fast], "cold")
    assert found.confirmed == (fast,)
    assert found.discarded == {"missing_headers": 0, "not_first_request": 1, "instance_seen_before": 0}


@pytest.mark.parametrize(
    "earlier",
    [
        pytest.param(
            make_sample(scenario="baseline_rtt", image=-1, instance_id="i3", instance_request_number=0), id="no-op"
        ),
        pytest.param(make_sample(phase="warmup", instance_id="i3", instance_request_number=1), id="warm-up"),
        pytest.param(replace(make_sample(error="http_5xx"), instance_id="i3"), id="failure"),
        pytest.param(cold(2, instance_id="i3"), id="another-start"),
    ],
)
@pytest.mark.parametrize("order", [1, -1], ids=["in-order", "out-of-order"])
def test_an_instance_that_answered_before_proves_nothing(earlier, order):
    found = find_cold_starts([earlier, cold(3)][::order], "cold")
    assert cold(3) not in found.confirmed
    assert found.discarded["instance_seen_before"] == 1


def test_an_answer_without_the_instances_word_proves_nothing():
    samples = [cold(0, instance_request_number=None), cold(1, instance_id=None), cold(2, error="timeout")]
    found = find_cold_starts(samples, "cold")
    assert found.confirmed == ()
    assert (found.discarded["missing_headers"], found.failed, found.attempted) == (2, 1, 3)


def test_forced_and_natural_starts_are_apart():
    idle = [cold(i, "idle", idle_gap_s=900.0 + i) for i in range(20, 27)]
    found = report([*warm(), *(cold(i) for i in range(8)), *idle])
    assert (found["forced"]["confirmed"], found["idle"]["confirmed"]) == (8, 7)
    assert found["idle"]["idle_gap_s"] == {"min": 920.0, "max": 926.0}
    assert found["idle"]["time_to_first_prediction_ms"]["p50"] == to_jsonable(
        unavailable(ReasonCode.START_COMMAND_NOT_OBSERVABLE)
    )
    without = report(warm())
    assert without["forced"] == to_jsonable(unavailable(ReasonCode.NO_FORCED_START))
    assert without["idle"] == to_jsonable(unavailable(ReasonCode.NO_IDLE_GAP))


# The figures


def test_nineteen_starts_give_a_median_with_interval_and_no_p95():
    low, high = ci_ranks(0.5, 19)
    not_first = cold(30, instance_request_number=2, latency_ms=9e9)
    found = report([*warm(), *(cold(i) for i in reversed(range(19))), not_first])["forced"]
    assert (found["attempted"], found["confirmed"], found["discarded"]["not_first_request"]) == (20, 19, 1)
    assert found["latency_ms"]["p50"] == {
        "value": 49.0,
        "low": 39.0 + low,
        "high": 39.0 + high,
        "n": 19,
        "reason": None,
        "high_is_max": False,
    }
    create_ms = found["time_to_first_prediction_ms"]["p50"]
    assert create_ms == to_jsonable(Estimate(3009.0, 2999.0 + low, 2999.0 + high, 19))
    assert found["time_to_first_prediction_ms"]["p95"] == missing(ReasonCode.TOO_FEW_SAMPLES, needed=72, n=19)
    assert found["confirmed_fraction"]["value"] == pytest.approx(19 / 20)


def test_too_few_starts_have_a_reason_instead_of_a_median():
    found = report([*warm(), *(cold(i) for i in range(5))])["forced"]
    too_few = missing(ReasonCode.TOO_FEW_SAMPLES, needed=6, n=5)
    assert found["latency_ms"]["p50"] == found["over_warm_ms"] == too_few
    assert found["phases_ms"]["phases"] == {}


def test_the_phases_add_up_to_the_median_start():
    startup = [
        {**STARTUP, "time_to_first_prediction": 3000.0 + 10 * i, "import": 1800.0 + 7 * (-1) ** i * i} for i in range(9)
    ]
    found = report([*warm(), *(cold(i, startup_ms=startup[i]) for i in range(9))])["forced"]["phases_ms"]
    assert list(found["phases"]) == [*STARTUP_PHASES, "platform_overhead"]
    assert sum(part["value"] for part in found["phases"].values()) == pytest.approx(3040.0)
    assert found["phases"]["platform_overhead"]["value"] == pytest.approx(3040 - 400 - 1800 - 300 - 100)
    assert found["total"]["value"] == 3040.0


@pytest.mark.parametrize(
    ("it", "kind", "felt_ms"),
    [
        pytest.param(twin_run("heroku"), "forced", 3003.0, id="dyno"),
        pytest.param(twin_run("gcp_cloudrun"), "forced", 3003.0, id="container"),
        pytest.param(twin_run("aws_ec2"), "forced", 43.0, id="virtual-machine"),
        pytest.param(twin_run("gcp_cloudrun", twin=False), "forced", 43.0, id="cloud"),
        pytest.param(twin_run("mine", twin=False), "forced", 43.0, id="foreign"),
        pytest.param(twin_run("heroku"), "idle", 43.0, id="idle"),
    ],
)
def test_platform_overhead_is_the_time_beyond_a_warm_request(it, kind, felt_ms):
    scenario = {"forced": "cold", "idle": "idle"}[kind]
    found = report([*warm(latency_ms=10.0), *(cold(i, scenario) for i in range(7))], it)[kind]
    assert found[found["user_visible"]["metric"]]["p50"]["value"] == felt_ms
    assert found["over_warm_ms"]["value"] == felt_ms - 10.0
    assert found["over_warm_ms"]["low"] < felt_ms - 10.0


def test_without_warm_requests_there_is_no_overhead():
    found = report([cold(i) for i in range(7)])
    too_few = reason(ReasonCode.TOO_FEW_SAMPLES, needed=6, n=0)
    assert found["forced"]["over_warm_ms"] == missing(ReasonCode.NO_WARM_MEDIAN, cause=too_few)


def test_a_failed_start_is_counted_and_endless():
    found = report([*warm(), *(cold(i) for i in range(8)), *(cold(i, error="dropped") for i in (8, 9))])["forced"]
    assert (found["attempted"], found["confirmed"], found["failed"]) == (10, 8, 2)
    assert found["latency_ms"]["p50"]["value"] == 43.0
    assert found["latency_with_failures_ms"]["p50"] == missing(ReasonCode.UPPER_BOUND_INFINITE, failed=2, n=10)


def test_a_wrong_first_prediction_does_not_end_a_start():
    samples = [*warm(), *(cold(i) for i in range(8)), cold(8, predicted_class=5)]
    found = report(samples)["forced"]
    assert (found["confirmed"], found["incorrect"], found["time_to_first_prediction_ms"]["p50"]["n"]) == (9, 1, 8)


def test_correct_is_what_the_model_says_even_where_it_errs():
    own = [make_sample(image=1, predicted_class=7)]
    reference = [make_sample(image=2, predicted_class=4)]
    assert expected_labels([0, 1, 2], own, reference) == {0: 0, 1: 7, 2: 4}
    assert expected_labels([0, 1, 2], [cold(0, image=1, predicted_class=9)], [])[1] == 1  # it is in question


def test_prewarmed_instance_is_excluded_from_the_startup_phases():
    late = {"import": 1000.0, "load": 200.0, "first_prediction": 50.0}
    held = [cold(i, "idle", startup_ms=late, latency_ms=1500.0 + i) for i in range(7)]
    early = [cold(i, "idle", startup_ms=late, latency_ms=20.0) for i in range(10, 12)]
    cloud = twin_run("gcp_cloudrun", twin=False)
    found = report([*warm(), *held, *early], cloud)
    phases = found["idle"]["phases_ms"]
    assert (found["idle"]["confirmed"], phases["n"], phases["prewarmed"]) == (9, 7, 2)
    assert phases["phases"]["platform_overhead"]["value"] == pytest.approx(1503 - 1250)
    assert startup_s_for_billing(metrics([*warm(), *held, *early], cloud)) is None
    assert startup_s_for_billing(metrics([*warm(), *held], cloud)) == 1.503


def test_the_bill_takes_the_whole_start_of_a_twin():
    assert startup_s_for_billing(metrics([*warm(), *(cold(i) for i in range(7))], twin_run("aws_ec2"))) == 3.003
    assert startup_s_for_billing(metrics(warm())) is None


def test_a_whole_runs_samples_have_no_start_by_chance():
    _, samples = make_run(40)
    assert set(first_seen(samples)) == {f"{name}-0" for name in FOUR}
    assert find_cold_starts(samples, "single").confirmed == ()  # the first request of each is of its warm-up


# The gaps


def test_idle_gaps_are_long_enough_and_shared_by_all_targets():
    plan = idle_arrivals(list(FOUR), repeats=5, gap_s=900, seed=3)
    assert plan == sorted(plan) == idle_arrivals(list(FOUR), 5, 900, 3)
    assert len({due for due, _ in plan}) == 20  # nobody at the same moment
    for target in FOUR:
        times = [0.0, *(due for due, name in plan if name == target)]
        gaps = [b - a for a, b in pairwise(times)]
        assert len(gaps) == 5
        assert 900 <= min(gaps) < max(gaps) <= 930
    assert plan[-1][0] < 6 * 900
    assert plan != idle_arrivals(list(FOUR), 5, 900, 4)


def test_the_mock_endpoints_cold_starts_are_found_and_no_others():
    """The mock endpoint knows its instances: on a busy machine a request without a gap may also reach a new one."""
    truth = EndpointProfile(median_ms=5.0, sigma=0.4, cold_start_ms=120.0, idle_s=0.1)
    images = pictures(1)
    gaps_s = [0.2, 0.0, 0.2, 0.2, 0.0, 0.2, 0.2, 0.0, 0.2, 0.2, 0.2]  # the long ones bring a new instance

    async def measure(url: str, mock: MockEndpoint):
        async with Client("mock", url, images.classes, 10, time.perf_counter()) as client:
            first, _ = await client.send(RequestSpec("single", "warmup", 0, 0, images.images[0]), time.perf_counter())
            samples = [first]
            for block, gap_s in enumerate(gaps_s, 1):
                await asyncio.sleep(gap_s)
                ask = RequestSpec("idle", "measure", block, 0, images.images[0], gap_s=gap_s)
                samples.append((await client.send(ask, time.perf_counter()))[0])
            return samples, mock.instance_ids

    samples, (first, *started) = with_mock_endpoint(truth, measure)
    found = find_cold_starts(samples, "idle")
    assert samples[0].instance_id == first and [s.instance_id for s in found.confirmed] == started
    assert [s.idle_gap_s for s in found.confirmed].count(0.2) == gaps_s.count(0.2)
    assert found.discarded["not_first_request"] == len(gaps_s) - len(started)
    median = report(samples, twin_run("mock", twin=False))["idle"]["latency_ms"]["p50"]
    assert median["low"] > truth.cold_start_ms


# Forcing a start


def forced(make_forcing, url: str, times: int = 1, seen=lambda index, sample: None):
    """Samples of forced starts over one client, as a run does them."""

    async def go():
        samples = []
        async with Client("heroku", url, CLASSES, 30, time.perf_counter()) as client:
            for index in range(times):
                ask = RequestSpec("cold", "measure", index, 0, picture())
                sample = await measure_cold_start(make_forcing(), client, ask)
                samples.append(sample)
                seen(index, sample)
        return samples

    return asyncio.run(go())


def test_forced_start_is_confirmed_timed_and_leaves_the_twin_up(tmp_path, monkeypatch):
    small_service(monkeypatch, tmp_path)
    with local_twins(["heroku"], tmp_path) as twins:
        (twin,) = twins.running
        start = time.perf_counter()
        samples = forced(lambda: twin_restart(twin), twin.url, times=3)
        elapsed_ms = (time.perf_counter() - start) * 1000
        assert twin.alive()  # a twin ends with the thread that started it, so it must not have been a worker's
    found = find_cold_starts(samples, "cold")
    assert len(found.confirmed) == 3
    assert sum(sample.startup_ms["time_to_first_prediction"] for sample in found.confirmed) <= elapsed_ms
    for sample in found.confirmed:
        told = sample.startup_ms
        assert told["time_to_first_prediction"] >= told["ready"] + sample.latency_ms - ROUNDING_MS
        assert 0 < told["process"] < told["ready"]
        assert (told["import"], told["load"], told["first_prediction"]) == (2.0, 1.0, 0.5)


def test_failed_start_drops_its_request_and_the_next_succeeds(tmp_path, monkeypatch):
    small_service(monkeypatch, tmp_path)
    (tmp_path / "large").touch()
    with local_twins(["heroku"], tmp_path) as twins:
        (twin,) = twins.running
        (tmp_path / "broken").touch()
        failed, good = forced(
            lambda: twin_restart(twin), twin.url, times=2, seen=lambda *_: (tmp_path / "broken").unlink(missing_ok=True)
        )
    assert failed.error == "dropped"
    assert "broken as it was told" in failed.detail
    assert failed.startup_ms == {}
    assert (good.error, good.instance_request_number) == (None, 1)


def test_a_twin_that_is_never_ready_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    small_service(monkeypatch, tmp_path)
    with local_twins(["heroku"], tmp_path) as twins:
        (twin,) = twins.running
        hasty = replace(twin_restart(twin), ready_timeout_s=0.0)
        (sample,) = forced(lambda: hasty, twin.url)
    assert (sample.error, sample.detail) == ("dropped", "was not ready within 0 s of its start")


def test_phases_of_another_instance_are_not_taken(tmp_path, monkeypatch):
    small_service(monkeypatch, tmp_path)

    async def ask(url: str, instance_id: str | None):
        async with Client("heroku", url, CLASSES, 30, time.perf_counter()) as client:
            sample, _ = await client.send(RequestSpec("idle", "measure", 0, 0, picture()), time.perf_counter())
            other = replace(sample, instance_id=instance_id)
            return await startup_phases(client, sample), await startup_phases(client, other)

    with local_twins(["heroku"], tmp_path) as twins:
        own, others = asyncio.run(ask(twins.running[0].url, "another"))
    assert own == {"import": 2.0, "load": 1.0, "first_prediction": 0.5, "total": 3.5}
    assert others == {}


def test_a_command_gets_a_new_revision_every_time(tmp_path, monkeypatch):
    small_service(monkeypatch, tmp_path)
    log = tmp_path / "revisions"
    script = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + '\\n')"
    command = (sys.executable, "-c", script, str(log), "up-{revision}")
    with local_twins(["heroku"], tmp_path) as twins:
        samples = forced(lambda: command_restart(command, GCP_CLOUDRUN), twins.running[0].url, times=2)
    first, second = log.read_text().split()
    assert first.startswith("up-r2") and first < second
    assert [s.instance_request_number for s in samples] == [1, 2]  # the command started nothing
    assert len(find_cold_starts(samples, "cold").confirmed) == 1
    assert "ready" not in samples[0].startup_ms  # /readyz would have been the request that starts an instance
    assert samples[0].startup_ms["time_to_first_prediction"] > samples[0].latency_ms
    assert "process" not in samples[0].startup_ms  # that machine has its own clock


def test_a_failing_command_is_told_by_its_last_line():
    script = "import sys; print('much'); sys.exit('no credentials')"
    (sample,) = forced(lambda: command_restart((sys.executable, "-c", script), HEROKU), "http://127.0.0.1:1")
    assert sample.error == "dropped"
    assert sample.detail.endswith("ended with status 1: no credentials")
    (sample,) = forced(lambda: command_restart(("no-such-program",), HEROKU), "http://127.0.0.1:1")
    assert sample.detail == "no-such-program: No such file or directory"


def test_a_command_that_hangs_is_interrupted_and_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(restart, "COMMAND_TIMEOUT_S", 0.5)
    script = (
        "import sys, time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    open(sys.argv[1], 'w').write('end')"
    )
    noted = tmp_path / "noted"
    (sample,) = forced(
        lambda: command_restart((sys.executable, "-c", script, str(noted)), HEROKU), "http://127.0.0.1:1"
    )
    assert "did not end within" in sample.detail
    assert noted.read_text() == "end"


def test_what_a_shell_started_is_interrupted_too(tmp_path, monkeypatch):
    monkeypatch.setattr(restart, "COMMAND_TIMEOUT_S", 1.0)
    noted = tmp_path / "noted"
    script = (
        f"import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    open({str(noted)!r}, 'w').write('end')"
    )
    with pytest.raises(RestartFailed, match="did not end within"):
        asyncio.run(restart.run_restart_command(("sh", "-c", '"$0" -c "$1"; true', sys.executable, script)))
    assert noted.read_text() == "end"


def test_a_command_has_ended_when_its_service_goes_on(tmp_path):
    number = tmp_path / "number"
    script = f"sleep 600 & echo $! > {number}; echo started"  # the service holds the command's output open
    asyncio.run(restart.run_restart_command(("sh", "-c", script)))
    os.kill(int(number.read_text()), signal.SIGKILL)  # it was there


@pytest.mark.parametrize(("target", "asks"), [(AWS_EC2, True), (HEROKU, True), (GCP_CLOUDRUN, False), (None, True)])
def test_readyz_is_asked_only_where_it_starts_nothing(target, asks):
    assert (command_restart(("x",), target).ready_timeout_s is not None) == asks


def test_a_revision_is_filled_into_a_command():
    command = ("pulumi", "up", "--config", "cloudtrial:revision={revision}")
    assert fill_revision(command, "r1") == ["pulumi", "up", "--config", "cloudtrial:revision=r1"]


def test_cold_commands_are_read_in_words():
    texts = ["heroku=heroku ps:restart --app 'my app'", "gcp_cloudrun=pulumi up --config a:b=c"]
    found = parse_restart_commands(texts)
    assert found["heroku"] == ("heroku", "ps:restart", "--app", "my app")
    assert found["gcp_cloudrun"][-1] == "a:b=c"
    with pytest.raises(EndpointError, match=r"no such endpoint.*aws_ec2"):
        check_restart_targets(found, ["heroku", "aws_ec2"])


@pytest.mark.parametrize("texts", [["heroku"], ["heroku="], ["=x"], ["heroku=a 'b"], ["heroku=a", "heroku=b"]])
def test_a_bad_cold_command_is_named(texts):
    with pytest.raises(EndpointError, match="--cold-command"):
        parse_restart_commands(texts)


def test_the_vms_twin_starts_anew_and_predicts_as_its_model_does(tmp_path):
    images = load_images("golden", None, 0, lambda text: None)
    first = images.images[0]

    async def go(twin):
        async with Client("aws_ec2", twin.url, images.classes, 60, time.perf_counter()) as client:
            return await measure_cold_start(twin_restart(twin), client, RequestSpec("cold", "measure", 0, 0, first))

    with local_twins(["aws_ec2"], tmp_path, engines=["onnx"]) as twins:
        (twin,) = twins.running
        sample = asyncio.run(go(twin))
        assert twin.alive()
    assert find_cold_starts([sample], "cold").confirmed == (sample,)
    assert images.reference_probabilities is not None
    assert sample.predicted_class == max(range(10), key=images.reference_probabilities[0].__getitem__)
    told = sample.startup_ms
    assert all(told[name] > 0 for name in STARTUP_PHASES)
    assert sum(told[name] for name in STARTUP_PHASES) < told["time_to_first_prediction"]
