"""scripts/mutation: every mutant still fits the programs, there are enough, and one is caught and reported."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import replace

import pytest

from infra.artifact import REPOSITORY
from infra.targets import TARGETS
from scripts.mutation import __main__ as command
from scripts.mutation.__main__ import Result, summary, table
from scripts.mutation.checks import MOTO_TESTS, STACK_OF, TESTS, Detection, detections, first_failure, make_copy
from scripts.mutation.mutant import Mutant, OutOfDate
from scripts.mutation.mutants import MUTANTS

pytestmark = pytest.mark.integration

# One of each kind, with the check that the table lists first.
CAUGHT = {
    "aws_ec2": ("IMDSv2 is optional", Detection("policy", "imdsv2")),
    "vm_files": (
        "the bundle's checksum is not checked",
        Detection("tests", "a_bundle_with_another_checksum_ends_the_boot"),
    ),
    "aws_sagemaker": ("anyone may take the role", Detection("policy", "least_privilege")),
    "gcp_cloudrun": ("it runs as the default account", Detection("policy", "own_accounts")),
    "gcp_function": ("who builds may do almost everything", Detection("policy", "least_privilege")),
    "heroku": ("the token is a plain config var too", Detection("policy", "no_secret_in_clear")),
    "shared": ("tags do not say the stack", Detection("policy", "tagged")),
    "operations": ("every job may write", Detection("tests", "each_job_has_the_rights_that_it_needs_alone")),
}
TYPING_ERROR = Mutant("heroku", "a typing error", "Pulumi.yaml", "name: cloudtrial", "name: cloudtrail")


@pytest.mark.parametrize("mutant", [pytest.param(mutant, id=f"{mutant.target}-{mutant.name}") for mutant in MUTANTS])
def test_mutant_fits_its_file_once_and_leaves_valid_python(mutant):
    text = (REPOSITORY / mutant.file).read_text()
    mutated = mutant.apply(text)
    assert mutated != text
    if mutant.file.endswith(".py"):
        ast.parse(mutated)


def test_every_program_has_enough_mutants_each_of_its_own_name():
    assert {mutant.target for mutant in MUTANTS} == set(STACK_OF)
    counts = Counter(mutant.target for mutant in MUTANTS)
    assert counts["aws_ec2"] >= 15
    assert all(counts[target] >= 8 for target in TARGETS)


def test_mutant_that_does_not_fit_its_file_is_out_of_date():
    for text in ("name: other", "name: cloudtrial\nname: cloudtrial"):
        with pytest.raises(OutOfDate, match="a typing error"):
            TYPING_ERROR.apply(text)


def test_a_copy_has_all_that_its_tests_import(tmp_path):
    names = {name for tests in (TESTS, MOTO_TESTS) for group in tests.values() for name in group}
    files = [f"tests/infra/{name}" for name in sorted(names)]
    assert first_failure(make_copy(tmp_path / "copy"), files, ["--collect-only"]) is None


@pytest.mark.slow
@pytest.mark.parametrize("group", STACK_OF)
def test_a_mutant_is_caught(group, tmp_path):
    name, detection = CAUGHT[group]
    (mutant,) = [mutant for mutant in MUTANTS if (mutant.target, mutant.name) == (group, name)]
    copy = make_copy(tmp_path / "copy")
    path = copy / mutant.file
    path.write_text(mutant.apply(path.read_text()))
    assert next(detections(copy, group, mutant.file)) == detection


@pytest.mark.parametrize(
    ("test", "failed"),
    [
        pytest.param("def test_a(): pass", None, id="passes"),
        pytest.param("def test_a(): pass\ndef test_b_c(): assert 0\ndef test_d(): assert 0", "b_c", id="fails"),
        pytest.param("import gone", "tests/test_it.py", id="cannot-be-read"),
    ],
)
def test_the_first_test_that_fails_is_named(test, failed, tmp_path):
    path = tmp_path / "tests" / "test_it.py"
    path.parent.mkdir()
    path.write_text(test)
    assert first_failure(tmp_path, ["tests/test_it.py"]) == failed


@pytest.mark.parametrize(("max_detections", "run"), [(1, ["policy"]), (None, ["policy", "tests"])])
def test_checks_end_at_the_first_that_catches_if_asked_to(max_detections, run, monkeypatch, tmp_path):
    begun = []

    def checks(copy, group, changed):
        for name in ("policy", "tests"):
            begun.append(name)
            yield Detection(name, "it")

    monkeypatch.setattr(command, "detections", checks)
    (tmp_path / "Pulumi.yaml").write_text("name: cloudtrial")
    assert (
        [found.check for found in command.try_mutant(tmp_path, TYPING_ERROR, max_detections).detections] == run == begun
    )


def test_table_names_the_checks_of_a_mutant_and_the_survivors():
    caught, survivor = (
        Result(TYPING_ERROR, (Detection("policy", "tagged"), Detection("tests", "a_test"))),
        Result(TYPING_ERROR, ()),
    )
    assert [result.survives for result in (caught, survivor)] == [False, True]
    assert table([caught]).endswith("| heroku | a typing error | policy (tagged), tests (a_test) |")
    assert "it survives" in table([survivor])
    text = summary([caught, survivor])
    assert "survivors: 1\n  heroku: a typing error (Pulumi.yaml)" in text
    assert "policy: caught 1, 0 of them alone" in text


@pytest.mark.parametrize(
    ("mutant", "detected", "detected_without", "code"),
    [
        pytest.param(TYPING_ERROR, [Detection("policy", "tagged")], [], 0, id="caught"),
        pytest.param(TYPING_ERROR, [], [], 1, id="survives"),
        pytest.param(replace(TYPING_ERROR, old="gone"), [], [], 2, id="out-of-date"),
        pytest.param(TYPING_ERROR, [], [Detection("tests", "a_test")], 2, id="caught-without-a-mutant"),
    ],
)
def test_exit_code_distinguishes_survivors_and_broken_checks(
    mutant, detected, detected_without, code, monkeypatch, capsys
):
    monkeypatch.setattr(command, "MUTANTS", (mutant,))
    monkeypatch.setattr(
        command, "detections", lambda copy, group, changed="": detected if changed else detected_without
    )
    assert command.main(["--target", "heroku", "--jobs", "1"]) == code
    assert bool(capsys.readouterr().out) == (code < 2)
