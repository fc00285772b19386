"""A run that was killed is gone on with: nothing is lost, nothing is measured twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
from collections import Counter
from types import SimpleNamespace

import pytest

from eval.__main__ import main
from eval.samples.model import SAMPLES_FILE
from eval.samples.store import read_run, read_samples
from tests.helpers.fake_endpoint import closed_port, fake_endpoint

pytestmark = pytest.mark.integration

KILLS = 12


def arguments(fake, folder, *more):
    return [
        "run", "--target", f"a={fake.url}", "--images", "golden", "--limit", "20", "--warmup", "2", "--block", "4",
        "--baseline-rtt", "2", "--out", str(folder), *more,
    ]  # fmt: skip


def keys(folder):
    return Counter((s.block, s.index_in_block) for s in read_samples(folder))


def cut(folder, count):
    """Leave a run as a kill would after so many samples, the next one half written."""
    lines = (folder / SAMPLES_FILE).read_bytes().splitlines(keepends=True)
    (folder / SAMPLES_FILE).write_bytes(b"".join(lines[:count]) + lines[count][: len(lines[count]) // 2])
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"complete": False, "incomplete_reason": "running"}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of three scenarios, and the endpoint that it measured."""
    with fake_endpoint() as fake:
        fake.folder = tmp_path_factory.mktemp("finished") / "run"
        more = "--scenario", "single,poisson,burst", "--rate", "200", "--duration", "0.5", "--burst", "5"
        assert main(arguments(fake, fake.folder, *more)) == 0
        yield fake


@pytest.fixture
def whole(finished, tmp_path):
    """A copy of the finished run, and its endpoint."""
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    return SimpleNamespace(url=finished.url, folder=folder, fake=finished)


def test_resumed_run_measures_every_request_exactly_once(whole):
    folder = whole.folder
    before = keys(folder)
    lines = (folder / SAMPLES_FILE).read_bytes().splitlines(keepends=True)
    for count in random.Random(7).sample(range(len(lines) - 1), 3):
        (folder / SAMPLES_FILE).write_bytes(b"".join(lines))
        cut(folder, count)
        assert main(["run", "--resume", str(folder)]) == 0
        after = Counter({key: n for key, n in keys(folder).items() if key[0] > -2})  # but for the new warm-up
        assert after == before
        assert read_run(folder).complete


def test_a_run_that_is_gone_on_with_says_when_and_warms_up_again(whole):
    cut(whole.folder, 130)
    main(["run", "--resume", str(whole.folder)])
    run = read_run(whole.folder)
    assert len(run.resumed_at) == 1
    again = [s for s in read_samples(whole.folder) if s.block < -1]
    assert len(again) == 2 and {s.phase for s in again} == {"warmup"}


def test_time_goes_on_after_the_break(whole):
    cut(whole.folder, 130)
    last = max(s.scheduled_s for s in read_samples(whole.folder))
    main(["run", "--resume", str(whole.folder)])
    assert all(s.scheduled_s > last for s in list(read_samples(whole.folder))[130:])


def test_while_it_goes_on_it_is_running_and_counts_all(whole, monkeypatch):
    total = read_run(whole.folder).planned_requests
    cut(whole.folder, 130)
    facts = json.loads((whole.folder / "run.json").read_text())
    ended = {"incomplete_reason": "interrupted after 9 of 9 requests", "ended_at": facts["started_at"]}
    (whole.folder / "run.json").write_text(json.dumps(facts | ended))
    seen = []

    def interrupt(_):
        if not seen:
            seen.append(read_run(whole.folder))
            os.kill(os.getpid(), signal.SIGINT)

    before = sum(s.phase == "measure" and s.block >= 0 for s in read_samples(whole.folder))
    monkeypatch.setattr(whole.fake, "on_post", interrupt)
    main(["run", "--resume", str(whole.folder)])
    assert (seen[0].incomplete_reason, seen[0].ended_at) == ("running", None)
    run = read_run(whole.folder)
    assert run.incomplete_reason == f"interrupted after {before} of {total} requests"
    assert run.planned_requests == total


@pytest.mark.parametrize("option", [["--cold-command", "a=true"], ["--max-usd", "1"]])
def test_an_option_that_is_not_kept_has_to_be_given_again(whole, capsys, option):
    cut(whole.folder, 50)
    facts = json.loads((whole.folder / "run.json").read_text())
    (whole.folder / "run.json").write_text(json.dumps(facts | {"command": [*facts["command"], *option]}))
    assert main(["run", "--resume", str(whole.folder)]) == 1
    assert f"without {option[0]}, which the run began with and its folder does not keep" in capsys.readouterr().err
    assert main(["run", "--resume", str(whole.folder), *option]) == 0


