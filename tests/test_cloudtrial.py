"""./cloudtrial: one entry for all that users start, from any folder, with no environment activated."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from eval.__main__ import build_parser
from eval.samples.model import SAMPLES_FILE
from eval.samples.store import append_sample, write_run
from tests.conftest import ROOT
from tests.helpers.fake_endpoint import fake_endpoint
from tests.helpers.held_start import held_at_import
from tests.helpers.running_service import ready_service
from tests.helpers.synthetic_run import make_run
from training.__main__ import parser as training_parser

pytestmark = pytest.mark.integration

PROGRAM = ROOT / "cloudtrial"
NAMES = re.findall(r"^  ([a-z-]+)  ", subprocess.run([PROGRAM, "--help"], capture_output=True, text=True).stdout, re.M)


def call(*words, program=PROGRAM, **options):
    """The outcome of a command line."""
    return subprocess.run([program, *words], capture_output=True, text=True, **options)


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """The program in a folder with a space in its name; it has the project's packages, and no .venv yet."""
    folder = tmp_path / "my projects" / "cloudtrial"
    folder.mkdir(parents=True)
    shutil.copy(PROGRAM, folder)
    for name in ("eval", "infra", "release", "service", "store", "models", "watch"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_needs_no_venv_and_lists_commands_with_examples(elsewhere, word):
    done = call(word, program=elsewhere / "cloudtrial")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(NAMES) == 28 and all(f"\n  {name}  " in done.stdout for name in NAMES)
    assert done.stdout.split("examples:")[1].count("  ./cloudtrial ") == 3


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself_under_its_own_name(name):
    done = call(name, "--help", stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert re.match(rf"usage: (ls \*\.png \| )?\./cloudtrial {name}\b", done.stdout)


@pytest.mark.parametrize(
    "name", ["run", "report", "cost", "describe", "finetune", "import", "tabular", "pretrained", "promote", "export"]
)
def test_the_examples_of_a_command_are_ones_it_takes(name):
    text = call(name, "--help", stdin=subprocess.DEVNULL).stdout.partition("examples:\n")[2]
    examples = re.findall(rf"^  \./cloudtrial ({name}\b.*?)(?:   .*)?$", text, re.M)
    assert len(examples) >= 2
    parser = build_parser() if name in ("run", "report", "cost") else training_parser()
    for example in examples:
        parser.parse_args(shlex.split(example))


@pytest.mark.parametrize(
    ("word", "near"),
    [("rum", "did you mean run? "), ("twin", "did you mean twins"), ("zzz", ""), ("--version", "")],
)
def test_unknown_command_is_one_line_with_near_names_and_exit_2(word, near):
    done = call(word)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"cloudtrial: there is no command '{word}': {near}") and done.stderr.count("\n") == 1
    assert "./cloudtrial --help lists them all" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("run --targets mine=https://example.org", "there is no option --targets: did you mean --target? "),
        ("run --url=https://example.org", "there is no option --url: "),
        ("run photos", "'photos' belongs to no option: "),
        ("run --local photos --limitt 3", "'photos' belongs to no option: "),
        ("report reports/latest --trends", "there is no option --trends: did you mean --trend? "),
        ("finetune photos --out run --lear 1", "there is no option --lear: did you mean --lr? "),
        ("promote run --bundel mine", "there is no option --bundel: did you mean --bundle? "),
    ],
)
def test_an_unknown_option_is_one_line_with_the_nearest(words, says):
    name, *rest = words.split()
    done = call(name, *rest)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"./cloudtrial {name}: {says}./cloudtrial {name} --help lists them all\n"


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("serve", "MODEL_DIR=models/NAME PORT=9000 ./cloudtrial serve"),
        ("reference", "ls DIR/*.png | MODEL_DIR=models/NAME ./cloudtrial reference"),
    ],
)
@pytest.mark.parametrize("words", [["--model", "mine", "--port", "9000"], ["cat.png"]], ids=" ".join)
def test_what_takes_settings_alone_refuses_arguments(name, instead, words):
    done = call(name, *words, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"cloudtrial {name} takes no '{words[0]}': {instead}; --help lists the settings\n"


def test_missing_command_is_a_usage_error_and_shows_the_help():
    done = call()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ./cloudtrial COMMAND")


def test_missing_venv_names_the_command_to_type(elsewhere):
    done = call("prices", program=elsewhere / "cloudtrial")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert (
        f"there is no {elsewhere}/.venv/bin/python: type `make demo`" in done.stderr and "`make setup`" in done.stderr
    )


@pytest.mark.parametrize(("command", "package"), [("run", "rich"), ("serve", "granian")])
def test_missing_package_is_one_line_with_the_command_to_type(elsewhere, command, package):
    venv.create(elsewhere / ".venv", symlinks=True)
    done = call(command, program=elsewhere / "cloudtrial")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"lacks the package {package}: type `make demo`" in done.stderr


def test_it_works_from_any_folder_by_a_link_beside_a_namesake(elsewhere, tmp_path):
    (elsewhere / ".venv").symlink_to(sys.prefix)
    link = tmp_path / "bin" / "cloudtrial"
    link.parent.mkdir()
    link.symlink_to(elsewhere / "cloudtrial")
    (tmp_path / "eval.py").write_text("raise SystemExit('the wrong eval')")
    done = call("cost", "heroku", "--json", program=link, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    module = [sys.executable, "-m", "eval", "cost", "heroku", "--json"]
    assert json.loads(done.stdout) == json.loads(subprocess.check_output(module, cwd=ROOT))


@pytest.mark.parametrize(
    ("words", "code"),
    [(["run", "--limit", "0"], 2), (["report", "nowhere"], 1), (["preflight", "azure", "--no-twin"], 2)],
)
def test_the_exit_code_is_the_commands_own(words, code, tmp_path):
    done = call(*words, cwd=tmp_path)
    assert done.returncode == code and done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_signal_reaches_the_run_which_records_its_command_line(number, tmp_path):
    with fake_endpoint() as fake:
        words = ["run", "--target", f"a={fake.url}", "--images", "golden", "--baseline-rtt", "0", "--out", "out"]
        process = subprocess.Popen(
            [PROGRAM, *words], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        fake.on_post = lambda count: process.send_signal(number) if count == 40 else None
        out, err = process.communicate()
    assert (process.returncode, err) == (128 + number, "")
    assert "Not complete: interrupted after" in out
    assert json.loads((tmp_path / "out" / "run.json").read_text())["command"] == ["./cloudtrial", *words]


def test_serve_applies_its_settings_and_ends_on_sigterm(tmp_path, png):
    with ready_service(tmp_path / "log", command=(str(PROGRAM), "serve"), ENGINE="onnx") as service:
        assert service.post("/predict", png, "image/png").json["model"]["engine"] == "onnx"
    assert service.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("command", [("twins",), ("run", "--local")], ids=" ".join)
def test_a_signal_during_imports_ends_a_command_in_one_line(tmp_path, command, number):
    with held_at_import(tmp_path, "argparse", str(PROGRAM), *command) as process:
        process.send_signal(number)
        assert process.communicate(timeout=30)[0] == "cloudtrial: stopped\n"
        assert process.returncode == 128 + number


@pytest.mark.parametrize("module", ["difflib", "aiohttp"])
def test_ctrl_c_before_and_after_the_imports_is_one_line(module, tmp_path):
    """As Python reports each module that it has imported, the program is interrupted after this one."""
    command = [PROGRAM, "run", "--target", "a=http://127.0.0.1:9", "--images", "golden", "--out", tmp_path / "run"]
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr
    for line in process.stderr:
        if line.rpartition("|")[2].strip() == module:
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate()
    said = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert process.returncode == 130 and [line.removeprefix("cloudtrial: ") for line in said] == ["stopped"]
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_terminal_of_ascii_shows_every_character_as_it_can(tmp_path):
    environment = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    run, samples = make_run(n_images=2, names=["caf\u00e9"], foreign=True, warmup=0, reference=False)
    write_run(tmp_path, run)
    with open(tmp_path / SAMPLES_FILE, "w", encoding="utf-8") as file:
        for sample in samples:
            append_sample(file, sample)
    done = call("samples", tmp_path, env=environment)
    assert done.returncode == 0
    assert "caf?" in done.stdout and done.stderr.startswith("caf\\xe9, single: 2 samples, 0 failed")
