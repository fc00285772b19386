from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from eval.dataset.image_set import ImageSet
from eval.dataset.images import load_images
from eval.errors import EvalError, ReferenceUnavailable
from eval.load import circuit_breaker, load_generator
from eval.plan.config import Config
from eval.progress import Reporter
from eval.report.render import write_reports
from eval.run.reference import reference_samples
from eval.run.run_dir import create_run_dir, update_latest
from eval.run.runner import RunOptions, execute_run, new_run
from eval.samples import store
from eval.samples.model import RUN_JSON
from eval.samples.store import read_run, read_samples
from eval.targets.endpoints import Endpoint, TargetSet
from infra.local.twins import local_twins
from tests.conftest import descendants
from tests.helpers.fake_endpoint import CERTAIN, CLASSES, answering, closed_port, fake_endpoint, image_set

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def two_fakes():
    with fake_endpoint() as one, fake_endpoint() as other:
        yield one, other


def endpoint(fake, name, target=None):
    return Endpoint(name, target, fake if isinstance(fake, str) else fake.url)


def config(**changes):
    return Config(**{"seed": 1, "warmup": 2, "block": 4, "baseline_rtt": 0, "timeout_s": 20.0} | changes)


def run(folder, endpoints, images=None, failures=None, command=("eval",), **changes):
    """A run; gives run.json, the samples but the reference's, and what was printed."""
    console = Console(file=io.StringIO(), width=200)
    fleet, images = TargetSet(tuple(endpoints), failures or {}), images or image_set(10)
    done = begin(folder, fleet, images, Reporter(console), RunOptions(command), **changes)
    assert read_run(folder) == done
    return done, [s for s in read_samples(folder) if s.target != "reference"], console.file.getvalue()


def begin(folder, fleet, images, screen, options=None, **changes):
    options, how = options or RunOptions(), config(**changes)
    return execute_run(folder, new_run("some-id", fleet, images, how, options), fleet, images, how, options, screen)


def measured(samples, name):
    return [s for s in samples if s.target == name and s.phase == "measure"]


def test_run_sends_the_same_bytes_once_to_every_endpoint(tmp_path):
    images = image_set(10)
    with two_fakes() as (one, other):
        done, samples, _ = run(tmp_path, [endpoint(one, "a"), endpoint(other, "b")], images)
        assert sorted(one.bodies[2:]) == sorted(other.bodies[2:]) == sorted(p.data for p in images.images)
    assert done.complete and done.incomplete_reason is None and done.ended_at
    assert done.planned_requests == 20
    for name in "ab":
        assert sorted(s.image_index for s in measured(samples, name)) == list(range(10))


def test_warm_up_is_sampled_apart(tmp_path):
    with fake_endpoint() as fake:
        _, samples, _ = run(tmp_path, [endpoint(fake, "a")], warmup=3)
    assert Counter(s.phase for s in samples) == {"warmup": 3, "measure": 10}
    assert [s.phase for s in samples[:3]] == ["warmup"] * 3


def test_latency_in_a_block_is_without_the_clients_own_time(tmp_path):
    with fake_endpoint() as fake:
        _, samples, _ = run(tmp_path, [endpoint(fake, "a")])
    for before, after in itertools.pairwise(measured(samples, "a")):
        if before.block == after.block:
            assert after.scheduled_s > before.scheduled_s + before.latency_ms / 1000  # then the sample was written
        assert after.send_delay_ms is None and after.latency_ms == after.service_time_ms


def test_blocks_of_the_targets_alternate(tmp_path):
    with two_fakes() as (one, other):
        _, samples, _ = run(tmp_path, [endpoint(one, "a"), endpoint(other, "b")])
    turns = [s.target for s in samples if s.phase == "measure"]
    assert turns.index("a") < 8 and turns.index("b") < 8
    blocks = [s.block for s in samples if s.phase == "measure"]
    assert blocks == sorted(blocks)


def test_run_json_says_who_what_and_where(tmp_path):
    with fake_endpoint() as fake:
        done, _, _ = run(tmp_path, [endpoint(fake, "heroku-prod", "heroku")], command=("eval", "run"))
    (target,) = done.targets
    assert (target.name, target.target, target.url, target.twin) == ("heroku-prod", "heroku", fake.url, False)
    assert target.version == {"model": {"name": "fake"}, "instance_id": "abc123"}
    assert (done.seed, done.scenarios, done.command) == (1, ["single"], ["eval", "run"])
    assert done.classes == list(CLASSES)
    assert done.client_environment["cores"] >= 1 and done.client_environment["memory_mib"] > 0
    assert {"python", "aiohttp"} <= set(done.versions)