def test_a_restart_of_a_target_that_the_run_lacks_is_refused(whole, capsys):
    cut(whole.folder, 50)
    assert main(["run", "--resume", str(whole.folder), "--cold-command", "b=true"]) == 1
    assert "--cold-command b: the run has no such endpoint, only a" in capsys.readouterr().err


def test_a_run_of_the_golden_set_may_name_it_on_resume(whole):
    cut(whole.folder, 50)
    facts = json.loads((whole.folder / "run.json").read_text())
    (whole.folder / "run.json").write_text(json.dumps(facts | {"config": facts["config"] | {"images": None}}))
    assert main(["run", "--resume", str(whole.folder), "--images", "golden"]) == 0


def test_a_changed_configuration_is_refused_with_the_difference(whole, capsys):
    cut(whole.folder, 50)
    assert main(["run", "--resume", str(whole.folder), "--seed", "5", "--rate", "200"]) == 1
    assert "with seed=5 instead of 0; leave the option out" in capsys.readouterr().err


def test_another_endpoint_is_refused(whole, capsys):
    cut(whole.folder, 50)
    assert main(["run", "--resume", str(whole.folder), "--target", "a=http://127.0.0.1:9"]) == 1
    assert "targets=('a=http://127.0.0.1:9',)" in capsys.readouterr().err


def elsewhere(whole):
    """The folder, with an address that is not the loopback's, though Linux takes it for that."""
    cut(whole.folder, 150)
    text = (whole.folder / "run.json").read_text()
    (whole.folder / "run.json").write_text(text.replace(whole.url, whole.url.replace("127.0.0.1", "0.0.0.0")))
    return whole.url.replace("127.0.0.1", "0.0.0.0")


def test_a_folder_alone_sends_nothing_to_other_machines(whole, capsys):
    url, sent = elsewhere(whole), len(whole.fake.posts) + len(whole.fake.requests)
    assert main(["run", "--resume", str(whole.folder)]) == 1
    out, err = capsys.readouterr()
    assert out == f"a at {url}\n"
    assert f"only its folder names a at {url}; give the run's --target and --stacks again, or --yes" in err
    assert len(whole.fake.posts) + len(whole.fake.requests) == sent


@pytest.mark.parametrize("how", ["named", "--yes"])
def test_addresses_named_again_or_accepted_are_sent_to(whole, capsys, how):
    url = elsewhere(whole)
    more = ["--yes"] if how == "--yes" else ["--target", f"a={url}"]
    assert main(["run", "--resume", str(whole.folder), *more]) == 0
    assert capsys.readouterr().out.startswith(f"a at {url}\n")
    assert read_run(whole.folder).complete


def test_a_folder_alone_gets_no_token_even_for_this_machine(whole, capsys, monkeypatch):
    cut(whole.folder, 150)
    monkeypatch.setenv("ONE", "a-token-nobody-may-see")
    arguments = ["run", "--resume", str(whole.folder), "--token-env", "a=ONE"]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == f"a at {whole.url}, with a token\n" and "only its folder names a at " in err
    assert main([*arguments, "--target", f"a={whole.url}"]) == 0
    assert whole.fake.posts[-1].headers["Authorization"] == "Bearer a-token-nobody-may-see"


