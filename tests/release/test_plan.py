"""The plan of a release, its journal, and its command line as far as nothing is deployed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from release.__main__ import main
from release.errors import ReleaseError
from release.journal import JOURNAL_FILE, Journal, only_release_of
from release.plan import BETA, GAMMA, PROD, STAGES, canary_stage, check_stages, read_plan, steps, write_plan
from store.model_store import ModelStore
from tests.conftest import ROOT
from tests.helpers.quick_release import make_plan
from tests.helpers.store_bundles import plain_bundle


@pytest.fixture
def store(tmp_path) -> ModelStore:
    """With two versions of tiny: prod and candidate."""
    store = ModelStore.open(str(tmp_path / "store"))
    for letter, alias in (("a", PROD), ("b", "candidate")):
        store.move_alias("tiny", alias, store.push(plain_bundle(tmp_path / letter, letter)).version, reason="test")
    return store


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = make_plan("0123456789ab", None, stages=(BETA, PROD), only=("accuracy",), images="DIR", margin=0.02)
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 2}', '{"schema_version": 1}'])
def test_another_file_is_no_plan(content, tmp_path):
    (tmp_path / "release.json").write_text(content)
    with pytest.raises(ReleaseError, match=r"cannot be read: .*; start a new release"):
        read_plan(tmp_path)
    with pytest.raises(ReleaseError, match="is no release"):
        read_plan(tmp_path / "nowhere")


@pytest.mark.parametrize("stages", [(), ("gamma", "beta"), ("beta", "beta"), ("alpha",)], ids=str)
def test_stages_are_known_ones_in_their_order(stages):
    with pytest.raises(ReleaseError, match="expected some of beta,gamma,prod, in this order"):
        check_stages(stages)
    assert check_stages((BETA, PROD)) == (BETA, PROD)


@pytest.mark.parametrize(
    ("stages", "canary"), [(STAGES, GAMMA), ((BETA, PROD), BETA), ((PROD,), GAMMA)], ids=["all", "two", "prod alone"]
)
def test_prods_canary_is_the_stage_before(stages, canary):
    assert canary_stage(make_plan("b" * 12, "a" * 12, stages=stages)) == canary


def test_each_stage_deploys_measures_judges_and_promotes():
    names = {
        stage: [step.name for step in steps(make_plan("b" * 12, "a" * 12)) if step.stage == stage] for stage in STAGES
    }
    common = ["deploy", "ready", "self_test", "run", "gate", "promote"]
    assert names == {BETA: common, GAMMA: common, PROD: [*common, "follow", "verify"]}


def test_production_alone_follows_what_was_promoted_before():
    plan = make_plan("b" * 12, "b" * 12, stacks=True)
    assert [(step.stage, step.name) for step in steps(plan)] == [
        (PROD, name) for name in ("follow", "ready", "self_test")
    ]


def test_a_release_begins_in_no_folder_of_something_else(store, tmp_path, capsys):
    mine = tmp_path / "work" / "prod" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(SystemExit) as ended:
        main(["--model", "tiny@candidate", "--store", store.url, "--stacks", "heroku", "--out", str(tmp_path / "work")])
    assert ended.value.code == 2 and "work holds something else; name a new folder" in capsys.readouterr().err
    assert [path for path in (tmp_path / "work").rglob("*") if path.is_file()] == [mine]


def test_a_store_in_the_home_folder_is_found_when_it_is_resumed(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    words = ["--model", "tiny@candidate", "--store=~/store", "--stacks", "heroku", "--stages", "beta", "--out", "here"]
    assert main(words) == 1 and "needs the pulumi program" in capsys.readouterr().err
    assert read_plan(tmp_path / "here").store == str(tmp_path / "store")


def test_a_journal_is_read_as_it_was_written(tmp_path):
    journal = Journal(tmp_path)
    written = [journal.add(BETA, "gate", verdict="not worse"), journal.add(BETA, "promote", version="1" * 12)]
    assert Journal(tmp_path).entries == written
    assert Journal(tmp_path).find(BETA, "gate") == written[0] and journal.find(GAMMA, "gate") is None


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"stage": "beta"}'])
def test_a_damaged_journal_names_its_line(line, tmp_path):
    Journal(tmp_path).add(BETA, "gate")
    with (tmp_path / JOURNAL_FILE).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ReleaseError, match="line 2 is no step"):
        Journal(tmp_path)


def test_there_is_one_release_of_a_model_at_a_time(tmp_path):
    with only_release_of("tiny", tmp_path):
        with (
            pytest.raises(ReleaseError, match="another release of tiny is under way"),
            only_release_of("tiny", tmp_path),
        ):
            pass
        with only_release_of("other", tmp_path):
            pass
    with only_release_of("tiny", tmp_path):
        pass


def test_dry_run_prints_each_step_and_writes_nothing(store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert (
        main(["--model", "tiny@candidate", "--store", "store", "--images", "DIR", "--limit", "500", "--dry-run"]) == 0
    )
    text = capsys.readouterr().out
    old, new = store.resolve("tiny@prod"), store.resolve("tiny@candidate")
    assert f"tiny@candidate is {new}; tiny@prod is {old}" in text
    assert f"promote    tiny@gamma -> {new}" in text and f"500 images of {tmp_path}/DIR, beside {old}" in text
    assert sorted(tmp_path.rglob("*")) == before


def test_what_prod_has_already_is_not_released(store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--model", "tiny@prod", "--store", "store"]) == 0
    assert "already: there is nothing to release" in capsys.readouterr().out
    assert not (tmp_path / "releases").exists()


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        ([], 2, "--model NAME@candidate is needed"),
        (["--model", "tiny@candidate", "--store", "store", "--stages", "prod,beta"], 2, "in this order"),
        (["--model", "tiny@candidate", "--store", "store", "--targets", "azure"], 2, "'azure' is no target"),
        (["--model", "tiny", "--store", "store"], 1, "'tiny' names no version"),
        (["--model", "tiny@nobody", "--store", "store"], 1, "tiny has no alias 'nobody'"),
        (["--resume", "nowhere"], 1, "nowhere is no release"),
        (["--resume", "nowhere", "--margin", "1pp"], 2, "--margin: a resumed release has its own options"),
        (["approve", "nowhere", "--reason", "yes"], 1, "nowhere is no release"),
        (["approve", "nowhere", "--reason", " "], 2, "say why"),
        (["approve", "nowhere", "--reason", "first\nsecond"], 2, "in a line of at most 500 characters"),
        (["approve", "nowhere", "--reason", "x" * 501], 2, "in a line of at most 500 characters"),
        (["approve", "nowhere"], 2, "--reason"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value)[:20],
)
def test_wrong_usage_is_told_in_a_line(words, code, error, store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        found = main(words)
    except SystemExit as end:
        found = end.code
    last = capsys.readouterr().err.splitlines()[-1]
    assert (found, error in last) == (code, True), last


def test_help_imports_no_numpy_and_no_store():
    code = (
        "import sys, contextlib, release.__main__ as command\n"
        "with contextlib.suppress(SystemExit): command.main(['--help'])\n"
        "print([name for name in ('numpy', 'scipy', 'torch', 'obstore', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_plans_file_is_json_for_others(tmp_path):
    write_plan(tmp_path, make_plan("b" * 12, "a" * 12))
    assert json.loads((tmp_path / "release.json").read_text())["version"] == "b" * 12
