"""`./cloudtrial samples` prints the samples that were asked for, and the figures that they make."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys

import pytest

from eval.__main__ import main
from tests.helpers.synthetic_scenarios import write_full_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    options = {"n_images": 80, "scenarios": ("single", "cold"), "failures": {"heroku": 6}}
    return write_full_run(tmp_path_factory.mktemp("run"), **options)


@pytest.fixture
def printed(folder, capsys):
    def run(*words):
        assert main(["samples", str(folder), *words]) == 0
        out, err = capsys.readouterr()
        return [line.split("\t") for line in out.splitlines()], err

    return run


def test_a_target_and_a_scenario_are_printed_without_the_warm_up(printed):
    (head, *rows), told = printed("--target", "heroku", "--scenario", "single")
    assert len(rows) == 80
    assert {row[head.index("target")] for row in rows} == {"heroku"}
    assert "heroku, single: 80 samples, 6 failed" in told


def test_the_warm_up_is_printed_when_asked_for(printed):
    assert len(printed("--phase", "warmup", "--target", "heroku")[0]) == 1 + 5


def test_failures_are_in_no_percentile(printed):
    def p50(told):
        return next(line for line in told.splitlines() if "service_time_ms" in line)

    assert p50(printed("--target", "heroku", "--scenario", "single")[1]) == p50(
        printed("--target", "heroku", "--scenario", "single", "--error", "none")[1]
    )


@pytest.mark.parametrize(("error", "number"), [("any", 6), ("disconnected", 6), ("timeout", 0)])
def test_errors_are_found_by_kind(printed, error, number):
    rows, told = printed("--error", error, "--columns", "target,error,detail")
    assert rows[1:] == [["heroku", "disconnected", "made up: disconnected"]] * number
    assert ("no sample matches" in told) == (number == 0)


def test_one_image_is_shown_over_all_targets_and_the_reference(printed):
    columns = "target,image_name,true_class,predicted_class"
    rows, _ = printed("--image", "30", "--scenario", "single", "--columns", columns)
    assert len(rows) == 1 + 4
    assert len({tuple(row[1:]) for row in rows[1:]}) == 1
    assert printed("--image", "30", "--target", "reference", "--columns", "predicted_class")[0][1] == [rows[1][3]]


def test_names_of_earlier_columns_stand_for_the_present_ones(printed):
    rows, _ = printed("--target", "heroku", "--columns", "picture,truth,label,lateness_ms,server_ms.total")
    assert rows[0] == ["image_name", "true_class", "predicted_class", "send_delay_ms", "server_timing_ms.total"]


def test_parts_of_a_start_are_columns_with_percentiles(printed):
    rows, told = printed(
        "--target",
        "heroku",
        "--scenario",
        "cold",
        "--columns",
        "instance_request_number,startup_ms.time_to_first_prediction,startup_ms",
    )
    values = sorted(float(row[1]) for row in rows[1:] if row[1] != "-")
    assert len(values) == 23
    assert f"startup_ms.time_to_first_prediction: p50 {values[11]:,.0f} ms" in told
    assert "process=" in rows[1][2]


def test_json_lines_are_the_samples_themselves(folder, capsys):
    main(["samples", str(folder), "--phase", "all", "--json"])
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--columns", "latency"), "'latency' is not a column"), (("--columns", "latency_ms.p50"), "is not a column"),
     (("--error", "http"), "there are any, none, dns"), (("--target", "azure"), "the run has aws_ec2"),
     (("--image", "80"), "images 0 to 79")],
)  # fmt: skip
def test_what_no_sample_can_have_is_refused(folder, capsys, words, message):
    assert main(["samples", str(folder), *words]) == 1
    assert message in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error(folder):
    command = [sys.executable, "-m", "eval", "samples", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        program.stdout.readline()
        program.stdout.close()
        told = program.stderr.read()
    assert program.returncode == 0
    assert "Traceback" not in told and "samples" in told


def test_the_commands_of_a_report_print_what_they_name(folder, printed, capsys):
    assert main(["report", str(folder)]) == 0
    capsys.readouterr()
    commands = set(re.findall(r"\./cloudtrial samples DIR ([^<]*)", (folder / "report.html").read_text("utf-8")))
    starts = [command for command in map(html.unescape, commands) if "startup_ms." in command]
    assert len(commands) > 5 and starts
    for command in starts:
        (head, *rows), _ = printed(*command.split())
        for column in (name for name in head if name.startswith("startup_ms.")):
            assert any(row[head.index(column)] != "-" for row in rows), f"{column} is empty: {command}"