def test_while_it_runs_run_json_says_incomplete(tmp_path):
    seen = []
    with fake_endpoint() as fake:
        fake.on_post = lambda count: seen.append(json.loads((tmp_path / RUN_JSON).read_text())) if count == 1 else None
        run(tmp_path, [endpoint(fake, "a")])
    assert [(facts["complete"], facts["incomplete_reason"]) for facts in seen] == [(False, "running")]


def test_samples_are_on_disk_as_they_finish(tmp_path):
    lines = []
    with fake_endpoint() as fake:
        fake.on_post = lambda _: lines.append(len([s for s in read_samples(tmp_path) if s.target == "a"]))
        run(tmp_path, [endpoint(fake, "a")])
    assert lines == list(range(12))


def test_the_golden_answers_stand_among_the_samples_as_reference(tmp_path):
    with fake_endpoint() as fake:
        run(tmp_path, [endpoint(fake, "a")])
    found = [s for s in read_samples(tmp_path) if s.target == "reference"]
    assert [s.image_index for s in found] == list(range(10))
    assert {(s.scenario, s.phase, s.predicted_class, s.probabilities) for s in found} == {
        ("reference", "measure", 3, CERTAIN)
    }


@pytest.mark.parametrize("mode", ["broken", "throttled", answering(label="dog")], ids=["broken", "throttled", "label"])
def test_failures_are_counted_and_do_not_end_the_run(tmp_path, mode):
    with two_fakes() as (one, other):
        one.mode = mode
        done, samples, said = run(tmp_path, [endpoint(one, "a"), endpoint(other, "b")], images=image_set(30))
    assert done.complete
    assert len(measured(samples, "a")) == 30 and all(s.error for s in measured(samples, "a"))
    assert not any(s.error for s in measured(samples, "b"))
    assert "31 failed" in said  # the first one was sent before the bar was drawn


@pytest.mark.parametrize("mode", ["html", "unauthorised", "redirect", "gone", "not_allowed"])
def test_a_first_response_beyond_cure_ends_its_target_alone(tmp_path, mode):
    with two_fakes() as (one, other):
        one.mode = mode
        done, samples, said = run(tmp_path, [endpoint(one, "a"), endpoint(other, "b")])
        assert len(one.posts) == 1
    assert "--token-env a=VARIABLE" in said or "--target a=URL" in said
    assert f"a: {done.targets[0].failure}" in said
    assert done.complete and done.planned_requests == len(measured(samples, "b")) == 10
    assert measured(samples, "a") == []


def test_a_first_response_is_checked_without_a_warm_up_too(tmp_path):
    with fake_endpoint("unauthorised") as fake:
        done, samples, _ = run(tmp_path, [endpoint(fake, "a")], warmup=0)
        assert len(fake.posts) == 1
    assert [s.error for s in samples] == ["http_4xx", *["dropped"] * 9]
    assert "--token-env a=VARIABLE" in (done.targets[0].failure or "")


def test_a_refusal_after_an_answer_ends_nothing(tmp_path):
    with fake_endpoint() as fake:
        fake.on_post = lambda count: setattr(fake, "mode", "good" if count == 1 else "unauthorised")
        done, samples, _ = run(tmp_path, [endpoint(fake, "a")])
    assert [s.error for s in measured(samples, "a")] == ["http_4xx"] * 10
    assert done.targets[0].failure is None


def test_dead_endpoint_is_given_up_and_its_requests_are_failures(tmp_path, monkeypatch):
    monkeypatch.setattr(load_generator, "RECOVERY_TIMEOUT_S", 0.05)
    with two_fakes() as (one, other):
        other.on_post = lambda count: one.stop() if count == 10 else None
        done, samples, said = run(tmp_path, [endpoint(one, "a"), endpoint(other, "b")], images=image_set(60))
    assert done.complete
    dead = measured(samples, "a")
    assert sorted(s.image_index for s in dead) == list(range(60))
    assert dead[-1].error == "dropped" and (dead[-1].detail or "").startswith(
        "no more requests are sent to the target: connect: "
    )
    assert sum(s.error == "dropped" for s in dead) >= 60 - 12 - circuit_breaker.MAX_CONSECUTIVE_FAILURES
    assert (done.targets[0].failure or "").startswith("stopped after 20 consecutive failures, connect: ")
    assert "a: stopped after" in said
    assert not any(s.error for s in measured(samples, "b"))


def test_an_endpoint_that_recovers_is_asked_on(tmp_path, monkeypatch):
    with fake_endpoint("hangup") as fake:
        fake.on_post = lambda count: setattr(fake, "mode", "good") if count == 25 else None
        done, samples, _ = run(tmp_path, [endpoint(fake, "a")], images=image_set(40), warmup=0)
    assert Counter(s.error for s in samples) == {"disconnected": 24, None: 16}
    assert done.targets[0].failure is None


