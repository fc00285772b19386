"""New versions of a store's model on every twin, each in its platform's way; and the readers of the VM's model unit."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from eval.targets.sagemaker.invoke import invoke_twin
from infra.errors import PlatformFileError, StartError, TwinError
from infra.local.__main__ import main
from infra.local.__main__ import release_new_version as release
from infra.local.following.twin_store import INTERVAL, TwinStore
from infra.local.process import Process
from infra.local.running.starter import available_cores
from infra.local.running.twin import Twin
from infra.local.start_commands import aws_ec2_pull, aws_ec2_pull_interval_s
from infra.local.systemd_unit import read_interval_s, read_unit
from infra.local.twins import local_twins
from infra.targets import AWS_EC2, AWS_SAGEMAKER, GCP_CLOUDRUN, HEROKU, TARGETS
from service.schema import INSTANCE_ID
from store.model_store import ModelStore
from tests.helpers.bundles import one_coloured, write_bundle

pytestmark = pytest.mark.integration

NAME, REFERENCE = "tiny", "tiny@prod"
FOLLOWING = ("aws_ec2", "gcp_cloudrun")  # the others ship the model
IMAGE = one_coloured(255)
PATIENCE_S = 120  # until something that has to happen counts as never happening


def push(store: Path, folder: Path, weight: float) -> str:
    """A version whose answers differ by the weight; prod points to it afterwards. Returns the version."""
    opened = ModelStore.open(store)
    version = opened.push(write_bundle(folder, ["dark", "bright"], weight=weight)).version
    opened.move_alias(NAME, "prod", version, reason="a test")
    return version


@pytest.fixture
def store(tmp_path) -> Path:
    push(tmp_path / "store", tmp_path / "first", 20.0)
    return tmp_path / "store"


def version_of(twin: Twin) -> dict:
    if twin.target is AWS_SAGEMAKER:  # which has no /version
        answer = invoke_twin(twin.url, IMAGE, "image/png")
        return {**json.loads(answer.body), "instance_id": answer.headers[INSTANCE_ID]}
    with urllib.request.urlopen(f"{twin.url}/version", timeout=30) as response:
        return json.load(response)


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


@dataclass
class Trickle:
    """One request after another to a twin, until it is stopped."""

    url: str
    answers: list[tuple[str, str]] = field(default_factory=list)  # (X-Instance-Id, X-Model-Version)
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.over.wait(0.02):
            request = urllib.request.Request(f"{self.url}/predict", IMAGE, {"Content-Type": "image/png"})
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    assert json.load(response)["model"]["version"] == response.headers["X-Model-Version"]
                    self.answers.append((response.headers["X-Instance-Id"], response.headers["X-Model-Version"]))
            except (OSError, AssertionError) as error:
                self.failures.append(str(error))


def test_every_twin_gets_the_new_version_in_its_platforms_way(store, tmp_path):
    with local_twins(TARGETS, tmp_path / "logs", engines=(), store=TwinStore(store, REFERENCE, 0.5)) as twins:
        assert twins.failures == {}
        running = {twin.target.name: twin for twin in twins.running}
        before = {name: version_of(twin) for name, twin in running.items()}
        (old,) = {each["model"]["version"] for each in before.values()}
        trickles = {name: Trickle(running[name].url) for name in FOLLOWING}
        threads = [threading.Thread(target=trickle.run) for trickle in trickles.values()]
        for thread in threads:
            thread.start()
        try:
            wait_until("an answer", lambda: all(trickle.answers for trickle in trickles.values()))
            version = push(store, tmp_path / "second", 30.0)
            for name in FOLLOWING:
                wait_until(name, lambda name=name: version_of(running[name])["store"]["version"] == version)
            for trickle in trickles.values():
                count = len(trickle.answers)
                wait_until("an answer of the new one", lambda t=trickle, n=count: len(t.answers) > n + 1)
        finally:
            for trickle in trickles.values():
                trickle.over.set()
            for thread in threads:
                thread.join()
        shipping = [running[name] for name in TARGETS if name not in FOLLOWING]
        assert {version_of(twin)["model"]["version"] for twin in shipping} == {old}  # until their release
        assert [twin.release() for twin in shipping] == [version] * 3
        after = {name: version_of(twin) for name, twin in running.items()}
        (new,) = {each["model"]["version"] for each in after.values()}
        assert new != old and [running[name].release() for name in FOLLOWING] == [None, None]
        for name, trickle in trickles.items():
            assert trickle.failures == []
            assert {instance for instance, _ in trickle.answers} == {before[name]["instance_id"]}
            assert {answered for _, answered in trickle.answers} == {old, new}
            assert (after[name]["instance_id"], after[name]["switches"]) == (before[name]["instance_id"], 1)


def test_a_pull_that_fails_leaves_the_model_and_is_in_the_log(store, tmp_path):
    logs = tmp_path / "logs"
    with local_twins(["aws_ec2"], logs, engines=(), store=TwinStore(store, REFERENCE, 0.2)) as twins:
        (twin,) = twins.running
        before = version_of(twin)
        store.rename(tmp_path / "gone")
        (log,) = logs.glob("aws_ec2*-models.log")
        wait_until("the failure in the log", lambda: "no model is called 'tiny'" in log.read_text(encoding="utf-8"))
        assert version_of(twin)["model"] == before["model"]
        (tmp_path / "gone").rename(store)
        version = push(store, tmp_path / "second", 30.0)
        wait_until("the next version", lambda: version_of(twin)["store"]["version"] == version)


def test_a_store_without_that_alias_starts_no_twin(store, tmp_path):
    with (
        pytest.raises(TwinError, match="tiny has no alias 'gamma'"),
        local_twins(["heroku"], tmp_path / "logs", engines=(), store=TwinStore(store, "tiny@gamma")),
    ):
        pass


def test_a_first_pull_that_fails_says_what_it_printed(store, tmp_path):
    gone = TwinStore(tmp_path / "none", REFERENCE)
    with pytest.raises(StartError, match=r"(?s)the first pull ended with status \d.*no model is called 'tiny'"):
        gone.timer(gone.settings(AWS_EC2, tmp_path), Path(__file__).resolve().parents[3])


def test_each_target_is_told_of_the_store_in_its_own_way(store, tmp_path):
    followed = TwinStore(store, REFERENCE)
    vm = followed.settings(AWS_EC2, tmp_path / "vm")
    assert vm == {"MODEL_STORE": str(tmp_path / "vm" / "models"), "MODEL": REFERENCE}
    assert followed.settings(GCP_CLOUDRUN, tmp_path)["MODEL_STORE"] == str(store)  # as the mounted bucket
    assert followed.settings(HEROKU, tmp_path) == followed.settings(AWS_SAGEMAKER, tmp_path) == {}
    assert TwinStore(store, REFERENCE, 2).settings(AWS_EC2, tmp_path)["MODEL_POLL_S"] == "2"


# ./cloudtrial twins --store


def test_the_command_releases_a_new_version_and_says_so(store, tmp_path, capsys):
    followed, asked = TwinStore(store, REFERENCE), []
    first = followed.version()
    twins = [
        SimpleNamespace(title="Heroku", release=lambda: asked.append("heroku") or followed.version()),
        SimpleNamespace(title="AWS EC2", release=lambda: asked.append("vm")),  # follows by itself
    ]
    assert release(twins, followed, first) == first and asked == []
    second = push(store, tmp_path / "second", 30.0)
    assert release(twins, followed, first) == second and asked == ["heroku", "vm"]
    assert capsys.readouterr().out == f"tiny@prod points to {second}.\nHeroku: released {second}.\n"
    store.rename(tmp_path / "gone")
    assert release(twins, followed, second) == second
    assert "tiny@prod: no model is called 'tiny'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--model", "tiny@gamma"], "tiny has no alias 'gamma'"), (["--model", "tiny"], "use NAME@ALIAS or NAME@VERSION")],
)
def test_the_command_ends_with_a_line_where_there_is_no_version(options, says, store, capsys, monkeypatch):
    monkeypatch.setattr("infra.local.__main__.signal.signal", lambda *_: None)  # this process keeps its own
    assert main(["heroku", "--store", str(store), *options]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan"])
def test_the_command_refuses_a_pause_that_is_none(seconds, store, capsys):
    with pytest.raises(SystemExit):
        main(["--store", str(store), "--poll", seconds])
    assert "is no number of seconds from 0.1 to 86400" in capsys.readouterr().err


# The readers


def test_the_timers_command_and_interval_are_the_units_own():
    pull = aws_ec2_pull({"MODEL": REFERENCE, "STORE_URL": "s3://b/a b", "MODEL_STORE": "/srv/m"})
    expected = ("-m", "store", "pull", REFERENCE, "--store", "s3://b/a b", "--follow", "/srv/m")
    assert pull.command[1:] == expected and pull.env["PYTHONUNBUFFERED"] == "1"
    assert aws_ec2_pull_interval_s() == 30
    with pytest.raises(PlatformFileError, match="STORE_URL"):
        aws_ec2_pull({"MODEL": REFERENCE, "MODEL_STORE": "/srv/m"})


@pytest.mark.parametrize("text", ["[Timer]\nOnBootSec=1min\n", "[Timer]\nOnUnitActiveSec=1min\n"])
def test_a_timer_of_another_kind_is_refused(text):
    with pytest.raises(PlatformFileError, match="OnUnitActiveSec"):
        read_interval_s(text)


def test_the_units_own_environment_fills_its_command():
    unit = read_unit("[Service]\nWorkingDirectory=/\nEnvironment=A=1\nExecStart=/bin/a ${A} b${A}\n")
    assert unit.exec_start == ("/bin/a", "1", "b1")


def test_a_command_that_fails_is_run_again(tmp_path):
    counted = f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); raise SystemExit(3)"
    command = [sys.executable, str(INTERVAL), "0.01", sys.executable, "-c", counted]
    process = Process(command, {}, tmp_path, available_cores(), tmp_path / "log")
    try:
        wait_until("three runs", lambda: (tmp_path / "runs").exists() and (tmp_path / "runs").stat().st_size >= 3)
        assert process.exit_status() is None
    finally:
        process.terminate()
        process.reap(grace_s=1)
