"""`./cloudtrial gate`: candidates of known worth, and what the command says of two runs."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Collection

import numpy as np
import pytest

from eval.__main__ import main
from eval.analysis.predictions.mcnemar import DiscordantPairs
from eval.analysis.predictions.paired_scores import paired_scores
from eval.analysis.run_comparison import Difference, RunData, Thresholds, compare_runs
from eval.cost.price_list import load_price_list
from eval.dataset.golden import GOLDEN_SOURCE
from eval.gate.criteria import (
    Criterion,
    Margins,
    Verdict,
    accuracy_criterion,
    images_needed,
    judge,
    newcombe_difference,
    overall,
    run_criteria,
    score_criterion,
)
from eval.samples.model import SAMPLES_FILE
from eval.samples.store import append_sample, write_run
from scripts.simulations.gate_passes import CASES, F1_CASES, f1_pass_rate, pass_rates
from tests.helpers.synthetic_run import FOUR, make_run

MARGIN = 0.005


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.images}-{-case.loss * 100:+g}pp")
def test_candidates_pass_as_often_as_is_promised(case):
    *_, passed = pass_rates(case, 500, np.random.default_rng(3))
    noise = 2 * (passed * (1 - passed) / 500) ** 0.5
    assert case.at_least - noise <= passed <= case.at_most + noise


@pytest.mark.parametrize("case", F1_CASES, ids=lambda case: f"{case.images}-{-case.loss * 100:+g}pp")
def test_f1_alone_passes_as_often_as_is_promised(case):
    runs = 200 if case.images == 100 else 60
    passed = f1_pass_rate(case, runs, np.random.default_rng(3))
    noise = 2 * (passed * (1 - passed) / runs) ** 0.5
    assert case.at_least - noise <= passed <= case.at_most + noise


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.004, Verdict.BETTER),
        (-0.004, 0.004, Verdict.NOT_WORSE),
        (-0.004, -0.001, Verdict.NOT_WORSE),  # for certain a little worse, and for certain within the margin
        (-0.006, 0.001, Verdict.UNDECIDED),
        (-0.009, -0.006, Verdict.WORSE),
        (-0.006, -0.001, Verdict.WORSE),
    ],
)
def test_verdict_of_an_interval(low, high, verdict):
    assert judge(low, high, MARGIN) == verdict


def test_an_undecided_gate_names_images_that_decide():
    criterion = accuracy_criterion("heroku", DiscordantPairs(1000, 16, 15), MARGIN)
    assert criterion.verdict == Verdict.UNDECIDED and criterion.needed
    factor = criterion.needed / 1000
    later = accuracy_criterion("", DiscordantPairs(criterion.needed, round(16 * factor), round(15 * factor)), MARGIN)
    assert later.verdict == Verdict.NOT_WORSE and later.needed is None


@pytest.mark.parametrize("only_b", [17, 23])
def test_without_a_margin_no_number_of_images_is_named(only_b):
    criterion = accuracy_criterion("heroku", DiscordantPairs(10_000, 17, only_b), 0.0)
    assert (criterion.verdict, criterion.needed) == (Verdict.UNDECIDED, None)


def test_images_needed_grow_with_the_spread():
    assert images_needed(0.0, 0.002, 1000, MARGIN) == pytest.approx(4 * images_needed(0.0, 0.001, 1000, MARGIN), abs=4)
    assert images_needed(0.0, 0.001, 1000, 0.0) is None


def test_equal_predictions_of_few_images_decide_nothing():
    few = accuracy_criterion("", DiscordantPairs(100, 0, 0), MARGIN)
    assert few.verdict == Verdict.UNDECIDED and few.needed
    assert accuracy_criterion("", DiscordantPairs(few.needed, 0, 0), MARGIN).verdict == Verdict.NOT_WORSE
    assert accuracy_criterion("", DiscordantPairs(few.needed - 10, 0, 0), MARGIN).verdict == Verdict.UNDECIDED


def equal_scores(*class_sizes: int) -> dict[str, Criterion]:
    """Of two that predict the same, with the same probabilities."""
    true, k = np.repeat(np.arange(len(class_sizes)), class_sizes), len(class_sizes)
    probabilities = np.eye(k)[true] * 0.9 + 0.1 / k
    scores = paired_scores(true, (true, true), (probabilities, probabilities), k)
    return {metric: score_criterion("", metric, score, MARGIN) for metric, score in scores.items()}


def test_equal_predictions_of_few_images_have_no_certain_score():
    few = equal_scores(50, 50)
    assert few.keys() == {"precision_macro", "f1_macro", "roc_auc"}
    for metric, criterion in few.items():
        assert criterion.verdict == Verdict.UNDECIDED and criterion.low < -0.02, metric
        enough = equal_scores(*[math.ceil(criterion.needed / 2)] * 2)[metric]
        assert (enough.verdict, enough.needed) == (Verdict.NOT_WORSE, None)
        assert equal_scores(*[criterion.needed // 2 - 5] * 2)[metric].verdict == Verdict.UNDECIDED


def test_a_class_of_few_images_leaves_a_macro_mean_open():
    """Of a class of 40 images a tenth may be lost unseen, which is a point of the mean of ten classes."""
    for criterion in equal_scores(*[400] * 9, 40).values():
        assert criterion.verdict == Verdict.UNDECIDED
    for criterion in equal_scores(*[400] * 9, 80).values():
        assert criterion.verdict == Verdict.NOT_WORSE


def test_paired_scores_are_those_of_scikit_learn():
    from sklearn.metrics import f1_score, precision_score, roc_auc_score

    rng = np.random.default_rng(5)
    true = rng.integers(0, 4, 2000)
    evidence = rng.normal(size=(2000, 4)) + 2.5 * np.eye(4)[true]
    both = [evidence + rng.normal(scale=0.2, size=evidence.shape) for _ in range(2)]
    values = [np.exp(e) / np.exp(e).sum(axis=1, keepdims=True) for e in both]
    labels = [v.argmax(axis=1) for v in values]
    scores = paired_scores(true, (labels[0], labels[1]), (values[0], values[1]), 4)
    assert scores["f1_macro"].a == pytest.approx(f1_score(true, labels[0], average="macro"))
    assert scores["precision_macro"].b == pytest.approx(precision_score(true, labels[1], average="macro"))
    assert scores["roc_auc"].a == pytest.approx(roc_auc_score(true, values[0], multi_class="ovr"), abs=1e-9)
    of_independent = paired_scores(true, (labels[0], rng.permutation(labels[1])), None, 4)
    for name, score in scores.items():
        assert 0 < score.standard_error < 0.01, name
    assert scores["f1_macro"].standard_error < of_independent["f1_macro"].standard_error / 2


def test_few_images_have_no_paired_score():
    true = np.arange(50) % 2
    assert paired_scores(true, (true, true), None, 2) == {}


def failures(*failed: Collection[int], n: int = 1000) -> Criterion:
    """The criterion of two runs of which the requests of these numbers failed. A block has 20."""
    run, samples = make_run(n_images=n, names=("heroku",), warmup=0)
    error = {"status": 503, "error": "http_5xx", "predicted_class": None, "probabilities": None}
    sides = []
    for numbers in failed:
        ordinals = itertools.count()
        of = [dataclasses.replace(s, **error) if s.phase == "measure" and next(ordinals) in numbers else s
              for s in samples if s.target == "heroku"]  # fmt: skip
        sides.append(RunData("a folder", run, of, load_price_list()))
    (criterion,) = (c for c in run_criteria(compare_runs(*sides, Thresholds()), Margins()) if c.metric == "failures")
    return criterion


OUTAGE, AT_RANDOM = range(500, 550), range(0, 1000, 5)


def test_failures_are_judged_and_an_outage_proves_no_rate():
    assert failures((), ()).verdict == Verdict.NOT_WORSE
    assert failures((), AT_RANDOM).verdict == Verdict.WORSE
    assert failures(AT_RANDOM, ()).verdict == Verdict.BETTER
    assert failures((), OUTAGE).verdict == Verdict.UNDECIDED


def test_an_outage_of_production_makes_no_candidate_better():
    assert failures(OUTAGE, range(0, 1000, 28)).verdict == Verdict.UNDECIDED  # 3.6%, in all of its time
    without = failures(OUTAGE, ())
    assert without.verdict == Verdict.NOT_WORSE and without.gain == pytest.approx(0.05)  # its own rate is known


def test_newcombes_interval_is_his_own_example():
    """Statistics in Medicine 17 (1998), table II: 56/70 and 48/80, at 95% two-sided 0.0524 to 0.3339."""
    low, high = newcombe_difference(56, 70, 48, 80, confidence=0.975)
    assert (low, high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


def test_slower_and_dearer_is_worse_beyond_the_margin():
    def verdict(metric: str, own: float, half: float, threshold: float | None = 0.1) -> Verdict:
        d = Difference("a", "single", metric, 10, 11, own, own=own, low=own - half, high=own + half, p=0.01,
                       threshold=threshold)  # fmt: skip
        return run_criteria([d], Margins())[0].verdict

    assert verdict("p95", 0.2, 0.05) == verdict("cost", 0.2, 0.05) == Verdict.WORSE
    assert verdict("p95", 0.02, 0.05) == Verdict.NOT_WORSE
    assert verdict("p95", 0.05, 0.2) == Verdict.UNDECIDED
    assert verdict("p95", -0.2, 0.05) == Verdict.BETTER
    assert verdict("p95", 0.2, 0.05, threshold=None) == Verdict.NOT_JUDGED  # twins on unlike processors


def speed(change: float, **fields) -> Criterion:
    d = Difference("a", "single", "p95", 10, 10 * (1 + change), change, own=0.0, threshold=0.1, **fields)
    return run_criteria([d], Margins())[0]


def test_a_change_that_the_machine_may_explain_is_undecided():
    unknown = speed(0.0, low=-0.05, high=0.05)  # one target: the machine cannot be told apart
    assert (unknown.verdict, unknown.reason and unknown.reason.code) == (Verdict.UNDECIDED, "machine_may_explain")
    shared = speed(0.11, machine=0.11, reference="a", p=1.0)
    assert (shared.verdict, shared.reason and shared.reason.code) == (Verdict.UNDECIDED, "shared_change")
    steady = speed(0.09, machine=0.09, reference="a", p=1.0)
    assert (steady.verdict, steady.reason and steady.reason.code) == (Verdict.NOT_JUDGED, "yardstick")


def criteria(*verdicts: Verdict, metric: str = "accuracy") -> list[Criterion]:
    return [Criterion("a", metric, verdict, MARGIN) for verdict in verdicts]


def test_all_criteria_have_to_hold():
    better, not_worse, undecided, worse, not_judged = Verdict
    assert overall(criteria(better, not_worse)) == better
    assert overall(criteria(not_worse, not_judged)) == not_worse
    assert overall(criteria(better, undecided)) == undecided
    assert overall(criteria(better, undecided, worse)) == worse
    assert overall(criteria(not_judged)) == undecided
    assert overall([*criteria(not_worse), *criteria(better, metric="p95")]) == not_worse  # faster is no better model


# The command


def write(folder, run, samples):
    folder.mkdir()
    write_run(folder, run)
    with (folder / SAMPLES_FILE).open("a", encoding="utf-8") as file:
        for sample in samples:
            append_sample(file, sample)
    return str(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Production, an equal candidate and a worse one, of four targets."""
    folder = tmp_path_factory.mktemp("gate")
    made = {
        "production": make_run(n_images=1200),
        "equal": make_run(n_images=1200, seed=8, wrong=84),
        "worse": make_run(n_images=1200, wrong=84, disagreements={"heroku": 60}),
        "few": make_run(n_images=120),
    }
    return {name: write(folder / name, *run) for name, run in made.items()} | {"folder": folder}


