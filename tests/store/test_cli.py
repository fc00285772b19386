"""./cloudtrial store, from the words to what is printed."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from store.cli import CONFLICT, DONE, FAILED, main
from tests.conftest import ROOT
from tests.helpers.store_bundles import plain_bundle


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    """`call("list")` in a store of the test; gives the exit code, and what was printed and said."""
    monkeypatch.setenv("MODEL_STORE", str(tmp_path / "store"))

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return (main([str(word) for word in words]), *capsys.readouterr())

    return run


@pytest.fixture
def versions(store, tmp_path) -> list[str]:
    return [store.push(plain_bundle(tmp_path / letter, letter)).version for letter in "ab"]


def test_push_prints_the_reference_alone(call, tmp_path):
    code, out, err = call("push", plain_bundle(tmp_path / "bundle"))
    assert code == DONE and out.startswith("tiny@") and out.count("\n") == 1
    assert err.splitlines()[-1].startswith("Sending model.json, ")
    assert call("push", tmp_path / "bundle", "--name", "other")[1] == out.replace("tiny", "other")


def test_a_reference_moves_an_alias_and_is_pulled(call, versions, tmp_path):
    assert call("alias", f"tiny@{versions[0]}", "candidate")[0] == DONE
    code, out, _ = call("alias", "tiny@candidate", "prod", "--reason", "passed", "--by", "ada")
    assert (code, out) == (DONE, f"tiny@prod: version {versions[0]} (record 1)\n")
    assert call("pull", "tiny@prod", tmp_path / "there")[:2] == (DONE, f"tiny@{versions[0]}\n")
    assert (tmp_path / "there" / "model.json").is_file()


def test_the_folder_of_a_pull_may_follow_an_option(call, versions, tmp_path):
    words = ("pull", f"tiny@{versions[0]}", "--store", tmp_path / "store", tmp_path / "there")
    assert call(*words)[0] == DONE and (tmp_path / "there" / "model.json").is_file()
    for wrong in (("--fast",), ("more",), ("more", "--follow", tmp_path / "models", "most")):
        with pytest.raises(SystemExit) as caught:
            call(*words, *wrong)
        assert caught.value.code == 2


def test_expect_refuses_with_an_exit_code_of_its_own(call, versions):
    call("alias", f"tiny@{versions[0]}", "prod", "--expect", "none")
    code, out, err = call("alias", f"tiny@{versions[1]}", "prod", "--expect", versions[1])
    assert (code, out, err.count("\n")) == (CONFLICT, "", 1) and "somebody else has moved it" in err


def test_list_shows_what_points_to_each_version(call, versions):
    call("alias", f"tiny@{versions[0]}", "prod")
    call("alias", f"tiny@{versions[0]}", "beta")
    _, out, _ = call("list")
    head, newest, oldest = (line.split() for line in out.splitlines())
    assert head[0] == "MODEL" and newest[:2] == ["tiny", versions[1]]
    assert oldest[:2] == ["tiny", versions[0]] and oldest[-2:] == ["beta,", "prod"]
    rows = json.loads(call("list", "tiny", "--json")[1])
    assert [(row["version"], row["aliases"]) for row in rows] == [(versions[1], []), (versions[0], ["beta", "prod"])]


def test_an_empty_store_says_how_to_begin(call):
    assert "has no models yet: ./cloudtrial store push FOLDER" in call("list")[1]
    assert json.loads(call("list", "--json")[1]) == []


def test_show_tells_what_a_version_is(call, versions):
    call("alias", f"tiny@{versions[0]}", "prod")
    _, out, _ = call("show", "tiny@prod")
    for words in ("prod since 20", "2: low, high", "rows of 1 numbers", "90.0% (80.0% to 95.0%) on 50", "float32"):
        assert words in out
    shown = json.loads(call("show", "tiny@prod", "--json")[1])
    assert (shown["version"], shown["aliases"], shown["manifest"]["name"]) == (versions[0], ["prod"], "tiny")


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        (None, "not said"),
        ([], "not said"),
        ({"test": 0.9}, "not said"),
        ({"test": {"accuracy": 0.9, "low": "0.8", "high": None}}, "90.0% on some: not said of what"),
    ],
)
def test_an_accuracy_is_shown_as_far_as_it_is_known(call, store, tmp_path, metrics, told):
    bundle = plain_bundle(tmp_path / "bundle")
    manifest = json.loads((bundle / "model.json").read_text(encoding="utf-8")) | {"metrics": metrics}
    (bundle / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    code, out, _ = call("show", store.push(bundle))
    assert code == DONE and re.search(rf"^accuracy +{told}", out, re.MULTILINE)


def test_history_and_rollback_are_told(call, versions):
    for version, reason in zip(versions, ("first", "better"), strict=True):
        call("alias", f"tiny@{version}", "prod", "--reason", reason)
    code, out, _ = call("rollback", "tiny@prod", "--reason", "p95 doubled")
    assert (code, out) == (DONE, f"tiny@prod: version {versions[0]} (record 3, before it {versions[1]})\n")
    lines = call("history", "tiny@prod")[1].splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["REASON", "first", "better", "p95 doubled"]
    numbers = [record["number"] for record in json.loads(call("history", "tiny@prod", "--json")[1])]
    assert numbers == [1, 2, 3]
    assert call("rollback", "tiny@prod", "--reason", "once more")[0] == FAILED
    assert call("rollback", "tiny@prod", "--reason", "forth", "--to", versions[1])[0] == DONE


def test_follow_says_something_only_when_something_changed(call, versions, tmp_path):
    call("alias", f"tiny@{versions[0]}", "prod")
    words = ("pull", "tiny@prod", "--follow", tmp_path / "models")
    assert call(*words)[:2] == (DONE, f"tiny@prod: version {versions[0]} (record 1)\n")
    assert call(*words) == (DONE, "", "")
    assert json.loads(call(*words, "--json")[1])["version"] == versions[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "tiny"), "names no version; use NAME@ALIAS"),
        (("show", "big@prod"), "no model is called 'big'"),
        (("list", "big"), "no model is called 'big'"),
        (("pull", "tiny@prod"), "where to? Name a FOLDER"),
        (("history", "tiny@0123456789ab"), "a version, which never moves"),
        (("push", "nowhere"), "no model at nowhere: model.json is missing; name a folder that has it"),
        (("list", "--store", "az://models"), "a store is a folder, s3://"),
    ],
)
def test_what_goes_wrong_is_one_line(call, versions, words, said):
    code, out, err = call(*words)
    assert (code, out, err.count("\n")) == (FAILED, "", 1) and said in err and err.startswith("store: ")


def test_a_reason_steers_no_terminal(call, store, versions, tmp_path):
    record = store.move_alias("tiny", "prod", versions[0], reason="fine")
    path = tmp_path / "store/tiny/aliases/prod/0000000001.json"
    path.write_text(record.to_json().replace("fine", "\\u001b[2J"))
    assert "\x1b" not in call("history", "tiny@prod")[1]


def test_the_commands_for_folders_need_no_package():
    code = "import store.cli, sys; print(sorted({'obstore', 'boto3', 'numpy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_missing_obstore_is_one_line(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    code, _, err = call("list", "--store", "s3://models")
    assert code == FAILED and "pip install obstore" in err and err.count("\n") == 1