def test_a_stack_that_had_no_address_is_measured_on_resume(whole, monkeypatch, tmp_path):
    """Its address was never recorded, so none has changed."""
    text = json.loads((whole.folder / "run.json").read_text())
    (target,) = text["targets"]
    text["targets"].append({**target, "name": "heroku", "target": "heroku", "url": "", "failure": "no url"})
    text["config"]["stacks"] = ["heroku"]
    (whole.folder / "run.json").write_text(json.dumps(text))
    cut(whole.folder, 150)
    (tmp_path / "pulumi").write_text(f'#!/bin/sh\necho \'{{"url": "{whole.url}"}}\'\n')
    (tmp_path / "pulumi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert main(["run", "--resume", str(whole.folder)]) == 0
    assert [(t.name, t.url, t.failure) for t in read_run(whole.folder).targets] == [
        ("a", whole.url, None), ("heroku", whole.url, None)
    ]  # fmt: skip
    assert {s.target for s in read_samples(whole.folder)} == {"a", "heroku", "reference"}


def test_a_target_that_is_down_on_resume_can_be_resumed_later(tmp_path, capsys):
    folder = tmp_path / "run"
    with fake_endpoint() as one, fake_endpoint() as other:
        assert main(arguments(one, folder, "--target", f"b={other.url}")) == 0
        whole, before = read_run(folder), keys(folder)
        cut(folder, 50)
        down = f"http://127.0.0.1:{closed_port()}"
        (folder / "run.json").write_text((folder / "run.json").read_text().replace(other.url, down))
        for _ in range(2):  # nothing is left of the other target the second time
            assert main(["run", "--resume", str(folder)]) == 0
            run = read_run(folder)
            assert not run.complete and run.targets[1].version == whole.targets[1].version != {}
            assert (run.incomplete_reason or "").startswith("b is measured in part: not reached before the run: ")
        (folder / "run.json").write_text((folder / "run.json").read_text().replace(down, other.url))
        assert main(["run", "--resume", str(folder)]) == 0
    assert read_run(folder).complete and read_run(folder).targets[1].failure is None
    assert Counter({key: n for key, n in keys(folder).items() if key[0] > -2}) == before


def test_other_images_are_refused(whole, capsys):
    cut(whole.folder, 50)
    facts = json.loads((whole.folder / "run.json").read_text())
    (whole.folder / "run.json").write_text(json.dumps(facts | {"images_sha256": "0" * 64}))
    assert main(["run", "--resume", str(whole.folder)]) == 1
    assert "with other images: " in capsys.readouterr().err


def test_a_run_with_another_schedule_is_not_resumed(whole, capsys):
    cut(whole.folder, 5)
    facts = json.loads((whole.folder / "run.json").read_text())
    del facts["config"]["restarts"]  # as before there were restarts between rounds
    (whole.folder / "run.json").write_text(json.dumps(facts))
    assert main(["run", "--resume", str(whole.folder)]) == 1
    assert "an earlier version, with another schedule, began it; start a new run" in capsys.readouterr().err


def test_a_complete_run_and_a_folder_without_a_run_are_refused(whole, tmp_path, capsys):
    assert main(["run", "--resume", str(whole.folder)]) == 1
    assert "it is complete; start a new run" in capsys.readouterr().err
    assert main(["run", "--resume", str(tmp_path)]) == 1
    assert "is not a run" in capsys.readouterr().err


def test_latest_is_a_run_as_soon_as_it_can_be_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports" / "before").mkdir(parents=True)
    (tmp_path / "reports" / "latest").symlink_to("before")
    with fake_endpoint() as fake:
        child = multiprocessing.get_context("forkserver").Process(target=quietly, args=(arguments(fake, "")[:-2],))
        fake.on_post = lambda count: child.kill() if count == 12 else None
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert main(["run", "--resume", "reports/latest"]) == 0
    run = read_run(tmp_path / "reports" / "latest")
    assert run.complete and (tmp_path / "reports" / "latest").readlink().name == run.id
    assert f"Resuming {run.id} in reports/latest" in capsys.readouterr().out


def test_a_run_that_goes_on_is_not_resumed_beside_itself(tmp_path, capsys):
    folder, reached, release = tmp_path / "run", threading.Event(), threading.Event()
    processes = multiprocessing.get_context("forkserver")
    with fake_endpoint() as fake:

        def hold(count):
            if count == 12:
                reached.set()
                release.wait()

        fake.on_post = hold
        child = processes.Process(target=quietly, args=(arguments(fake, folder),))
        child.start()
        try:
            assert reached.wait(120)
            assert main(["run", "--resume", str(folder)]) == 1
        finally:
            release.set()
        assert f"{folder} is being measured by another process" in capsys.readouterr().err
        child.join()
        assert child.exitcode == 0
    assert set(keys(folder).values()) == {1} and not read_run(folder).resumed_at


@pytest.mark.slow
def test_a_run_killed_at_random_moments_is_whole_in_the_end(tmp_path):
    """Some kills hit the start, most come within some milliseconds of a random answer."""
    dice, folder = random.Random(11), tmp_path / "run"
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["eval.__main__", "scipy.stats"])
    kills = 0
    with fake_endpoint() as fake:
        more = "--scenario", "single,poisson", "--rate", "400", "--duration", "3", "--warmup", "0"
        command = arguments(fake, folder, *more)
        while True:
            child = processes.Process(target=quietly, args=(command,))
            child.start()
            if kills < KILLS:
                kill_soon(child, fake, dice, at_start=kills > 0 and dice.random() < 0.2)
            child.join(60)
            if child.exitcode == 0:
                break
            assert child.exitcode == -signal.SIGKILL
            kills += 1
            command = ["run", "--resume", str(folder)]
    assert kills == KILLS
    assert set(keys(folder).values()) == {1}
    run = read_run(folder)
    assert run.complete and len(run.resumed_at) > KILLS / 2
    assert sum(s.phase == "measure" and s.target == "a" for s in read_samples(folder)) == run.planned_requests


def quietly(command):
    """A run in a process of its own, its words to nowhere."""
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        sys.exit(main(command))


def kill_soon(child, fake, dice, at_start):
    """Kill -9 at a random moment."""

    def kill(after_s):
        timer = threading.Timer(after_s, child.kill)
        timer.daemon = True
        timer.start()

    def count_down(_):
        nonlocal left
        left -= 1
        if left == 0:
            kill(dice.uniform(0, 0.02))

    left = dice.randint(1, 5)
    fake.on_post = count_down
    if at_start:
        kill(dice.uniform(0, 0.15))
