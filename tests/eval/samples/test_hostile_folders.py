"""Run folders of strangers: each command ends with its output or with one line, whatever a folder holds."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from eval.__main__ import main
from eval.errors import EvalError
from eval.run.run_dir import create_run_dir
from eval.samples import store
from eval.samples.model import RUN_JSON, SAMPLES_FILE, SAMPLES_GZ_FILE
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

IMAGES = 10
EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", 0))  # random ones, for a search; else a few, the same each time
HOSTILE_VALUES = (
    None, True, -1, 0, 3, 10**6, 10**12, 1e9, -1e9, 1e-6, 10**400, -(10**400), float("nan"), float("inf"), 1e308,
    -1e308, 1e-320, "", "x", "NaN", "\x1b[31m\n\u202e", "\udc80", "a" * 10**6, [], [[]], [None], {}, {"": None},
    {"value": "x"}, "1970", "9999-12-31T00:00:00+14:00", "../..", "<script>alert(1)</script>",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The records of the example report, with a few of its images."""
    run = json.loads((ROOT / "reports/example" / RUN_JSON).read_text())
    run["image_manifest"] = run["image_manifest"][:IMAGES]
    names = {"aws_ec2", "heroku", "heroku-onnx", "reference"}
    run["targets"] = [target for target in run["targets"] if target["name"] in names]
    with gzip.open(ROOT / "reports/example" / SAMPLES_GZ_FILE, "rt") as lines:
        samples = [s for s in map(json.loads, lines) if s["image_index"] < IMAGES and s["target"] in names]
    return run, samples[:400]


def paths_of(value, path=()):
    """Every place in a JSON value, as its keys from the root."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths_of(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:3]):
            yield from paths_of(item, (*path, index))


def changed(value, path, replacement):
    """The value with a place replaced, or without it where the replacement is `...`."""
    if not path:
        return None if replacement is ... else replacement
    copy = value.copy()
    if replacement is ... and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(value[path[0]], path[1:], replacement)
    return copy


def write(folder, run, samples):
    folder.mkdir(exist_ok=True)
    (folder / RUN_JSON).write_text(json.dumps(run))
    (folder / SAMPLES_FILE).write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return folder


def outcome(*arguments):
    """Exit code and both outputs of a command in this process; an exception is a failure of the test."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    assert (out.getvalue() + err.getvalue()).replace("\n", "").replace("\t", "").isprintable()
    return code, out.getvalue(), err.getvalue()


def commands(folder, other):
    return [
        ("samples", folder, "--columns", "target,image_name,true_class,detail,server_timing_ms"),
        ("report", folder),
        ("compare", folder, other, "--force", "--format", "markdown"),
        ("report", "--trend", folder, other),
    ]


@settings(
    max_examples=EXAMPLES or 12,
    derandomize=not EXAMPLES,
    deadline=None,
    phases=[Phase.generate],  # to make an example smaller would take minutes
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_any_change_of_a_record_is_reported_or_one_line(base, tmp_path_factory, data):
    run, samples = base
    if data.draw(st.booleans(), label="run"):
        path = data.draw(st.sampled_from(list(paths_of(run))))
        run = changed(run, path, data.draw(st.sampled_from([*HOSTILE_VALUES, ...])))
    else:
        index = data.draw(st.integers(0, len(samples) - 1))
        path = data.draw(st.sampled_from(list(paths_of(samples[index]))))
        value = data.draw(st.sampled_from([*HOSTILE_VALUES, ...]))
        step = data.draw(st.sampled_from([1, len(samples)]))
        samples = [
            changed(s, path, value) if (i - index) % step == 0 and has(s, path) else s for i, s in enumerate(samples)
        ]
    folder = write(tmp_path_factory.mktemp("run") / "a", run, samples)
    other = write(folder.parent / "b", base[0] | {"id": "b"}, base[1])
    for command in commands(folder, other):
        code, _, err = outcome(*command)
        assert code == 0 or command[0] == "compare" or len(err.splitlines()) == 1
    shutil.rmtree(folder.parent)


FILES = (RUN_JSON, SAMPLES_FILE)
CONTENTS = {
    "empty": b"",
    "binary": bytes(range(256)) * 100 + b"\n",
    "zeros": bytes(2**20),
    "deep": b"[" * 10**6 + b"\n",
    "deep-object": b'{"targets":' * 10**5 + b"\n",
    "list": b"[]\n",
    "number": b"1\n",
    "digits": b'{"schema_version": ' + b"9" * 10**5 + b"}\n",
    "many": b'{"schema_version": 3, "targets": [' + b"0," * 10**6 + b"0]}\n",
    "surrogate": b'"\\ud800"\n',
    "utf-16": '{"schema_version": 3}\n'.encode("utf-16"),
    "esc": b'{"schema_version": "\\u001b[31m"}\n',
    "later": b'{"schema_version": 99}\n',
}


def one_line(folder, name):
    """Each command ends with exit code 1 or 2, and one line that names the file."""
    for command in [
        ("samples", folder),
        ("report", folder),
        ("compare", folder, folder),
        ("report", "--trend", folder, folder),
    ]:
        code, out, err = outcome(*command)
        assert (code, out) == (2 if command[0] == "compare" else 1, "")
        assert len(err.splitlines()) == 1 and str(folder / name) in err and len(err) < 1000


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_that_is_no_record_is_one_line(base, tmp_path, name, content):
    folder = write(tmp_path / "a", *base)
    (folder / name).write_bytes(CONTENTS[content])
    if (name, content) == (SAMPLES_FILE, "empty"):
        return  # a run that was killed before its first sample
    one_line(folder, name)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_a_pipe_or_a_device_is_one_line(base, tmp_path, name):
    folder = write(tmp_path / "a", *base)
    for make in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)
        one_line(folder, name)


