"""`./cloudtrial watch`: a real Prometheus scrapes real twins and addresses, and nothing of it is left behind."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import shlex
import signal
import stat
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from eval.dataset.images import load_images
from tests.conftest import ROOT, descendants
from tests.helpers.running_service import ready_service
from tests.test_readme_commands import commands
from watch import programs
from watch.__main__ import build_parser, main
from watch.scrape_config import Deployment, prometheus_config
from watch.session import ALERTMANAGER_CONFIG, SEED, golden_images_drift
from watch.session_folder import token_file
from watch.traffic import waits

pytestmark = pytest.mark.integration

PROGRAM = ROOT / "cloudtrial"
TOKEN = "scrape-me-if-you-can"
WAIT_S = 60
IRIS = ("--local", "--model", "iris", "--targets", "heroku", "--interval", "1")


def read(url: str) -> dict:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def wait_for(ask: Callable[[], list], otherwise: str, holds: Callable[[list], bool] = bool) -> list:
    """What `ask` gives, once that holds."""
    give_up = time.monotonic() + WAIT_S
    while not holds(found := ask()):
        assert time.monotonic() < give_up, otherwise
        time.sleep(0.1)
    return found


@dataclass
class Watching:
    """The command, once it says that Ctrl-C ends it."""

    process: subprocess.Popen
    lines: list[str]

    def address(self, title: str) -> str:
        (line,) = [line for line in self.lines if line.startswith(f"{title}: http")]
        return line.split()[1].rstrip("/")

    def query(self, expression: str, holds: Callable[[list], bool] = bool) -> list[dict]:
        """What Prometheus answers, once that is something, or what is asked for."""
        url = f"{self.address('Prometheus')}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        return wait_for(lambda: read(url)["data"]["result"], f"no data: {expression}", holds)

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, rest


@contextmanager
def watching(*words: str, **env: str) -> Iterator[Watching]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "encoding": "utf-8"}
    with subprocess.Popen([PROGRAM, "watch", *words], env=os.environ | env, **options) as process:
        lines: list[str] = []
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                if line.startswith("Ctrl-C"):
                    break
            yield Watching(process, lines)
        finally:
            process.terminate()  # it leaves nothing behind, but for what a SIGKILL would


def called(*words: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [PROGRAM, "watch", *words], env=os.environ | env, capture_output=True, text=True, encoding="utf-8"
    )


def test_all_twins_are_scraped_with_traffic_rules_and_prices(needs_tool):
    needs_tool("prometheus")
    jobs = {"aws_ec2-onnx", "heroku-onnx", "gcp_cloudrun-onnx", "gcp_function-onnx"}
    with watching("--local", "--model", "iris", "--interval", "1", "--rate", "20") as watched:
        for series in ("classifier_predictions_total", "classifier_feature_sum", "classifier:cost_usd_per_hour"):
            found = watched.query(f"sum by (job) ({series}) > 0", lambda answer: len(answer) == len(jobs))
            assert {each["metric"]["job"] for each in found} == jobs
        code, rest = watched.stop()
    assert code == 0 and ", 0 without an answer." in rest
    assert descendants() == []


def test_an_alertmanager_that_is_installed_receives_alerts(needs_tool):
    needs_tool("prometheus")
    needs_tool("prometheus-alertmanager")
    with watching(*IRIS, "--rate", "0") as watched:
        url = f"{watched.address('Prometheus')}/api/v1/alertmanagers"
        known = wait_for(lambda: read(url)["data"]["activeAlertmanagers"], "Prometheus knows no Alertmanager")
        assert [each["url"].removesuffix("/api/v2/alerts") for each in known] == [watched.address("Alertmanager")]


def test_without_prometheus_twins_run_and_one_line_says_so():
    with watching(*IRIS, "--rate", "0", PATH=str(Path(sys.executable).parent)) as watched:
        text = "\n".join(watched.lines)
        (address,) = [line.strip() for line in watched.lines if line.endswith("/metrics")]
        with urllib.request.urlopen(address) as answer:
            assert b"classifier_model_info" in answer.read()
    assert "No Prometheus here (apt-get install prometheus" in text


def test_another_program_on_the_port_is_not_taken_for_ours(needs_tool, tmp_path, monkeypatch):
    """Both are ready; the port seemed free when ours was started."""
    path = needs_tool("prometheus")
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    with programs.prometheus(path, first, "") as taken:
        port = int(taken.address.rpartition(":")[2])
        monkeypatch.setattr(programs, "PROMETHEUS", dataclasses.replace(programs.PROMETHEUS, port=port))
        tries = iter((True, False))
        monkeypatch.setattr(programs, "_is_free", lambda _: next(tries))
        with programs.prometheus(path, second, "") as ours:
            assert ours.address != taken.address and ours.process.exit_status() is None


def test_a_closed_metrics_is_scraped_with_its_token(needs_tool, tmp_path, monkeypatch):
    needs_tool("prometheus")
    settings = {"API_TOKEN": TOKEN, "PROTECT_STATUS": "1", "ENGINE": "onnx", "MODEL_DIR": "models/iris"}
    with ready_service(tmp_path / "log", **settings) as server:
        address = f"mine=http://127.0.0.1:{server.port}"
        env = {"SCRAPE": TOKEN, "TMPDIR": str(tmp_path)}
        with watching("--target", address, "--token-env", "SCRAPE", "--interval", "1", **env) as watched:
            (info,) = watched.query("classifier_model_info")
            assert TOKEN not in "\n".join(watched.lines)
            command = " ".join(" ".join(child.cmdline()) for child in descendants())
            (config,) = tmp_path.glob("watch-*/prometheus.yml")
            (scrape,) = yaml.safe_load(config.read_text(encoding="utf-8"))["scrape_configs"]
            assert scrape["follow_redirects"] is False  # which would take the token along
            file = Path(scrape["authorization"]["credentials_file"])
            assert file.read_text(encoding="utf-8") == TOKEN and not holding(TOKEN, config.parent)
            for token, is_up in (("another-token-of-yesterday", 0), (TOKEN, 1)):  # it is read at each scrape
                file.write_text(token, encoding="utf-8")
                watched.query(f'up{{job="mine"}} == {is_up}')
            assert watched.stop()[0] == 0 and not file.exists()
    assert info["metric"]["job"] == "mine" and "prometheus" in command and TOKEN not in command


def holding(text: str, folder: Path) -> list[Path]:
    """The files of a folder in which the text is."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_killed_session_leaves_no_token_and_no_folder_for_long(needs_tool, tmp_path):
    needs_tool("prometheus")
    words, env = ("--target", "mine=http://127.0.0.1:9", "--token-env", "SCRAPE"), {"TMPDIR": str(tmp_path)}
    with watching(*words, SCRAPE=TOKEN, **env) as watched:
        children = descendants()
        watched.process.kill()
        watched.process.wait()
        assert psutil.wait_procs(children, WAIT_S)[1] == []
    (left,) = tmp_path.glob("watch-*")
    assert (left / "prometheus.yml").is_file() and not holding(TOKEN, left)
    with watching(*words, SCRAPE=TOKEN, **env), watching(*words, SCRAPE=TOKEN, **env):
        assert not left.exists() and len(list(tmp_path.glob("watch-*"))) == 2  # each lets the other's be


