"""Runs whose open loops two machines send, each with a real sshd: nothing is sent twice, whatever ends meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from eval.load.nodes.code import code_sha256
from scripts.simulations.ssh_nodes import Cluster, SshNode, ssh_nodes
from tests.helpers.cluster_runs import PLAN, keys, measured, record, run, start
from tests.helpers.fake_endpoint import Fake, fake_endpoint
from tests.helpers.worker_runs import at

pytestmark = pytest.mark.integration

IN_THE_MIDDLE = 40  # of 120 requests
TOKEN = "a-token-of-the-test-0123456789"


@pytest.fixture
def cluster(needs_tool, tmp_path) -> Iterator[Cluster]:
    needs_tool("ssh")
    with ssh_nodes(tmp_path / "cluster", needs_tool("sshd")) as running:
        yield running


def words(fake: Fake, cluster: Cluster, folder: Path) -> list[str]:
    return [
        *PLAN,
        "--rate",
        "60",
        "--duration",
        "2",
        "--target",
        f"a={fake.url}",
        "--cluster",
        cluster.names,
        "--out",
        str(folder),
    ]


def test_each_request_is_sent_once_by_one_of_the_machines(cluster, tmp_path):
    with fake_endpoint() as fake:
        code, out, err = run(cluster, *words(fake, cluster, tmp_path / "run"))
    assert (code, err) == (0, ""), out
    samples, about = measured(tmp_path / "run"), record(tmp_path / "run")
    assert len(fake.posts) == len(samples) == len(set(keys(tmp_path / "run"))) == about["planned_requests"]
    assert {sample.sender for sample in samples} == {"127.0.0.2/1", "127.0.0.3/1"}
    assert {sender["name"] for sender in about["senders"]} == {"127.0.0.2", "127.0.0.3"}
    assert {sender["code_sha256"] for sender in about["senders"]} == {code_sha256()}


def cut_link(node: SshNode) -> None:
    """Nothing passes any more, and neither side is told."""
    for process in node.processes():
        if "sshd" in process.name():
            process.suspend()


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (lambda node: node.kill(), "closed the connection"),
        (lambda node: node.workers()[0].kill(), "was ended by SIGKILL"),
        (cut_link, "nothing was heard for"),
    ],
    ids=["machine", "worker", "link"],
)
def test_lost_machine_ends_the_run_and_nothing_is_sent_twice(cluster, tmp_path, lose, said):
    folder, on_nodes = tmp_path / "run", list[psutil.Process]()

    def lose_one() -> None:
        on_nodes.extend(process for node in cluster.nodes for process in node.workers())
        lose(cluster.nodes[0])

    with fake_endpoint() as fake:
        fake.on_post = at(IN_THE_MIDDLE, lose_one)
        code, out, err = run(cluster, *words(fake, cluster, folder))
        lines = [line for line in out.splitlines() if line.startswith("Not complete: ")]
        assert (code, err, len(lines)) == (1, "", 1) and said in lines[0] and "127.0.0.2" in lines[0]
        assert psutil.wait_procs(on_nodes, timeout=60)[1] == []
        planned, kept = record(folder)["planned_requests"], keys(folder)
        assert len(kept) == len(set(kept)) <= len(fake.posts) <= planned
        fake.on_post, sent = lambda count: None, len(fake.posts)
        resume = ["--resume", str(folder), "--target", f"a={fake.url}", "--cluster", cluster.nodes[1].address]
        code, out, err = run(cluster, *resume)
    assert (code, err) == (0, ""), out
    assert len(keys(folder)) == len(set(keys(folder))) == planned
    assert len(fake.posts) - sent == planned - len(kept)


def test_senders_end_with_a_run_that_is_killed(cluster, tmp_path):
    started: list[subprocess.Popen[str]] = []
    on_nodes: list[psutil.Process] = []

    def kill() -> None:
        on_nodes.extend(process for node in cluster.nodes for process in node.workers())
        started[0].kill()

    with fake_endpoint() as fake:
        fake.on_post = at(IN_THE_MIDDLE, kill)
        started.append(start(cluster, *words(fake, cluster, tmp_path / "run"), "--duration", "60"))
        started[0].communicate()
        gone, alive = psutil.wait_procs(on_nodes, timeout=60)
    assert (len(gone), alive) == (2, [])


def test_other_code_on_a_machine_is_refused(cluster, tmp_path):
    with fake_endpoint() as fake:
        assert run(cluster, *words(fake, cluster, tmp_path / "first"))[0] == 0
        fake.posts.clear()
        changed = cluster.nodes[1].senders / code_sha256() / "eval" / "load" / "open_loop.py"
        changed.write_text(changed.read_text() + "\n")
        code, out, err = run(cluster, *words(fake, cluster, tmp_path / "run"))
    assert (code, len(err.splitlines())) == (1, 1) and "127.0.0.3 has other code" in err, out
    assert not fake.posts


def test_token_is_in_no_argument_environment_file_or_log(cluster, tmp_path):
    seen: list[str] = []

    def look() -> None:
        for process in [process for node in cluster.nodes for process in node.processes()]:
            seen.append(f"{process.cmdline()} {process.environ()}")

    with fake_endpoint() as fake:
        fake.on_post = at(IN_THE_MIDDLE, look)
        token = ["--token-env", "a=THE_TOKEN"]
        code, out, err = run(cluster, *words(fake, cluster, tmp_path / "run"), *token, THE_TOKEN=TOKEN)
    assert code == 0, out + err
    assert {request.headers.get("Authorization") for request in fake.posts} == {f"Bearer {TOKEN}"}
    assert sum("eval.load.workers" in text for text in seen) >= 2
    files = [path for node in cluster.nodes for path in node.home.rglob("*") if path.is_file()]
    seen += [node.log() for node in cluster.nodes] + [path.read_text(errors="replace") for path in files]
    assert len(files) > 10 and TOKEN not in "".join(seen) + out + err


def test_no_program_stays_on_the_machines(cluster, tmp_path):
    seen: list[psutil.Process] = []
    workers: list[psutil.Process] = []

    def look() -> None:
        for node in cluster.nodes:
            seen.extend(node.processes())
            workers.extend(node.workers())

    with fake_endpoint() as fake:
        fake.on_post = at(IN_THE_MIDDLE, look)
        code, out, err = run(cluster, *words(fake, cluster, tmp_path / "run"))
    assert (code, err) == (0, ""), out
    assert len(workers) == 2 < len(seen)
    assert psutil.wait_procs(seen, timeout=60)[1] == []