def test_ready_endpoint_that_never_responds_is_given_up(tmp_path):
    with fake_endpoint("hangup") as fake:
        done, samples, _ = run(tmp_path, [endpoint(fake, "a")], images=image_set(80), warmup=0)
        assert len(fake.posts) == circuit_breaker.MAX_CONSECUTIVE_FAILURES * (circuit_breaker.MAX_READY_PROBES + 1)
    assert Counter(s.error for s in samples) == {"disconnected": 60, "dropped": 20}
    assert (done.targets[0].failure or "").startswith("stopped after 60 consecutive failures")


def test_time_in_vain_counts_like_failures_in_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(circuit_breaker, "MAX_FAILING_S", 0.2)
    with fake_endpoint("slow") as fake:
        _, samples, _ = run(tmp_path, [endpoint(fake, "a")], images=image_set(20), warmup=0, timeout_s=0.15)
    errors = Counter(s.error for s in samples)
    assert set(errors) == {"timeout", "dropped"} and errors["dropped"] > 10


def test_unreachable_endpoint_gets_a_failure_and_no_samples(tmp_path):
    with fake_endpoint() as fake:
        dead = endpoint(f"http://127.0.0.1:{closed_port()}", "dead")
        done, samples, _ = run(tmp_path, [dead, endpoint(fake, "a")])
    assert (done.targets[0].failure or "").startswith("not reached before the run: connect: ")
    assert {s.target for s in samples} == {"a"}
    assert done.complete and done.planned_requests == 10


def test_a_twin_that_did_not_start_is_in_the_run_with_its_reason(tmp_path):
    with fake_endpoint() as fake:
        done, samples, _ = run(tmp_path, [endpoint(fake, "a")], failures={"heroku": "no gunicorn"})
    twin = done.targets[1]
    assert (twin.name, twin.target, twin.twin, twin.failure) == ("heroku", "heroku", True, "no gunicorn")
    assert {s.target for s in samples} == {"a"}


def test_a_run_in_which_nobody_can_be_reached_is_not_complete(tmp_path):
    done, samples, _ = run(tmp_path, [endpoint("http://nothing.invalid", "a")])
    assert (done.complete, done.incomplete_reason, done.planned_requests) == (False, "no target could be measured", 0)
    assert samples == []


def test_ctrl_c_cancels_the_request_and_marks_the_run_incomplete(tmp_path):
    def interrupt(count):
        if count == 2 + 5:  # warm-up, and four that were answered
            fake.mode = "slow"
            os.kill(os.getpid(), signal.SIGINT)

    with fake_endpoint() as fake:
        fake.on_post = interrupt
        done, samples, _ = run(tmp_path, [endpoint(fake, "a")])
    assert not done.complete and done.ended_at
    assert done.incomplete_reason == "interrupted after 4 of 10 requests"
    assert len(measured(samples, "a")) == 4


def test_a_full_disk_is_one_clear_error(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("/dev/full is not here: Linux has it")
    real = store.append_sample
    with fake_endpoint() as fake, full.open("w") as nowhere, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "append_sample", lambda file, *rest: real(nowhere, *rest))
        with pytest.raises(EvalError, match=f"cannot write into {tmp_path}: No space left on device"):
            run(tmp_path, [endpoint(fake, "a")])
        with contextlib.suppress(OSError):
            nowhere.close()
    left = read_run(tmp_path)
    assert not left.complete and (left.incomplete_reason or "").startswith(
        "ended after 0 of 10 requests: cannot write into"
    )


def test_a_record_that_no_report_could_read_ends_the_run(tmp_path):
    with fake_endpoint() as fake, pytest.raises(EvalError, match=r"so nothing was measured: .*UTF-8"):
        run(tmp_path, [endpoint(fake, "a")], command=("eval", "--out", "caf\udce9"))
    assert not fake.posts


def test_a_folder_that_holds_a_run_is_refused(tmp_path):
    with fake_endpoint() as fake:
        run(tmp_path, [endpoint(fake, "a")])
    with pytest.raises(EvalError, match=r"has a run already \(run.json\)"):
        create_run_dir(tmp_path)


def test_a_report_of_the_users_own_is_kept(tmp_path):
    with fake_endpoint() as fake:
        create_run_dir(tmp_path / "run")
        run(tmp_path / "run", [endpoint(fake, "a")])
    write_reports(tmp_path / "run")
    for path in (tmp_path / "run").glob("report*"):
        folder = tmp_path / f"of{path.suffix}"
        folder.mkdir()
        (folder / path.name).write_text("mine")
        with pytest.raises(EvalError, match=rf"has {path.name} already, which the run's would replace"):
            create_run_dir(folder)
    assert len(list(tmp_path.glob("of.*/report.*"))) == 3


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EvalError, match=r"cannot write into .*: Not a directory"):
        create_run_dir(tmp_path / "file" / "run")


