"""Scores of a few answers that can be checked by hand."""

import pytest

from eval.analysis.predictions.accuracy import ClassReport, Prediction, classification_metrics, prediction_agreement
from eval.codes import ReasonCode, unavailable

CLASSES = ["cat", "dog", "fox"]
SURE = {0: (0.8, 0.1, 0.1), 1: (0.1, 0.8, 0.1), 2: (0.1, 0.1, 0.8)}


def said(*labels, first=0):
    return {first + i: Prediction(label, SURE[label]) for i, label in enumerate(labels)}


def scores(truth, answers):
    return classification_metrics(dict(enumerate(truth)), answers, CLASSES)


def reason(value):
    assert value.value is None
    return value.reason.code


def test_accuracy_counts_answers_and_failures_apart():
    found = scores([0, 1, 2, 0], said(0, 1, 1))
    assert found["accuracy"].value == pytest.approx(2 / 3)
    assert found["accuracy"].n == 3
    assert found["accuracy_over_sent"].value == pytest.approx(2 / 4)
    assert found["accuracy_over_sent"].n == 4
    assert found["accuracy"].low < 2 / 3 < found["accuracy"].high


def test_precision_recall_and_f1_of_each_class():
    cat, dog, fox = scores([0, 0, 1, 2], said(0, 1, 1, 2))["per_class"]
    assert cat == ClassReport("cat", precision=1.0, recall=0.5, f1=pytest.approx(2 / 3), support=2)
    assert dog == ClassReport("dog", precision=0.5, recall=1.0, f1=pytest.approx(2 / 3), support=1)
    assert fox.f1 == 1.0


def test_macro_f1_is_the_mean_over_classes():
    assert scores([0, 0, 1, 2], said(0, 1, 1, 2))["f1_macro"].value == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_a_class_that_is_never_shown_nor_answered_does_not_count():
    found = scores([0, 1], said(0, 1))
    assert found["f1_macro"].value == 1.0
    assert reason(found["per_class"][2].precision) == ReasonCode.NEVER_PREDICTED
    assert reason(found["per_class"][2].recall) == ReasonCode.NO_IMAGE_OF_CLASS
    assert reason(found["per_class"][2].f1) == ReasonCode.NEITHER_IMAGE_NOR_PREDICTION


def test_confusion_has_the_truth_in_rows():
    assert scores([0, 0, 1, 2], said(0, 1, 1, 2))["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_roc_auc_of_a_perfect_ranking_is_one():
    assert scores([0, 1, 2], said(0, 1, 2))["roc_auc"].value == 1.0


def test_roc_auc_needs_every_class():
    missing = unavailable(ReasonCode.CLASSES_WITHOUT_IMAGE, missing=1, n_classes=3)
    assert scores([0, 1], said(0, 1))["roc_auc"] == missing


def test_roc_auc_takes_rows_that_rounding_left_off_one():
    off = {i: Prediction(i, tuple(p + 2e-5 for p in SURE[i])) for i in range(3)}
    assert scores([0, 1, 2], off)["roc_auc"].value == 1.0


def test_roc_auc_refuses_rows_that_are_no_probabilities():
    off = {i: Prediction(i, tuple(p * 2 for p in SURE[i])) for i in range(3)}
    assert reason(scores([0, 1, 2], off)["roc_auc"]) == ReasonCode.PROBABILITIES_NOT_NORMALISED


def test_calibration_error_is_the_gap_between_sure_and_right():
    assert scores([0, 1, 2, 0], said(0, 1, 2, 1))["ece"].value == pytest.approx(0.8 - 0.75)


def test_calibration_error_does_not_cancel_between_bins():
    answers = {0: Prediction(0, (0.99, 0.005, 0.005)), 1: Prediction(0, (0.5, 0.25, 0.25))}
    assert scores([1, 0], answers)["ece"].value == pytest.approx((0.99 + 0.5) / 2)


def test_labels_without_probabilities_give_accuracy_but_no_auc():
    found = scores([0, 1, 2], {i: Prediction(i, None) for i in range(3)})
    assert found["accuracy"].value == 1.0
    for score in ("roc_auc", "ece"):
        assert reason(found[score]) == ReasonCode.PROBABILITIES_MISSING


def test_no_answer_at_all_has_a_reason_for_each_score():
    found = scores([0, 1], {})
    for score in ("accuracy", "f1_macro", "roc_auc", "ece"):
        assert reason(found[score]) == ReasonCode.NO_RESPONSES
    assert found["accuracy_over_sent"].value == 0.0
    assert found["per_class"] == found["confusion"] == []


def test_parity_of_equal_answers():
    found = prediction_agreement(said(0, 1, 2), said(0, 1, 2))
    assert found.fraction.value == 1.0
    assert found.fraction.low < 1
    assert (found.n, found.disagreements, found.max_abs_prob_diff) == (3, 0, 0.0)


def test_parity_counts_only_what_both_answered():
    found = prediction_agreement(said(0, 1, 2), said(2, 2, first=1))
    assert (found.n, found.disagreements) == (2, 1)
    assert found.fraction.value == 0.5
    assert found.max_abs_prob_diff == pytest.approx(0.7)


def test_parity_with_someone_who_answered_nothing():
    found = prediction_agreement(said(0), {})
    assert reason(found.fraction) == ReasonCode.NO_COMMON_IMAGE
    assert reason(found.max_abs_prob_diff) == ReasonCode.NO_COMMON_PROBABILITIES
