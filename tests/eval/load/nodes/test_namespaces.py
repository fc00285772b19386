"""Two machines with networks and clocks of their own, as far as one machine can have them: network namespaces."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from eval.mock_server.profile import EndpointProfile
from scripts.simulations.ssh_nodes import Cluster, Namespace, namespace, ssh_nodes
from tests.conftest import NOT_ALLOWED
from tests.helpers.cluster_runs import PLAN, keys, measured, record, run, start
from tests.helpers.mock_endpoint import request_counts, running_mock_endpoint

pytestmark = [pytest.mark.root, pytest.mark.integration]

PROBE = ("unshare", "--net", "--time", "sh", "-c", "ip link add one type veth peer name other")

LINKS = (("ct-a", "10.77.2.1", "10.77.2.2"), ("ct-b", "10.77.3.1", "10.77.3.2"))
CLOCK_OFFSETS_S = (3000, 0)


@pytest.fixture
def machines(needs_tool) -> Iterator[list[Namespace]]:
    needs_tool("ip")
    needs_tool("unshare")
    if subprocess.run(PROBE, capture_output=True).returncode:
        pytest.skip(f"{NOT_ALLOWED}a network namespace with a clock of its own")
    with ExitStack() as stack:
        yield [
            stack.enter_context(namespace(*link, clock_offset_s=offset_s))
            for link, offset_s in zip(LINKS, CLOCK_OFFSETS_S, strict=True)
        ]


@pytest.fixture
def cluster(machines, needs_tool, tmp_path) -> Iterator[Cluster]:
    addresses, prefixes = [each.address for each in machines], [each.inside for each in machines]
    with ssh_nodes(tmp_path / "cluster", needs_tool("sshd"), addresses, prefixes) as running:
        yield running


@pytest.fixture
def endpoint(machines) -> Iterator[str]:
    with running_mock_endpoint(EndpointProfile(), "--host", LINKS[0][1]) as url:
        yield url


def words(endpoint: str, cluster: Cluster, folder: Path, duration_s: str) -> list[str]:
    plan = [*PLAN, "--rate", "100", "--duration", duration_s]
    return [*plan, "--target", f"a={endpoint}", "--cluster", cluster.names, "--out", str(folder)]


def received(endpoint: str) -> int:
    """How many images it was sent."""
    return request_counts(endpoint)["requests"]


def test_senders_with_other_clocks_send_as_planned(cluster, endpoint, tmp_path):
    folder = tmp_path / "run"
    code, out, err = run(cluster, *words(endpoint, cluster, folder, "3"))
    assert (code, err) == (0, ""), out
    samples, planned = measured(folder), record(folder)["planned_requests"]
    assert len(samples) == len(set(keys(folder))) == planned == received(endpoint)
    by_name = {sender["name"]: sender["clocks"] for sender in record(folder)["senders"]}
    for node, offset_s in zip(cluster.nodes, CLOCK_OFFSETS_S, strict=True):
        assert all(abs(clock["offset_s"] - offset_s) < 1 for clock in by_name[node.address])
    # A clock that was believed would be wrong by 3,000 s
    assert max(abs(sample.send_delay_ms or 0.0) for sample in samples) < 1_000_000
    assert "The run is not valid" not in out


def test_link_that_is_cut_without_a_word_ends_both_sides(cluster, machines, endpoint, tmp_path):
    folder = tmp_path / "run"
    with start(cluster, *words(endpoint, cluster, folder, "60")) as process:
        while received(endpoint) < 50:
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert process.wait(0.05) is None
        senders = [sender for node in cluster.nodes for sender in node.workers()]
        machines[1].cut()
        out, err = process.communicate()
    lines = [line for line in out.splitlines() if line.startswith("Not complete: ")]
    assert (process.returncode, err, len(lines)) == (1, "", 1) and cluster.nodes[1].address in lines[0], out
    assert len(senders) == 2 and psutil.wait_procs(senders, timeout=60)[1] == []
    assert len(keys(folder)) == len(set(keys(folder))) <= received(endpoint)
