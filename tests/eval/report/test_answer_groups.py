"""Accuracy and parity have one row for targets that gave the same answers."""

import pytest

from eval.cost.price_list import load_price_list
from eval.report.answer_groups import agreement_rows, answer_groups
from eval.report.report_json import build_report
from tests.helpers.synthetic_run import make_run

EIGHT = ["aws_ec2", "heroku", "gcp_cloudrun", "gcp_function"]
EIGHT += [f"{name}-onnx" for name in EIGHT]


def summary_of(names, **options):
    run, samples = make_run(n_images=60, names=names, **options)
    return build_report(run, samples, load_price_list())


@pytest.fixture(scope="module")
def eight():
    """One engine answers two images otherwise; one target of the other engine three."""
    differing = {name: 2 for name in EIGHT if name.endswith("-onnx")} | {"heroku": 3}
    return summary_of(EIGHT, disagreements=differing)


def test_targets_of_one_engine_with_the_same_answers_are_one(eight):
    assert [(group.title, group.names) for group in answer_groups(eight)] == [
        ("AWS EC2, Google Cloud Run and Google Cloud Functions", ["aws_ec2", "gcp_cloudrun", "gcp_function"]),
        ("Heroku", ["heroku"]),
        ("ONNX int8 on all 4 targets", EIGHT[4:]),
    ]


def test_pairs_are_told_once_for_all_targets_of_a_group(eight):
    rows = {row.title: row for row in agreement_rows(eight, answer_groups(eight), "torch")}
    others, onnx = "AWS EC2, Google Cloud Run and Google Cloud Functions", "ONNX int8 on all 4 targets"
    assert {title: (row.disagreements, row.is_fault) for title, row in rows.items()} == {
        f"{others}: with each other": (0, False),
        f"{others} and Heroku": (3, True),
        f"{others} and {onnx}": (2, False),
        f"{others} and the reference": (0, False),
        f"Heroku and {onnx}": (1, False),
        "Heroku and the reference": (3, True),
        f"{onnx}: with each other": (0, False),
        f"{onnx} and the reference": (2, False),
    }
    assert rows[f"{others} and Heroku"].mcnemar_p is not None
    assert rows[f"{others} and the reference"].mcnemar_p is None  # where nothing differs there is nothing to test


def test_names_with_a_bar_are_told_apart():
    found = summary_of(["x", "a|b", "x|a"], foreign=True, twin=False)
    rows = agreement_rows(found, answer_groups(found), "torch")
    assert [row.title for row in rows] == ["all 3 targets: with each other", "all 3 targets and the reference"]


def test_one_engine_on_every_target_is_named_by_their_number():
    (group,) = answer_groups(summary_of(EIGHT[:4]))
    assert group.title == "all 4 targets"


def test_a_target_that_answered_nothing_is_in_no_group_of_others():
    groups = answer_groups(summary_of(EIGHT[:3], failures={"heroku": 60}))
    assert [group.title for group in groups] == ["AWS EC2 and Google Cloud Run", "Heroku"]


def test_targets_that_nothing_compares_are_not_called_alike(eight):
    apart = {pair: both for pair, both in eight["agreement"].items() if "onnx" not in pair or "reference" in pair}
    titles = [group.title for group in answer_groups({**eight, "agreement": apart})]
    assert titles[2:] == [eight["targets"][name]["title"] for name in EIGHT[4:]]
