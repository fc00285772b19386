"""scripts/mutants: every fault still fits the programs, there are enough, and a planted one is caught and reported."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import replace

import pytest

from infra.artifact import REPOSITORY
from infra.targets import TARGETS
from scripts.mutants import __main__ as command
from scripts.mutants.__main__ import Result, summary, table
from scripts.mutants.checks import STACK_OF, Catch, catches, first_failure, make_copy
from scripts.mutants.fault import Fault, OutOfDate
from scripts.mutants.faults import FAULTS

pytestmark = pytest.mark.integration

# One of each kind, with the check that the table lists first.
CAUGHT = {
    "aws_ec2": ("IMDSv2 is optional", Catch("policy", "imdsv2")),
    "vm_files": (
        "the bundle's checksum is not checked",
        Catch("tests", "a_bundle_with_another_checksum_ends_the_boot"),
    ),
    "gcp_cloudrun": ("it runs as the default account", Catch("policy", "own_accounts")),
    "gcp_function": ("who builds may do almost everything", Catch("policy", "least_privilege")),
    "heroku": ("the token is a plain config var too", Catch("policy", "no_secret_in_clear")),
    "shared": ("tags do not say the stack", Catch("policy", "tagged")),
}
MADE_UP = Fault("heroku", "a typing error", "Pulumi.yaml", "name: cloudtrial", "name: cloudtrail")


@pytest.mark.parametrize("fault", [pytest.param(fault, id=f"{fault.target}-{fault.name}") for fault in FAULTS])
def test_a_fault_has_exactly_one_place_and_leaves_a_program_that_can_be_read(fault):
    planted = fault.planted((REPOSITORY / fault.file).read_text())
    assert fault.old in (REPOSITORY / fault.file).read_text() != planted
    if fault.file.endswith(".py"):
        ast.parse(planted)


def test_every_program_has_its_share_of_faults_and_no_two_of_them_one_name():
    assert {fault.target for fault in FAULTS} == set(STACK_OF)
    shares = Counter(fault.target for fault in FAULTS)
    assert shares["aws_ec2"] >= 15
    assert all(shares[target] >= 8 for target in TARGETS)
    assert len({(fault.target, fault.name) for fault in FAULTS}) == len(FAULTS)


def test_a_fault_without_its_place_is_out_of_date():
    for text in ("name: other", "name: cloudtrial\nname: cloudtrial"):
        with pytest.raises(OutOfDate, match="a typing error"):
            MADE_UP.planted(text)


@pytest.mark.slow
@pytest.mark.parametrize("group", STACK_OF)
def test_a_planted_fault_is_caught(group, tmp_path):
    name, catch = CAUGHT[group]
    (fault,) = [fault for fault in FAULTS if (fault.target, fault.name) == (group, name)]
    copy = make_copy(tmp_path / "copy")
    path = copy / fault.file
    path.write_text(fault.planted(path.read_text()))
    assert next(catches(copy, group, fault.file)) == catch


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


def test_the_table_says_what_caught_a_fault_and_what_survives():
    excused = Fault("heroku", "a colour", "x", "a", "b", acceptable="no one sees it")
    caught, survivor, other = (
        Result(MADE_UP, (Catch("policy", "tagged"), Catch("tests", "a_test"))),
        Result(MADE_UP, ()),
        Result(excused, ()),
    )
    assert [result.survives for result in (caught, survivor, other)] == [False, True, False]
    assert table([caught]).endswith("| heroku | a typing error | policy (tagged), tests (a_test) |")
    assert "it survives" in table([survivor])
    assert "acceptable: no one sees it" in table([other])
    told = summary([caught, survivor, other])
    assert "survivors: 1\n  heroku: a typing error (Pulumi.yaml)" in told
    assert "policy: caught 1, 0 of them alone" in told
    assert told.endswith("heroku: a colour: no one sees it")


@pytest.mark.parametrize(
    ("fault", "found", "found_without", "code"),
    [
        pytest.param(MADE_UP, [Catch("policy", "tagged")], [], 0, id="caught"),
        pytest.param(MADE_UP, [], [], 1, id="survives"),
        pytest.param(replace(MADE_UP, acceptable="no one sees it"), [], [], 0, id="excused"),
        pytest.param(replace(MADE_UP, old="gone"), [], [], 2, id="out-of-date"),
        pytest.param(MADE_UP, [], [Catch("tests", "a_test")], 2, id="caught-without-a-fault"),
    ],
)
def test_the_exit_code_tells_survivors_and_broken_checks_apart(fault, found, found_without, code, monkeypatch, capsys):
    monkeypatch.setattr(command, "FAULTS", (fault,))
    monkeypatch.setattr(command, "catches", lambda copy, group, changed="": found if changed else found_without)
    assert command.main(["--target", "heroku", "--jobs", "1"]) == code
    assert bool(capsys.readouterr().out) == (code < 2)
