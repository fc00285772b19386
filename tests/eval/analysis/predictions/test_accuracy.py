"""Scores of a few answers that can be checked by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, top_k_accuracy_score

from eval.analysis.predictions.accuracy import (
    ClassReport,
    ConfusedPair,
    Prediction,
    classification_metrics,
    prediction_agreement,
)
from eval.codes import ReasonCode, unavailable
from scripts.simulations.score_coverage import draw

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
    two_thirds, ranked = pytest.approx(2 / 3), pytest.approx((1 + 2 / 4) / 2)  # the other cat ties with dog and fox
    assert cat == ClassReport("cat", precision=1.0, recall=0.5, f1=two_thirds, average_precision=ranked, support=2)
    assert dog == ClassReport("dog", precision=0.5, recall=1.0, f1=two_thirds, average_precision=0.5, support=1)
    assert fox.f1 == fox.average_precision == 1.0


def test_macro_f1_is_the_mean_over_classes():
    assert scores([0, 0, 1, 2], said(0, 1, 1, 2))["f1_macro"].value == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_weighted_scores_count_each_class_by_its_images():
    found = scores([0, 0, 1, 2], said(0, 1, 1, 2))
    assert found["f1_weighted"].value == pytest.approx((2 * 2 / 3 + 2 / 3 + 1) / 4)
    assert found["precision_weighted"].value == pytest.approx((2 * 1 + 0.5 + 1) / 4)
    assert found["precision_macro"].value == pytest.approx((1 + 0.5 + 1) / 3)


def test_the_scores_are_scikit_learns():
    """Every class is shown and predicted, where there is but one definition."""
    true, predicted, probabilities = draw(np.random.default_rng(2), 400)
    answers = {
        i: Prediction(int(label), tuple(row))
        for i, (label, row) in enumerate(zip(predicted, probabilities.tolist(), strict=True))
    }
    found = classification_metrics(dict(enumerate(true.tolist())), answers, [f"class {i}" for i in range(10)])
    for average in ("macro", "weighted"):
        assert found[f"f1_{average}"].value == pytest.approx(f1_score(true, predicted, average=average))
        expected = precision_score(true, predicted, average=average)
        assert found[f"precision_{average}"].value == pytest.approx(expected)
    assert found["top5_accuracy"].value == pytest.approx(top_k_accuracy_score(true, probabilities, k=5))
    expected = average_precision_score(np.eye(10)[true], probabilities, average="macro")
    assert found["average_precision"].value == pytest.approx(expected)
    for name in ("f1_weighted", "precision_macro", "precision_weighted", "average_precision"):
        assert found[name].low < found[name].value < found[name].high, name


def test_of_two_classes_there_is_auc_and_no_top_five():
    answers = {i: Prediction(int(p > 0.5), (1 - p, p)) for i, p in enumerate((0.1, 0.4, 0.35, 0.8))}
    found = classification_metrics(dict(enumerate((0, 0, 1, 1))), answers, ["no", "yes"])
    assert found["roc_auc"].value == 0.75
    assert [row.average_precision for row in found["per_class"]] == pytest.approx([5 / 6, 5 / 6])
    assert found["top5_accuracy"] == unavailable(ReasonCode.FEW_CLASSES, needed=6, n_classes=2)


@pytest.mark.parametrize("probabilities", [None, (1.0,)])
def test_a_single_class_is_scored_without_a_warning(probabilities):
    found = classification_metrics({0: 0, 1: 0}, dict.fromkeys(range(2), Prediction(0, probabilities)), ["rose"])
    assert (found["confusion"], found["accuracy"].value, found["roc_auc"].value) == ([[2]], 1.0, None)


def test_top_five_breaks_ties_by_the_order_of_the_classes():
    answers = {i: Prediction(0, (0.125,) * 8) for i in range(8)}
    found = classification_metrics({i: i for i in range(8)}, answers, [str(i) for i in range(8)])
    assert found["top5_accuracy"].value == 5 / 8


def test_a_class_without_image_is_no_part_of_average_precision():
    found = scores([0, 1], said(0, 1))
    assert found["average_precision"].value == 1.0
    assert reason(found["per_class"][2].average_precision) == ReasonCode.NO_IMAGE_OF_CLASS


def test_a_thousand_classes_have_pairs_in_place_of_a_matrix():
    classes = [f"class {i}" for i in range(1000)]
    predicted = [(i + 1) % 1000 if i in (7, 7 + 1000, 500) else i % 1000 for i in range(2000)]
    answers = {i: Prediction(label, None) for i, label in enumerate(predicted)}
    found = classification_metrics({i: i % 1000 for i in range(2000)}, answers, classes)
    assert found["confusion"] == [] and len(found["per_class"]) == 1000
    assert found["most_confused"] == [
        ConfusedPair("class 7", "class 8", 2, 2),
        ConfusedPair("class 500", "class 501", 1, 2),
    ]


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
    for score in ("roc_auc", "average_precision", "ece"):
        assert reason(found[score]) == ReasonCode.PROBABILITIES_MISSING


def test_no_answer_at_all_has_a_reason_for_each_score():
    found = scores([0, 1], {})
    for score in ("accuracy", "f1_macro", "precision_weighted", "top5_accuracy", "roc_auc", "average_precision", "ece"):
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