def test_a_closed_terminal_ends_it_and_leaves_nothing(needs_tool, tmp_path):
    """The shell and the kernel both say so: the second signal comes while the first clears up."""
    needs_tool("prometheus")
    with watching("--target", "mine=http://127.0.0.1:9", TMPDIR=str(tmp_path)) as watched:
        for _ in range(3):
            watched.process.send_signal(signal.SIGHUP)
        assert watched.process.wait(WAIT_S) == 0
    assert list(tmp_path.glob("watch-*")) == [] and descendants() == []


def test_without_files_that_have_no_name_a_token_is_one_users(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with token_file(tmp_path, "mine", TOKEN) as file:
        assert file.read_text(encoding="utf-8") == TOKEN and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/watch-1/prometheus.yml")

    monkeypatch.setattr("watch.session.watch", full)
    assert main(["--local"]) == 1
    assert capsys.readouterr().err == "cloudtrial watch: /tmp/watch-1/prometheus.yml: No space left on device\n"


def test_nothing_that_is_started_listens_beyond_this_machine(needs_tool):
    needs_tool("prometheus")
    with watching(*IRIS, "--rate", "0"):
        sockets = [each for child in descendants() for each in child.net_connections("inet") if each.status == "LISTEN"]
    assert len(sockets) >= 2 and {each.laddr.ip for each in sockets} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("model", "expected"), [("resnet18-cifar10", True), ("iris", False), ("efficientnet-lite0-imagenet", False)]
)
def test_golden_images_are_a_drift_where_there_is_a_reference(model, expected):
    assert golden_images_drift(load_images("golden", None, SEED, print, model=model), model) == expected


