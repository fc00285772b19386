"""Runs over local twins: which are started, and that SageMaker's answers as the others do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eval.__main__ import main
from eval.cli.run import _twins_of
from eval.plan.config import Config, config_from_json
from eval.samples.model import SAMPLES_FILE
from eval.samples.store import read_run, read_samples, write_run
from infra.targets import TARGETS
from tests.helpers.synthetic_run import FOUR, make_run

pytestmark = pytest.mark.integration

SHORT = ("--images", "golden", "--limit", "6", "--warmup", "1", "--baseline-rtt", "2", "--block", "3")


def test_sagemakers_twin_answers_as_herokus_does(tmp_path):
    options = ("--twins", "heroku,aws_sagemaker", "--engines", "onnx", "--restarts", "1")
    assert main(["run", *SHORT, *options, "--out", str(tmp_path)]) == 0
    run, samples = read_run(tmp_path), list(read_samples(tmp_path))
    heroku, sagemaker = run.targets
    assert run.complete and (heroku.name, sagemaker.name) == ("heroku-onnx", "aws_sagemaker-onnx")
    assert (sagemaker.reverse_proxy, sagemaker.twin, sagemaker.failure) == ("InvokeEndpoint", True, None)
    assert 50 < (sagemaker.peak_memory_mib or 0) < 500
    assert [s.error for s in samples if s.error] == []
    answers = {
        name: {s.image_index: s.probabilities for s in samples if s.target == name and s.scenario == "single"}
        for name in ("heroku-onnx", "aws_sagemaker-onnx")
    }
    first, second = answers.values()
    assert len(first) == 6 and first == second
    own = [s for s in samples if s.target == "aws_sagemaker-onnx" and s.image_index >= 0]
    assert len({s.instance_id for s in own}) == 2  # it was restarted once
    assert all(s.server_timing_ms and (s.cpu_ms is None or s.cpu_ms >= 0) for s in own if s.phase == "measure")


def test_resumed_run_keeps_the_highest_peak_memory(tmp_path):
    options = ("--twins", "heroku", "--engines", "onnx", "--restarts", "0")
    assert main(["run", *SHORT, *options, "--out", str(tmp_path)]) == 0
    lines = (tmp_path / SAMPLES_FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / SAMPLES_FILE).write_bytes(b"".join(lines[:-4]))
    whole = read_run(tmp_path)
    (twin,) = whole.targets
    write_run(tmp_path, replace(whole, complete=False, targets=[replace(twin, peak_memory_mib=600.0)]))
    assert main(["run", "--resume", str(tmp_path)]) == 0
    assert read_run(tmp_path).complete and read_run(tmp_path).targets[0].peak_memory_mib == 600.0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--twins", "azure"), "no target is called 'azure'; choose from aws_ec2, heroku,"),
        (("--twins", "heroku", "--target", "a=http://127.0.0.1:9"), "--twins names local twins, and this run has none"),
    ],
)
def test_twins_that_cannot_be_started_are_one_line(options, says, tmp_path, capsys):
    assert main(["run", *options, "--out", str(tmp_path / "run")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line and not (tmp_path / "run").exists()


def test_a_resumed_run_starts_the_twins_that_it_began_with():
    begun, _ = make_run(n_images=3, names=FOUR)
    assert _twins_of(config_from_json({"engines": ["torch"]}), begun) == (("torch",), list(FOUR))
    assert _twins_of(Config()) == (("torch",), list(TARGETS))
    assert _twins_of(Config(twins=("heroku",))) == (("torch",), ["heroku"])
