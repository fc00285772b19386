"""make bench-serve: its goals, its files, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from scripts.benchmarks.http_load import LoadResult
from scripts.benchmarks.http_messages import QUEUE_FULL
from scripts.benchmarks.serving.__main__ import main
from scripts.benchmarks.serving.goals import evaluate_goals, missed
from scripts.benchmarks.serving.record import (
    Cell,
    EngineSample,
    MemorySample,
    Record,
    ServerInfo,
    read_record,
    write_record,
)
from scripts.benchmarks.serving.report import markdown
from scripts.benchmarks.serving.servers import SERVERS, Workspace
from scripts.docs.readme import serving

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


# The goals


def load_result(rps, p50_ms=1.0, errors=None):
    return LoadResult(int(rps * 2), 2.0, p50_ms, 9.0, errors or {}, 0, 0.3, True)


RPS = {"ours-torch": 380, "ours-onnx": 700, "flask": 70, "litserve-batch": 140}


@pytest.fixture
def record():
    """Two rounds that reach every goal; the second on a machine half as fast."""
    run = Record(
        started_at="2026-11-21T12:00:00+00:00", command="python -m scripts.benchmarks.serving", quick=False,
        machine={"cpu_model": "A CPU", "cores": 2, "os": "Linux 6"}, cores={"server": 1, "client": 0},
        versions={"torch": "2"}, images={"source": "golden", "n": 100, "left_out": 0},
        plan={"rounds": 2, "window_s": 2.0, "warmup_s": 0.5},
        servers=[
            ServerInfo(s.name, s.title, s.engine, s.ours, s.description) for s in SERVERS.values() if s.name in RPS
        ],
        complete=True,
    )  # fmt: skip
    for k, speed in enumerate((1.0, 0.5)):
        for name, rps in RPS.items():
            for c in (1, 64, 256):
                run.cells.append(Cell(name, k, c, load_result(rps * speed, 3.0)))
            run.memory_samples.append(MemorySample(name, k, 64, 110 if name == "ours-onnx" else 300))
        for engine, rps, single in (("torch", 399, 2.6), ("onnx", 740, 2.7)):
            run.engine_samples += [EngineSample(engine, k, 0, single, rps * speed * side) for side in (0.98, 1.02)]
            run.engines[engine] = {"batch": 16, "details": {}}
    run.cold_starts_s = {"ours-onnx": [0.4, 0.45, 9.0], "ours-torch": [2.2, 2.4, 2.6]}
    run.import_torch_s = [2.0, 2.0, 2.1]
    return run


def test_goals_are_ratios_of_one_round(record):
    goals = evaluate_goals(record)
    assert [row.reached for row in goals] == [
        "0.952", "0.946", "5.00x", "torch +0.40 ms; onnx +0.30 ms", "torch 1.000; onnx 1.000; errors none",
        "onnx 0.45 s; torch 1.20x", "onnx 110 MB; torch 300 MB",
    ]  # fmt: skip
    assert missed(goals) == [] and all(row.meets_aim for row in goals)


def spoiled(record, name, concurrency, times=1.0, **change):
    def spoil(cell):
        if (cell.server, cell.concurrency) != (name, concurrency):
            return cell
        succeeded = int(cell.result.succeeded * times)
        return replace(cell, result=replace(cell.result, succeeded=succeeded, **change))

    return replace(record, cells=[spoil(cell) for cell in record.cells])


@pytest.mark.parametrize(
    ("spoil", "which"),
    [
        (lambda r: spoiled(r, "ours-torch", 64, times=0.8), [0]),
        (lambda r: spoiled(r, "ours-onnx", 64, times=0.7), [1, 2]),
        (lambda r: spoiled(r, "litserve-batch", 64, times=1.5), [2]),
        (lambda r: spoiled(r, "ours-onnx", 1, p50_ms=3.8), [3]),
        (lambda r: spoiled(r, "ours-torch", 256, times=0.8), [4]),
        (lambda r: spoiled(r, "ours-torch", 256, errors={"connection lost": 1}), [4]),
        (lambda r: replace(r, cold_starts_s=r.cold_starts_s | {"ours-onnx": [0.9]}), [5]),
        (lambda r: replace(r, import_torch_s=[1.0]), [5]),
        (lambda r: replace(r, memory_samples=[*r.memory_samples, MemorySample("ours-torch", 1, 256, 401)]), [6]),
    ],
    ids=["torch", "onnx", "baselines", "alone", "crowded", "errors", "cold onnx", "cold torch", "memory"],
)
def test_a_goal_that_is_missed_is_reported(record, spoil, which):
    assert [index for index, row in enumerate(evaluate_goals(spoil(record))) if not row.meets_must] == which


def test_a_503_is_no_error_of_the_service(record):
    assert missed(evaluate_goals(spoiled(record, "ours-onnx", 256, errors={QUEUE_FULL: 500}))) == []


def test_what_was_not_measured_is_not_reached(record):
    goals = evaluate_goals(
        replace(record, cells=[], engine_samples=[], memory_samples=[], cold_starts_s={}, import_torch_s=[])
    )
    assert missed(goals) == goals
    assert all("not measured" in row.reached for row in goals)


# The files


def test_tables_and_plots_come_from_the_record_alone(record, tmp_path, capsys):
    write_record(record, tmp_path)
    assert markdown(read_record(tmp_path)) == markdown(record)
    assert main(["--report", str(tmp_path), "--check"]) == 0
    page = (tmp_path / "serving.md").read_text()
    assert page == markdown(record) and "All 7 goals meet what they must" in page
    assert serving(page).count("| **This service") == 2 and "| 0.85 | 0.95 | **0.952** | aim |" in serving(page)
    assert "0.952" in capsys.readouterr().out


def test_the_processor_is_named_with_what_was_recorded_of_it(record):
    assert "Processor: 2 cores of A CPU (instruction sets not recorded)\n" in markdown(record)
    record.engines["torch"]["details"] = {"form": "bfloat16, channels_last, fused by oneDNN"}
    assert "2 cores of A CPU (bfloat16 in hardware, other instruction sets not recorded)\n" in markdown(record)
    record.machine |= {"cpu_generation": "Zen 3", "instruction_sets": ["AVX2"], "instruction_limits": {}}
    assert "Processor: 2 cores of A CPU (Zen 3; AVX2).\n" in serving(markdown(record))


@pytest.mark.parametrize("folder", ["reports/serving", "reports/serving/second-run"])
def test_a_record_of_schema_version_1_gives_the_committed_tables(folder):
    assert json.loads((ROOT / folder / "serving.json").read_text())["schema_version"] == 1
    assert markdown(read_record(ROOT / folder)) == (ROOT / folder / "serving.md").read_text()


def test_check_fails_when_a_goal_is_missed(record, tmp_path):
    write_record(replace(record, cold_starts_s={}), tmp_path)
    assert main(["--report", str(tmp_path)]) == 0
    assert main(["--report", str(tmp_path), "--check"]) == 1
    assert '1 of 7 goals do not meet what they must: "cold start' in (tmp_path / "serving.md").read_text()


def test_a_client_that_was_the_bottleneck_is_marked(record):
    marked = markdown(spoiled(record, "ours-onnx", 64, client_cpu=0.95))
    assert marked.count("the bottleneck") == 1 and "bottleneck" not in markdown(record)


def test_weights_that_were_replaced_during_a_run_are_reported(record):
    record.reported_versions["ours-onnx"] = {"model": {"version": "b2"}}
    record.engines["onnx"]["version"] = "b2"
    assert "replaced" not in markdown(record)
    record.engines["onnx"]["version"] = "a1"
    assert "the weights were replaced meanwhile" in markdown(record)


def test_a_plot_stands_alone_and_has_colours_for_either_scheme(record, tmp_path):
    write_record(record, tmp_path)
    main(["--report", str(tmp_path)])
    for name in ("throughput.svg", "latency.svg"):
        svg = (tmp_path / name).read_text()
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        light, dark = svg.split("<style>")[1].split("</style>")[0].split("@media(prefers-color-scheme:dark)")
        used = {part.split(")")[0] for part in svg.split("var(")[1:]}
        assert len(used) > 5 and all(f"{name}:#" in light and f"{name}:#" in dark for name in used)
        assert "This service, ONNX int8" in svg


# The whole


@pytest.mark.parametrize("name", [name for name, server in SERVERS.items() if not server.package])
def test_every_server_is_started_from_files_that_exist(name, tmp_path):
    start = SERVERS[name].start(Workspace(tmp_path, Path("python")), 8080)
    app = start.command[-1].partition(":")[0].replace(".", "/")
    assert (start.cwd / f"{app}.py").is_file()
    assert any("8080" in word for word in (*start.command, *start.env.values()))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.slow
def test_after_ctrl_c_the_record_is_kept_and_nothing_runs_on(tmp_path):
    command = [sys.executable, "-m", "scripts.benchmarks.serving", "--quick", "--limit", "20"]
    command += ["--servers", "ours-onnx,flask-onnx,litserve"]  # engines that start in half a second
    command += ["--baselines-python", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as bench:
        output, started = "", []
        while "  c=1 " not in output and (character := bench.stdout.read(1)):
            output += character
        started = psutil.Process(bench.pid).children(recursive=True)
        bench.send_signal(signal.SIGINT)
        output += bench.stdout.read()
    assert bench.returncode == 130, output
    assert "LitServe: not measured: litserve is not installed" in output
    assert len(started) >= 2 and psutil.wait_procs(started, 10)[1] == []
    record = read_record(tmp_path / "out")
    assert not record.complete and [cell.concurrency for cell in record.cells] == [1]
    (cell,) = record.cells
    assert cell.result.succeeded > 0 and cell.result.errors == {}
    assert "the run was ended early" in (tmp_path / "out" / "serving.md").read_text()