def test_print_config_is_what_promtool_accepts(needs_tool, tmp_path):
    """Also where one of two stacks has no address: that is said beside it."""
    pulumi = tmp_path / "bin" / "pulumi"
    pulumi.parent.mkdir()
    script = """#!/bin/sh\ncase $* in *heroku-prod*) echo '{"url": "https://app.example"}' ;; *) exit 1 ;; esac\n"""
    pulumi.write_text(script, encoding="utf-8")
    pulumi.chmod(0o755)
    words = ("--stacks", "heroku-prod,aws_ec2-prod", "--token-env", "heroku-prod=SCRAPE", "--print-config")
    done = called(*words, PATH=f"{pulumi.parent}:{os.environ['PATH']}", SCRAPE=TOKEN)
    assert done.returncode == 0 and TOKEN not in done.stdout
    assert done.stderr.startswith("not watched: ") and "aws_ec2-prod" in done.stderr
    (scrape,) = yaml.safe_load(done.stdout)["scrape_configs"]
    assert scrape["authorization"] == {"credentials_file": "/etc/prometheus/heroku-prod.token"}
    assert (scrape["job_name"], scrape["scheme"], scrape["honor_labels"]) == ("heroku-prod", "https", True)
    file = tmp_path / "prometheus.yml"
    file.write_text(done.stdout, encoding="utf-8")
    subprocess.run([needs_tool("promtool"), "check", "config", "--syntax-only", file], check=True, capture_output=True)


@pytest.mark.parametrize("interval_s", [1, 2.5, 3600])
def test_promtool_accepts_every_interval(needs_tool, tmp_path, interval_s):
    file = tmp_path / "prometheus.yml"
    file.write_text(prometheus_config([], [], interval_s), encoding="utf-8")
    subprocess.run([needs_tool("promtool"), "check", "config", "--syntax-only", file], check=True, capture_output=True)


class Clock:
    """That of a sender: it moves by what is waited and by what answers take."""

    now = 100.0

    def sent_in(self, seconds: float, rate_rps: float, answer_s: Callable[[int], float]) -> int:
        chance, end = random.Random(1), self.now + seconds
        for n, wait_s in enumerate(waits(lambda: chance.expovariate(rate_rps), lambda: self.now)):
            self.now += wait_s
            if self.now >= end:
                return n
            self.now += answer_s(n)
        raise AssertionError("it goes on for ever")


def test_traffic_keeps_its_rate_however_slow_answers_are():
    assert Clock().sent_in(600, 20, lambda _: 0.04) == pytest.approx(12_000, rel=0.03)
    assert Clock().sent_in(600, 20, lambda _: 0.1) == pytest.approx(6000, abs=1)  # one after the other: all it can do


def test_a_twin_that_hung_is_not_flooded():
    hung = Clock().sent_in(40, 20, lambda n: 30.0 if n == 10 else 0.0)
    assert hung == pytest.approx(220, rel=0.2)  # ten seconds of traffic, and one that is caught up


def test_a_path_of_an_address_is_kept_before_metrics():
    text = prometheus_config([Deployment("a", "http://127.0.0.1:8080/models/cifar")], [], 5)
    (scrape,) = yaml.safe_load(text)["scrape_configs"]
    assert scrape["metrics_path"] == "/models/cifar/metrics"
    assert scrape["static_configs"] == [{"targets": ["127.0.0.1:8080"]}]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param((), 2, "say what to watch: --local, --stacks A,B or --target NAME=URL", id="nothing"),
        pytest.param(("--local", "--print-config"), 2, "--print-config is for --stacks and --target", id="twins"),
        pytest.param(("--local", "--interval", "0"), 2, "'0' is no number of seconds from 1 to 3600", id="interval"),
        pytest.param(("--local", "--targets", "azure"), 1, "no target is called 'azure': choose from", id="target"),
        pytest.param(("--local", "--images", "/none"), 1, "/none", id="images"),
        pytest.param(("--local", "--model", "none"), 1, "no model is called 'none'", id="model"),
        pytest.param(
            ("--local", "--targets", "heroku,aws_sagemaker"), 1,
            "aws_sagemaker: SageMaker lets no GET /metrics through", id="sagemaker's twin",
        ),
        pytest.param(
            ("--target", "aws_sagemaker=https://example.org", "--print-config"), 1,
            "aws_sagemaker: SageMaker lets no GET /metrics through", id="sagemaker",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_watched_is_one_line(words, code, said):
    done = called(*words)
    assert done.returncode == code and said in done.stderr.splitlines()[-1]


def test_every_command_of_the_page_is_understood():
    page = (ROOT / "docs" / "watch.md").read_text(encoding="utf-8")
    lines = [line for line in commands(page) if line.startswith("./cloudtrial watch ")]
    assert len(lines) == 4
    for line in lines:
        build_parser().parse_args(shlex.split(line.partition(" >")[0])[2:])


def test_help_loads_nothing_heavy():
    code = "import watch.__main__ as m, sys; m.build_parser(); print({'numpy', 'torch', 'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.stdout == "set()\n", done.stderr


def test_amtool_accepts_alertmanagers_configuration(needs_tool):
    subprocess.run([needs_tool("amtool"), "check-config", Path(ALERTMANAGER_CONFIG)], check=True, capture_output=True)
