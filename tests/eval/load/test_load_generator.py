"""Scenarios that are not streams: starts, gaps, the search gone on with; and the cap on what a run may cost."""

from __future__ import annotations

import io
import json
from collections import Counter

import pytest
from rich.console import Console

from eval.load.load_generator import RunOptions
from eval.mock_server.profile import EndpointProfile
from eval.plan.config import Config
from eval.progress import Reporter
from eval.run.runner import execute_run, new_run
from eval.samples import store
from eval.samples.model import SAMPLES_FILE
from eval.samples.store import load_resume_state, read_run, read_samples
from eval.targets.endpoints import Endpoint, TargetSet
from tests.helpers.mock_endpoint import pictures, running_mock_endpoint

pytestmark = pytest.mark.integration


def run(folder, url, target=None, options=None, past=None, **changes):
    """A run against one endpoint; gives run.json, its samples, and what was said."""
    images, config = pictures(20), Config(**{"warmup": 0, "baseline_rtt": 0, "block": 10} | changes)
    fleet, options = TargetSet((Endpoint("a", target, url),), {}), options or RunOptions()
    console = Console(file=io.StringIO(), width=300)
    begun = new_run("some-id", fleet, images, config, options) if past is None else read_run(folder)
    done = execute_run(folder, begun, fleet, images, config, options, Reporter(console), past)
    return done, [s for s in read_samples(folder) if s.target == "a"], console.file.getvalue()


def test_after_a_gap_the_instance_itself_says_that_it_is_new(tmp_path):
    truth = EndpointProfile(median_ms=1, idle_s=0.05, cold_start_ms=40)
    with running_mock_endpoint(truth) as url:
        _, samples, _ = run(tmp_path, url, scenarios=("single", "idle"), idle=3, gap_s=0.2)
    gaps = [s for s in samples if s.scenario == "idle"]
    assert len(gaps) == 3
    assert all(s.instance_request_number == 1 and s.idle_gap_s >= 0.2 and s.latency_ms > 40 for s in gaps)
    assert len({s.instance_id for s in gaps}) == 3
    assert all("total" in s.startup_ms for s in gaps)  # the phases that the new instance tells of itself


def test_start_without_restart_method_is_dropped_with_advice(tmp_path):
    with running_mock_endpoint(EndpointProfile(median_ms=1)) as url:
        done, samples, _ = run(tmp_path, url, scenarios=("cold",), restarts=2)
    assert [s.error for s in samples] == ["dropped"] * 2
    assert samples[0].detail == "no way to restart a: give a command with --cold-command a=..."
    assert done.complete


def test_a_command_that_starts_nothing_new_proves_nothing(tmp_path):
    with running_mock_endpoint(EndpointProfile(median_ms=1)) as url:
        options = RunOptions(restart_commands={"a": ("true",)})
        _, samples, _ = run(tmp_path, url, options=options, scenarios=("single", "cold"), restarts=2)
    forced = [s for s in samples if s.scenario == "cold"]
    assert [s.error for s in forced] == [None, None]
    assert all(s.instance_request_number and s.instance_request_number > 1 for s in forced)


def test_failed_restart_drops_its_request_and_the_run_continues(tmp_path):
    with running_mock_endpoint(EndpointProfile(median_ms=1)) as url:
        options = RunOptions(restart_commands={"a": ("false",)})
        done, samples, _ = run(tmp_path, url, options=options, scenarios=("single", "cold"), restarts=2)
    forced = [s for s in samples if s.scenario == "cold"]
    assert [s.error for s in forced] == ["dropped"] * 2
    assert "false ended with status 1" in forced[0].detail
    assert done.complete


RESTART = RunOptions(restart_commands={"a": ("sleep", "0.15")})
NEW_AFTER_A_PAUSE = EndpointProfile(median_ms=1, idle_s=0.1, cold_start_ms=1)  # so the sleep starts a new instance


def test_restarts_give_several_instances_each_warmed_up_first(tmp_path):
    with running_mock_endpoint(NEW_AFTER_A_PAUSE) as url:
        done, samples, _ = run(tmp_path, url, options=RESTART, warmup=2, block=4)  # five rounds
    assert done.complete
    starts = [i for i, s in enumerate(samples) if (s.scenario, s.phase) == ("cold", "measure")]
    assert len(starts) == 4 and all(samples[i].instance_request_number == 1 for i in starts)
    for i in starts:
        assert [(s.scenario, s.phase) for s in samples[i + 1 : i + 4]] == [("cold", "warmup")] * 2 + [
            ("single", "measure")
        ]
    assert len({s.instance_id for s in samples if s.scenario == "single" and s.phase == "measure"}) == 5