def test_packed_samples_are_bounded(base, tmp_path, monkeypatch):
    run, samples = base
    folder = write(tmp_path / "a", run, [])
    (folder / SAMPLES_FILE).unlink()
    path = folder / SAMPLES_GZ_FILE
    lines = "".join(json.dumps(sample) + "\n" for sample in samples).encode()
    for content in (b"no gzip\n", gzip.compress(lines)[:-20], gzip.compress(bytes(10**8)), gzip.compress(b" " * 10**8)):
        path.write_bytes(content)
        one_line(folder, SAMPLES_GZ_FILE)
    monkeypatch.setattr(store, "MAX_SAMPLES", 100)
    path.write_bytes(gzip.compress(lines))
    one_line(folder, SAMPLES_GZ_FILE)


@pytest.mark.parametrize(
    ("change", "key"),
    [({"target": "x"}, "target is 'x'"), ({"image_index": IMAGES}, "image_index is 10"),
     ({"target": "heroku", "latency_ms": 1e-320}, "latency_ms is 0"),
     ({"predicted_class": 10}, "predicted_class is 10"),
     ({"probabilities": [1.0]}, "probabilities are 1")],
)  # fmt: skip
def test_a_sample_of_another_run_is_one_line(base, tmp_path, change, key):
    run, samples = base
    folder = write(tmp_path / "a", run, [samples[0] | change])
    one_line(folder, SAMPLES_FILE)
    assert key in outcome("samples", folder)[2]


def test_samples_of_a_search_alone_are_reported(base, tmp_path):
    run, samples = base
    folder = write(tmp_path / "a", run, [sample | {"scenario": "max_rate"} for sample in samples])
    assert outcome("report", folder)[0] == 0


def test_a_fault_is_named_with_its_file_key_and_value(base, tmp_path):
    run, samples = base
    folder = write(tmp_path / "a", changed(run, ("targets", 1, "startup_ms"), "soon"), samples)
    assert outcome("report", folder)[2] == (
        f"{folder / RUN_JSON} is damaged, or no record of a run: targets.1.startup_ms is 'soon': "
        "should be a valid number; restore it, or measure again\n"
    )


@pytest.mark.parametrize("command", ["report", "trend"])
def test_a_report_replaces_links_and_follows_none(base, tmp_path, command):
    folder, victim = write(tmp_path / "a", *base), tmp_path / "victim"
    victim.write_text("untouched")
    names = ("report.html", "report.md", "report.json") if command == "report" else ("trend.html", "trend.json")
    for name in names:
        (folder / name).symlink_to(victim)
    if command == "report":
        assert outcome("report", folder)[0] == 0
    else:
        other = write(tmp_path / "b", base[0] | {"id": "b"}, base[1])
        assert outcome("report", "--trend", folder, other, "--out", folder)[0] == 0
    assert victim.read_text() == "untouched"
    assert [path for path in folder.iterdir() if path.is_symlink()] == []
    assert {path.name for path in folder.iterdir()} == {RUN_JSON, SAMPLES_FILE, *names}


@pytest.mark.parametrize(
    ("name", "message"),
    [(SAMPLES_FILE, "has a run already"), (RUN_JSON, "has a run already"), ("logs", "is a link")],
)
def test_a_run_starts_in_no_folder_with_links(tmp_path, name, message):
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EvalError, match=message):
        create_run_dir(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [(("image_manifest", 1, "label"), 10, "image_manifest.1.label is 10, but there are 10 classes"),
     (("targets", 1, "name"), "aws_ec2", "two are called the same"),
     (("targets", 1, "name"), "reference", "two are called the same, or one 'reference'")],
)  # fmt: skip
def test_a_run_that_contradicts_itself_is_one_line(base, tmp_path, path, value, message):
    folder = write(tmp_path / "a", changed(base[0], path, value), base[1])
    one_line(folder, RUN_JSON)
    assert message in outcome("samples", folder)[2]


def test_appending_to_samples_follows_no_link(tmp_path):
    (tmp_path / SAMPLES_FILE).symlink_to(tmp_path / "victim")
    with pytest.raises(EvalError, match="cannot write into"), store.SampleWriter(tmp_path, create=False):
        pass
    with pytest.raises(EvalError, match="cannot write into"):
        store.truncate_torn_line(tmp_path)
    assert not (tmp_path / "victim").exists()


def has(value, path):
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True