def test_latest_points_to_the_newest_run(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        update_latest(tmp_path / name)
    assert (tmp_path / "latest").readlink() == Path("two")


def test_a_real_folder_called_latest_is_left_alone(tmp_path):
    (tmp_path / "latest").mkdir()
    update_latest(tmp_path / "one")
    assert not (tmp_path / "latest").is_symlink()


def test_killed_twin_ends_neither_the_run_nor_the_count(tmp_path):
    images = load_images("golden", 60, 0, print)

    class Deadly(Reporter):
        def progress_bar(self, description, total, unit=""):
            counting = super().progress_bar(description, total, unit)
            counting.maybe_refresh = lambda: kill() if description == "Requests" and counting.completed == 33 else None
            return counting

    with local_twins(["heroku"], tmp_path / "logs", engines=["onnx"]) as twins, fake_endpoint() as fake:
        (twin,) = twins.running

        def kill():
            os.killpg(twin.pid, signal.SIGKILL)

        endpoints = (Endpoint(twin.name, "heroku", twin.url, twin), endpoint(fake, "a"))
        screen = Deadly(Console(file=io.StringIO()))
        done = begin(tmp_path, TargetSet(endpoints, {}), images, screen, warmup=5, block=5, restarts=0)
    assert done.complete
    asked = measured(read_samples(tmp_path), "heroku-onnx")
    assert sorted(s.image_index for s in asked) == list(range(60))
    assert {None, "connect"} <= {s.error for s in asked} <= {None, "connect", "disconnected", "dropped"}
    assert "stopped after" in (done.targets[0].failure or "")
    assert "its process ended" in (done.targets[0].failure or "")
    other = measured(read_samples(tmp_path), "a")
    assert not any(s.error for s in other)
    cpu_ms = [s.cpu_ms for s in asked if not s.error]
    assert None not in cpu_ms and sum(cpu_ms) > 0
    assert {s.cpu_ms for s in other} == {None}  # nobody sees what it uses
    assert done.targets[0].startup_ms and done.targets[0].cpus == 1


# The reference process


def bare(count):
    """Pictures without reference answers beside them."""
    images = image_set(count)
    return ImageSet(images.source, images.classes, images.images, model=images.model)


async def collect(images, *command):
    return [sample async for sample in reference_samples(images, *command)]


def script(tmp_path, text):
    path = tmp_path / "reference.py"
    path.write_text(text)
    return (sys.executable, str(path))


def test_reference_process_gets_the_posted_bytes_in_order(tmp_path):
    program = (
        "import sys, json, pathlib, hashlib\n"
        "for line in sys.stdin:\n"
        "    size = len(pathlib.Path(line.strip()).read_bytes())\n"
        "    print(json.dumps({'id': size % 10, 'probabilities': [0.1] * 10}), flush=True)\n"
    )
    images = bare(5)
    found = asyncio.run(collect(images, script(tmp_path, program)))
    assert [s.predicted_class for s in found] == [len(p.data) % 10 for p in images.images]
    assert [s.image_index for s in found] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import sys; sys.exit('reference: no torch')", "reference: no torch"),
        ("print('hello')", "a line that is not a prediction"),
        ("pass", "predicted 0 of 3 images"),
    ],
    ids=["fails", "garbage", "silent"],
)
def test_a_reference_that_cannot_be_had_says_why(tmp_path, program, says):
    with pytest.raises(ReferenceUnavailable, match=says):
        asyncio.run(collect(bare(3), script(tmp_path, program)))


def test_ctrl_c_during_the_reference_ends_its_process(tmp_path, monkeypatch):
    program = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(600)"
    monkeypatch.setattr(reference_samples, "__defaults__", (script(tmp_path, program),))
    with fake_endpoint() as fake:
        done, samples, _ = run(tmp_path, [endpoint(fake, "a")], bare(4), warmup=0)
    assert (done.complete, done.incomplete_reason, samples) == (False, "interrupted after 0 of 4 requests", [])
    assert descendants() == []


def test_without_a_reference_the_run_goes_on_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(reference_samples, "__defaults__", (script(tmp_path, "import sys; sys.exit('no torch')"),))
    with fake_endpoint() as fake:
        done, samples, said = run(tmp_path, [endpoint(fake, "a")], bare(4))
    assert done.complete and len(measured(samples, "a")) == 4
    assert "No reference predictions, so no comparison with the model itself: no torch" in said