def test_target_that_cannot_restart_is_measured_as_one_instance(tmp_path):
    with running_mock_endpoint(EndpointProfile(median_ms=1)) as url:
        done, samples, _ = run(tmp_path, url, warmup=2, block=4)
    assert done.complete and done.planned_requests == 20
    assert {s.scenario for s in samples} == {"single"} and all(s.error is None for s in samples)


@pytest.mark.parametrize(("kept", "last"), [(7, "measure"), (8, "warmup")])  # of scenario cold: 2 + 4 come before
def test_run_cut_at_a_restart_measures_the_rest_exactly_once(tmp_path, kept, last):
    how = {"options": RESTART, "warmup": 2, "block": 4, "restarts": 2}
    with running_mock_endpoint(NEW_AFTER_A_PAUSE) as url:
        _, whole, _ = run(tmp_path, url, **how)
        assert (whole[kept - 1].scenario, whole[kept - 1].phase) == ("cold", last)
        cut_after(tmp_path, kept)
        done, again, _ = run(tmp_path, url, past=load_resume_state(tmp_path, None, "max_rate", 1), **how)
    assert done.complete
    planned = [(s.block, s.index_in_block) for s in again if s.block >= 0]
    assert sorted(planned) == sorted((s.block, s.index_in_block) for s in whole)
    rewarmed = [s for s in again if s.block < 0]
    assert [(s.scenario, s.phase) for s in rewarmed] == [("single", "warmup")] * 2


def cut_after(folder, kept):
    """Leave a run as if it had been killed after so many requests to the target, and gone on with."""
    lines = (folder / SAMPLES_FILE).read_bytes().splitlines(keepends=True)
    own = [i for i, line in enumerate(lines) if json.loads(line)["target"] == "a"]
    (folder / SAMPLES_FILE).write_bytes(b"".join(lines[: own[kept - 1] + 1]))
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(
        json.dumps(facts | {"complete": False, "resumed_at": ["2026-11-21T10:00:00+00:00"]})
    )


def test_run_ends_at_its_budget_and_keeps_its_samples(tmp_path):
    with running_mock_endpoint(EndpointProfile(median_ms=1)) as url:
        options = RunOptions(max_usd=0.000004)  # some requests to Cloud Run
        done, samples, said = run(tmp_path, url, "gcp_cloudrun", options, scenarios=("single", "poisson"))
    assert not done.complete
    assert 0 < len(samples) < done.planned_requests
    assert "--max-usd is 4e-06" in done.incomplete_reason
    assert done.cost["usd"] >= 0.000004
    assert "a request the run will cost" in said and "That may exceed --max-usd 4e-06" in said


def test_a_run_that_costs_nothing_says_nothing_of_costs(tmp_path):
    with running_mock_endpoint(EndpointProfile(median_ms=1)) as url:
        done, _, said = run(tmp_path, url)
    assert done.complete and done.cost["usd"] == 0
    assert "cost" not in said


def test_a_search_ends_where_the_run_holds_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "MAX_SAMPLES", 700)
    how = {"scenarios": ("max_rate", "repeat"), "rate_rps": 200.0, "slo_ms": 2000.0, "step_s": 0.5}
    with running_mock_endpoint(EndpointProfile(median_ms=1)) as url:
        done, samples, said = run(tmp_path, url, **how)
    assert done.complete and "a: its search ends before " in said
    assert 150 < len(samples) <= 700 and samples[-1].scenario == "repeat"


@pytest.mark.slow
def test_a_search_that_was_cut_is_gone_on_with_from_its_steps(tmp_path):
    how = {"scenarios": ("max_rate",), "rate_rps": 100.0, "slo_ms": 60.0, "step_s": 0.5, "in_flight": 100}
    with running_mock_endpoint(EndpointProfile(median_ms=2, servers=1)) as url:
        _, whole, said = run(tmp_path, url, **how)
        steps = len({s.block for s in whole})
        assert f"Search: {steps} of at most {steps} steps" in said
        cut_after(tmp_path, len(whole) // 2)
        done, again, _ = run(tmp_path, url, past=load_resume_state(tmp_path, None, "max_rate", 1), **how)
    assert done.complete
    assert set(Counter((s.block, s.index_in_block) for s in again).values()) == {1}
    tried = dict.fromkeys(s.rate_rps for s in whole)
    tried_again = dict.fromkeys(s.rate_rps for s in again)
    assert list(tried)[:2] == list(tried_again)[:2]
    per_step = Counter(s.block for s in again)
    first = min(per_step)
    assert per_step[first] == Counter(s.block for s in whole)[first]
