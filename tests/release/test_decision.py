"""What the figures of a stage decide, and what is compared to find them."""

from __future__ import annotations

import json
import math

import pytest

from eval.dataset.image_set import ImageSet, ImageSource
from eval.gate.criteria import Criterion, Verdict
from eval.samples.model import Sample
from release.decision import Measured, Parity, judge_gate, judge_harm, judge_parity
from release.errors import ReleaseError
from release.measure import failed_share
from release.parity import bundle_answers, compare_with_bundle, share_alike
from release.plan import BETA, GAMMA, PROD
from release.text import decision_lines
from tests.helpers.bundles import one_coloured, write_bundle

WHOLE = Parity("heroku", 10, 10, 10, 0.01, 0.05)


def sample(index: int, probabilities: tuple[float, ...] | None, error: str | None = None) -> Sample:
    return Sample("heroku-candidate", "single", "measure", 0, index, 0.0, 1.0, 1.0, False, error=error,
                  probabilities=probabilities)  # fmt: skip


def criterion(metric: str, verdict: Verdict) -> Criterion:
    return Criterion("heroku", metric, verdict, 0.005, None, 0.9, 0.8, -0.1, -0.15, -0.05, 1000)


@pytest.mark.parametrize(
    ("parity", "failures", "verdict"),
    [
        (WHOLE, (), Verdict.NOT_WORSE),
        (Parity("heroku", 10, 10, 9, 0.01, 0.05), (), Verdict.WORSE),
        (Parity("heroku", 10, 9, 9, 0.01, 0.05), (), Verdict.WORSE),
        (Parity("heroku", 10, 10, 10, 0.06, 0.05), (), Verdict.WORSE),
        (WHOLE, ("heroku-candidate could not be measured: refused",), Verdict.WORSE),
    ],
    ids=["same", "another class", "no answer", "far", "not measured"],
)
def test_beta_passes_only_the_bundles_own_answers(parity, failures, verdict):
    assert judge_parity(BETA, Measured("run", failures, (parity,))).verdict == verdict


def test_beta_asks_a_person_where_few_answers_are_productions():
    verdicts = [judge_parity(BETA, Measured("run", (), (WHOLE,), {"heroku": share})) for share in (0.5, 0.49)]
    assert [each.verdict for each in verdicts] == [Verdict.NOT_WORSE, Verdict.UNDECIDED]
    assert "classes in another order" in verdicts[1].reasons[-1]


def test_gamma_says_what_the_gate_says_and_a_canary_only_worse():
    undecided = [criterion("accuracy", Verdict.UNDECIDED), criterion("failures", Verdict.NOT_WORSE)]
    worse = [criterion("accuracy", Verdict.WORSE), *undecided]
    measured = Measured("run")
    assert judge_gate(GAMMA, measured, undecided).verdict == Verdict.UNDECIDED
    assert judge_harm(PROD, measured, undecided).verdict == Verdict.NOT_WORSE
    assert judge_gate(GAMMA, measured, worse).verdict == judge_harm(PROD, measured, worse).verdict == Verdict.WORSE


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"accuracy": Verdict.BETTER}, Verdict.UNDECIDED),
        ({"accuracy": Verdict.WORSE, "f1_macro": Verdict.WORSE}, Verdict.UNDECIDED),
        ({"accuracy": Verdict.BETTER, "failures": Verdict.WORSE}, Verdict.WORSE),
    ],
)
def test_without_true_classes_gamma_lets_nothing_pass(found, said):
    measured, criteria = Measured("run", labelled=False), [criterion(*each) for each in found.items()]
    decision = judge_gate(GAMMA, measured, criteria)
    assert decision.verdict == said
    assert (judge_harm(PROD, measured, criteria).verdict == Verdict.WORSE) == (said == Verdict.WORSE)
    assert ("no true classes" in "".join(decision.reasons)) == (said == Verdict.UNDECIDED)


def test_what_could_not_be_measured_is_worse_everywhere():
    measured = Measured("run", ("heroku-candidate could not be measured: refused",))
    assert {judge(PROD, measured, ()).verdict for judge in (judge_gate, judge_harm)} == {Verdict.WORSE}
    assert measured.failures[0] in decision_lines(judge_harm(PROD, measured, ()))


def test_answers_are_compared_by_image():
    answers = [(0.9, 0.1), (0.2, 0.8), (0.6, 0.4)]
    samples = [sample(1, (0.21, 0.79)), sample(0, (0.9, 0.1)), sample(2, None, "timeout")]
    assert compare_with_bundle("heroku", samples, answers) == Parity("heroku", 3, 2, 2, pytest.approx(0.01), 0.05)
    assert share_alike(answers, [(0.9, 0.1), (0.8, 0.2), (0.1, 0.9)]) == pytest.approx(1 / 3)


def test_a_bundles_own_answers_need_no_setting_of_this_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_STORE", "s3://models")  # the default of `./cloudtrial store` and `release`
    classes = ("black", "white")
    images = [ImageSource(name, 0, "image/png", lambda grey=grey: one_coloured(grey)).load()
              for name, grey in (("0", 0), ("1", 255))]  # fmt: skip
    answers = bundle_answers(write_bundle(tmp_path / "b", classes), "onnx", ImageSet("test", classes, tuple(images)))
    assert answers == [pytest.approx([1, 0], abs=0.01), pytest.approx([0, 1], abs=0.01)]
    with pytest.raises(ReleaseError, match="gave no answers of its own: reference: "):
        bundle_answers(tmp_path / "nowhere", "onnx", ImageSet("test", classes, tuple(images)))


def test_no_request_at_all_is_a_failed_one():
    assert failed_share([]) == 1
    assert failed_share([sample(0, (1.0,)), sample(1, None, "http_5xx")]) == 0.5


def test_a_decisions_json_has_each_criterion_and_its_verdict():
    decision = judge_gate(GAMMA, Measured("run"), [criterion("accuracy", Verdict.WORSE)])
    written = decision.to_json()
    assert (written["verdict"], written["run"]) == ("worse", "run")
    assert written["criteria"][0]["metric"] == "accuracy" and written["criteria"][0]["low"] == -0.15


def test_a_stage_whose_p95_is_infinite_ends_in_its_verdict():
    p95 = Criterion("heroku", "p95", Verdict.WORSE, 0.1, "single", 12.0, math.inf, -math.inf, -math.inf, -1.5, 900)
    decision = judge_gate(GAMMA, Measured("run"), [p95])
    assert "endless" in decision_lines(decision)[1] and decision_lines(decision)[-1] == "Worse."
    written = decision.to_json()
    assert written["criteria"][0]["infinite"] == ["candidate", "gain", "low"]
    assert json.dumps(written, allow_nan=False)