SCORES = ("--only", "accuracy,precision_macro,f1_macro,roc_auc")


def test_equal_candidate_passes(runs, capsys):
    assert main(["gate", runs["production"], runs["production"], *SCORES]) == 0
    assert "Not worse: the candidate may take production's place." in capsys.readouterr().out


def test_worse_candidate_is_stopped_and_named(runs, capsys):
    assert main(["gate", runs["production"], runs["worse"], *SCORES, "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "worse"
    worse = {(c["target"], c["metric"]) for c in found["criteria"] if c["verdict"] == "worse"}
    assert ("heroku", "accuracy") in worse and {target for target, _ in worse} == {"heroku"}


def test_too_few_images_are_undecided_and_say_how_many(runs, capsys):
    assert main(["gate", runs["few"], runs["few"], *SCORES]) == 3
    assert "images would decide" in capsys.readouterr().out


def test_every_criterion_is_judged_by_default(runs, capsys):
    main(["gate", runs["production"], runs["production"], "--format", "json"])
    found = json.loads(capsys.readouterr().out)["criteria"]
    assert {c["metric"] for c in found} == {
        "accuracy", "precision_macro", "f1_macro", "roc_auc", "p95", "failures", "cost"
    }  # fmt: skip
    assert all(c["verdict"] in ("not worse", "undecided", "not judged", "better") for c in found)


def test_other_images_or_classes_cannot_be_judged(runs, tmp_path, capsys):
    run, samples = make_run(n_images=200)
    other = [dataclasses.replace(entry, sha256="0" * 64) for entry in run.image_manifest]
    folder = write(tmp_path / "other", dataclasses.replace(run, image_manifest=other), samples)
    assert main(["gate", runs["few"], folder]) == 2
    assert "no image in common" in capsys.readouterr().err
    renamed = dataclasses.replace(run, classes=[name.upper() for name in run.classes])
    assert main(["gate", runs["few"], write(tmp_path / "classes", renamed, samples)]) == 2
    assert "other classes" in capsys.readouterr().err


@pytest.fixture(scope="module")
def failing(runs):
    """A candidate of which every tenth request to heroku fails, so that its p95 is infinite."""
    run, samples = make_run(n_images=1200)
    failed = {"status": 503, "error": "http_5xx", "predicted_class": None, "probabilities": None}
    samples = [
        dataclasses.replace(s, **failed) if s.target == "heroku" and s.image_index % 10 == 3 else s for s in samples
    ]
    return write(runs["folder"] / "failing", run, samples)


def no_constant(text):
    raise AssertionError(f"{text} is no JSON")


def test_an_infinite_p95_is_worse_and_said_to_be_endless(runs, failing, capsys):
    assert main(["gate", runs["production"], failing]) == 1
    rows = capsys.readouterr().out.splitlines()
    (row,) = (row for row in rows if row.startswith("heroku p95"))
    assert row.split()[4:8] == ["ms", "endless", "endless", "loss"] and row.endswith("worse")
    assert not any("inf" in row for row in rows)


def test_json_of_an_infinite_p95_is_json(runs, failing, capsys):
    assert main(["gate", runs["production"], failing, "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out, parse_constant=no_constant)
    (p95,) = (c for c in found["criteria"] if (c["target"], c["metric"]) == ("heroku", "p95"))
    assert p95["candidate"] is None and {"candidate", "gain"} <= set(p95["infinite"])
    assert all("infinite" not in c for c in found["criteria"] if c["target"] != "heroku")


# A candidate that compare calls worse, or does not compare


def slower(factor, run, samples):
    """The same run, every prediction so many times slower."""
    return run, [
        dataclasses.replace(s, latency_ms=s.latency_ms * factor, service_time_ms=s.service_time_ms * factor,
                            server_timing_ms={part: ms * factor for part, ms in s.server_timing_ms.items()})
        for s in samples
    ]  # fmt: skip


@pytest.fixture(scope="module")
def speeds(tmp_path_factory):
    """Deployments, alone and of three, and the same eight times slower."""
    folder, steady = tmp_path_factory.mktemp("speeds"), {"n_images": 1200, "twin": False, "spread": 0.03}
    both = {"one": ("gcp_cloudrun",), "three": ("aws_ec2", "heroku", "gcp_cloudrun")}
    made = {name: make_run(names=names, **steady) for name, names in both.items()}
    made |= {f"{name} slower": slower(8, *make_run(names=names, **steady)) for name, names in both.items()}
    return {name: write(folder / name, *run) for name, run in made.items()}


def test_a_slower_candidate_of_one_target_does_not_pass(speeds, capsys):
    assert main(["gate", speeds["one"], speeds["one slower"]]) == 3
    out = capsys.readouterr().out
    assert "p95 of gcp_cloudrun (single): no other target was measured" in out and "--steady-machine" in out
    assert "cost of gcp_cloudrun: no other target was measured" in out
    assert main(["gate", speeds["one"], speeds["one slower"], "--steady-machine"]) == 1
    assert main(["gate", speeds["one"], speeds["one"]]) == 0  # of one run: the machine was the same


def test_a_candidate_slower_on_all_targets_does_not_pass(speeds, capsys):
    assert main(["gate", speeds["three"], speeds["three slower"]]) == 3
    assert "the machine cannot be told from its change of +700%" in capsys.readouterr().out
    assert main(["gate", speeds["three"], speeds["three slower"], "--steady-machine"]) == 1


@pytest.mark.parametrize("only", [(), ("--only", "accuracy")], ids=["all", "one"])
def test_a_target_that_the_candidate_did_not_reach_is_worse(runs, tmp_path, capsys, only):
    unreached = make_run(n_images=1200, not_started={"heroku": "cannot be reached: refused"})
    assert main(["gate", runs["production"], write(tmp_path / "unreached", *unreached), *only]) == 1
    out = capsys.readouterr().out
    assert "heroku was not measured in the candidate: cannot be reached: refused" in out
    assert [line.split()[0] for line in out.splitlines() if line.endswith("  worse")] == ["heroku"]
    assert "Worse: the candidate must not take production's place." in out


def test_no_answer_is_worse_and_a_golden_set_decides_nothing(runs, tmp_path, capsys):
    run, samples = make_run(n_images=1200)
    dead = [
        dataclasses.replace(s, error="http_5xx", predicted_class=None, probabilities=None)
        if s.target == "heroku"
        else s
        for s in samples
    ]
    assert main(["gate", runs["production"], write(tmp_path / "dead", run, dead), "--only", "accuracy"]) == 1
    assert "heroku was not measured in the candidate: no request was answered" in capsys.readouterr().out
    other, answers = make_run(n_images=1200, model_versions=dict.fromkeys(FOUR, "ffff"))
    folders = [
        write(tmp_path / name, dataclasses.replace(each, images_source=GOLDEN_SOURCE), of)
        for name, each, of in (("a", run, samples), ("b", other, answers))
    ]
    assert main(["gate", *folders, "--only", "accuracy"]) == 3
    assert "the golden set checks a deployment, and tells no accuracy" in capsys.readouterr().out


def test_a_target_that_ended_early_in_the_candidate_is_worse(runs, tmp_path, capsys):
    run, samples = make_run(n_images=1200)
    targets = [dataclasses.replace(t, failure="gone" if t.name == "heroku" else None) for t in run.targets]
    folder = write(tmp_path / "early", dataclasses.replace(run, targets=targets), samples)
    assert main(["gate", runs["production"], folder, *SCORES]) == 1
    assert "heroku was not measured to its end in the candidate: gone" in capsys.readouterr().out
    assert main(["gate", folder, runs["production"], *SCORES]) == 0
    assert "heroku was not measured to its end in production: gone" in capsys.readouterr().out


def two_versions():
    run, samples = make_run(n_images=120)
    return run, [
        dataclasses.replace(s, model_version="ffff" if s.target == "heroku" and s.block % 2 else s.model_version)
        for s in samples
    ]


REFUSED = {
    "interrupted": (lambda: make_run(n_images=120, complete=False), "the candidate is not complete: interrupted"),
    "two versions of a target": (two_versions, "the models differ (0123456789ab: aws_ec2, heroku, gcp_cloudrun and"),
    "two versions of the targets": (
        lambda: make_run(n_images=120, model_versions={"heroku": "ffff"}), "gcp_function; ffff: heroku): deploy one",
    ),
    "a target less": (lambda: make_run(n_images=120, names=FOUR[:3]), "the targets differ: "),
    "another engine": (lambda: other(engine="onnx"), "aws_ec2 ran torch, and onnx"),
    "another size": (lambda: other(size="t3.medium"), "aws_ec2 is priced as aws_ec2, and as aws_ec2:t3.medium"),
}  # fmt: skip


def other(**changes):
    run, samples = make_run(n_images=120)
    first, *others = run.targets
    return dataclasses.replace(run, targets=[dataclasses.replace(first, **changes), *others]), samples


@pytest.mark.parametrize(("candidate", "told"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_comparison_is_refused(runs, tmp_path, capsys, candidate, told):
    assert main(["gate", runs["few"], write(tmp_path / "candidate", *candidate())]) == 2
    out, err = capsys.readouterr()
    assert told in err and "cannot be judged:" in err and not out


def test_an_incomplete_production_is_refused_too(runs, tmp_path, capsys):
    production = write(tmp_path / "production", *make_run(n_images=120, complete=False))
    assert main(["gate", production, runs["few"]]) == 2
    assert "production is not complete: interrupted" in capsys.readouterr().err


def test_another_model_is_what_a_gate_is_for(runs, tmp_path, capsys):
    versions = dict.fromkeys(FOUR, "ffff")
    candidate = write(tmp_path / "candidate", *make_run(n_images=1200, model_versions=versions))
    assert main(["gate", runs["production"], candidate, *SCORES]) == 0
    versions = {"heroku": "eeee", "gcp_cloudrun": "ffff"}
    run, samples = make_run(n_images=1200, names=tuple(versions), model_versions=versions)
    targets = [dataclasses.replace(t, target="heroku") for t in run.targets]
    one_run = write(tmp_path / "one-run", dataclasses.replace(run, targets=targets), samples)
    assert main(["gate", one_run, one_run, "--pair", "heroku=gcp_cloudrun", *SCORES]) == 0


def test_unknown_criterion_lists_the_valid_ones(runs, capsys):
    with pytest.raises(SystemExit):
        main(["gate", "a", "b", "--only", "speed"])
    assert "'speed' is no criterion; there are accuracy" in capsys.readouterr().err
