from __future__ import annotations

import dataclasses
import json

import pytest

from eval.errors import EvalError
from eval.plan.config import BASELINE_RTT, Config
from eval.samples import store
from eval.samples.model import RUN_JSON, RUN_SCHEMA_VERSION, SAMPLES_FILE
from eval.samples.store import (
    RENAMED_CONFIG_KEYS,
    RENAMED_ERRORS,
    RENAMED_RUN_KEYS,
    RENAMED_SAMPLE_KEYS,
    RENAMED_SCENARIOS,
    RENAMED_STARTUP_KEYS,
    RENAMED_TARGET_KEYS,
    SampleWriter,
    load_resume_state,
    read_run,
    read_samples,
    truncate_torn_line,
    write_run,
)
from tests.helpers.synthetic_run import make_run, make_sample


def write(folder, *samples):
    with SampleWriter(folder, create=True) as journal:
        for sample in samples:
            journal.append(sample)
    return folder / SAMPLES_FILE


@pytest.mark.parametrize("torn", ["", "{", '{"target":"a","scen', "x" * 200_000])
def test_a_torn_last_line_is_cut_off_and_nothing_else(tmp_path, torn):
    path = write(tmp_path, *(make_sample(i) for i in range(3)))
    whole = path.read_bytes()
    path.write_bytes(whole + torn.encode())
    assert truncate_torn_line(tmp_path) == len(torn)
    assert path.read_bytes() == whole


def test_a_file_of_nothing_but_a_torn_line_becomes_empty(tmp_path):
    (tmp_path / SAMPLES_FILE).write_text('{"target"')
    truncate_torn_line(tmp_path)
    assert list(read_samples(tmp_path)) == []


def test_appending_goes_on_after_the_mended_line(tmp_path):
    with write(tmp_path, make_sample(0)).open("a") as file:
        file.write('{"tar')
    truncate_torn_line(tmp_path)
    with SampleWriter(tmp_path, create=False) as journal:
        journal.append(make_sample(1))
    assert [s.image_index for s in read_samples(tmp_path)] == [0, 1]


def test_no_more_samples_are_written_than_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "MAX_SAMPLES", 3)
    write(tmp_path, make_sample(0), make_sample(1))
    with SampleWriter(tmp_path, create=False) as writer:
        assert writer.room == 1
        writer.append(make_sample(2))
        with pytest.raises(EvalError, match=r"samples\.jsonl has 3 lines, and no more are read of a run"):
            writer.append(make_sample(3))
    assert [s.image_index for s in read_samples(tmp_path)] == [0, 1, 2]


def test_resume_state_names_each_request_and_keeps_search_steps(tmp_path):
    step = make_sample(5, scenario="max_rate", block=9, index_in_block=2)
    write(tmp_path, make_sample(0, block=3, index_in_block=1), step)
    past = load_resume_state(tmp_path, None, "max_rate", 1)
    assert past.completed == {(3, 1), (9, 2)}
    assert past.search_samples == {9: [step]}


def in_schema_2(folder):
    """Give the run's files the keys and values that they had before schema 3."""

    def renamed(data, present_keys):
        old_keys = {new: old for old, new in present_keys.items()}
        return {old_keys.get(key, key): value for key, value in data.items()}

    run = renamed(json.loads((folder / RUN_JSON).read_text()), RENAMED_RUN_KEYS) | {"schema_version": 2}
    run["targets"] = [renamed(target, RENAMED_TARGET_KEYS) for target in run["targets"]]
    run["config"] = renamed(run["config"], RENAMED_CONFIG_KEYS)
    (folder / RUN_JSON).write_text(json.dumps(run))
    lines = []
    for line in (folder / SAMPLES_FILE).read_text().splitlines():
        sample = json.loads(line)
        for key, present in (("scenario", RENAMED_SCENARIOS), ("error", RENAMED_ERRORS)):
            if key in sample:
                sample[key] = {new: old for old, new in present.items()}.get(sample[key], sample[key])
        if "startup_ms" in sample:
            sample["startup_ms"] = renamed(sample["startup_ms"], RENAMED_STARTUP_KEYS)
        lines.append(renamed(sample, RENAMED_SAMPLE_KEYS))
    (folder / SAMPLES_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run, lines


def test_a_run_of_schema_2_is_read_as_one_of_today(tmp_path):
    run, samples = make_run(n_images=20)
    run = dataclasses.replace(run, config=dataclasses.asdict(Config(baseline_rtt=3)))
    samples += [
        make_sample(1, scenario=BASELINE_RTT, error="dropped"),
        make_sample(3, scenario="poisson"),
        make_sample(2, scenario="cold", error="invalid_response", startup_ms={"time_to_first_prediction": 4.0}),
    ]
    write_run(tmp_path, run)
    write(tmp_path, *samples)
    before = read_run(tmp_path), list(read_samples(tmp_path))
    old_run, old_samples = in_schema_2(tmp_path)
    assert {"note", "machine", "images"} <= set(old_run) and "shipped" in old_run["targets"][0]
    assert {"place", "image", "lateness_ms", "label"} <= set(old_samples[0] | old_samples[-2])
    assert old_run["config"]["floor"] == 3
    assert [s.get("error") for s in old_samples[-3:]] == ["not_sent", None, "bad_answer"]
    assert (old_samples[-3]["scenario"], old_samples[-1]["startup_ms"]) == ("floor", {"create": 4.0})
    after = read_run(tmp_path), list(read_samples(tmp_path))
    assert dataclasses.replace(after[0], schema_version=RUN_SCHEMA_VERSION) == before[0]
    assert after[1] == before[1] == samples


def test_before_schema_5_the_clients_time_was_in_a_closed_loop(tmp_path):
    closed = make_sample(0, scheduled_s=1.0, latency_ms=10.25, service_time_ms=10.0, send_delay_ms=0.25)
    open_loop = make_sample(1, scenario="poisson", latency_ms=12.0, service_time_ms=10.0, send_delay_ms=2.0)
    write(tmp_path, closed, open_loop)
    read_closed, read_open = read_samples(tmp_path)
    assert read_closed == dataclasses.replace(closed, scheduled_s=1.00025, latency_ms=10.0, send_delay_ms=None)
    assert read_open == open_loop


def test_a_resumed_run_may_have_samples_of_both_schemas(tmp_path):
    run, samples = make_run(n_images=20)
    write_run(tmp_path, run)
    write(tmp_path, *samples[:5])
    in_schema_2(tmp_path)
    with SampleWriter(tmp_path, create=False) as writer:
        writer.append(samples[5])
    assert list(read_samples(tmp_path)) == samples[:6]
