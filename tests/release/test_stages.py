"""A release's way through its stages, with made-up deployments and figures, in a real store."""

from __future__ import annotations

import json

import pytest

from eval.gate.criteria import Verdict
from release.errors import ReleaseError
from release.plan import BETA, GAMMA, PROD
from service.errors import StoreError
from store.errors import StoreConflict
from store.model_store import ModelStore
from tests.helpers.quick_release import PLACE, make_plan, open_release, start_release
from tests.helpers.store_bundles import plain_bundle


@pytest.fixture
def store(tmp_path) -> ModelStore:
    return ModelStore.open(str(tmp_path / "store"))


@pytest.fixture
def versions(store, tmp_path) -> tuple[str, str]:
    """Production's, which NAME@prod points to, and the candidate's."""
    old, new = (store.push(plain_bundle(tmp_path / letter, letter)).version for letter in "ab")
    store.move_alias("tiny", PROD, old, reason="the first")
    return old, new


@pytest.fixture
def begin(tmp_path, store, versions):
    """Starts a release of the candidate."""

    def start(verdicts=None, *, production=versions[0], broken=None, **changes):
        plan = make_plan(versions[1], production, **changes)
        return start_release(tmp_path / "release", store, plan, verdicts or {}, say=lambda _: None, **(broken or {}))

    return start


def aliases(store) -> dict[str, str]:
    return {alias: record.version for alias, record in store.aliases("tiny").items()}


def decision(release) -> dict:
    return json.loads((release.folder / "decision.json").read_text())


def test_a_candidate_not_worse_passes_every_stage(begin, store, versions):
    release = begin()
    assert release.run() == 0
    assert aliases(store) == dict.fromkeys((BETA, GAMMA, PROD), versions[1])
    old, new = versions
    assert release.environment.deployed == [
        f"beta={new}", f"gamma={new}", f"prod={old}", f"canary={new}", f"prod={old}", f"prod={new}",
    ]  # fmt: skip
    assert release.meter.measured == ["beta", "gamma", "prod", "verify"]
    assert release.environment.closed == 1
    assert store.history("tiny", PROD)[-1].reason == "release 20260101-000000-0000: prod not worse"


@pytest.mark.parametrize("stage", [BETA, GAMMA, PROD])
def test_worse_halts_with_a_decision_and_moves_no_alias(stage, begin, store, versions):
    release = begin({stage: Verdict.WORSE})
    assert release.run() == 1
    passed = {BETA: [], GAMMA: [BETA], PROD: [BETA, GAMMA]}[stage]
    assert aliases(store) == dict.fromkeys(passed, versions[1]) | {PROD: versions[0]}
    assert (decision(release)["stage"], decision(release)["verdict"]) == (stage, "worse")
    assert "approve" not in decision(release)
    with pytest.raises(ReleaseError, match=f"only an undecided stage can be approved; {stage} is worse"):
        release.approve("I want it")


def test_broken_candidate_is_worse_in_beta(begin, store, versions):
    release = begin(broken={"broken": True})
    assert release.run() == 1
    assert decision(release)["reasons"] == ["Broken: it does not start: the self-test failed"]
    assert aliases(store) == {PROD: versions[0]}


def test_a_version_damaged_in_the_store_is_broken(begin, store, versions, tmp_path):
    (damaged,) = (tmp_path / "store" / "tiny" / "versions" / versions[1]).glob("*.onnx")
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    release = begin()
    assert release.run() == 1
    assert "is not what was pushed" in decision(release)["reasons"][0]
    assert release.environment.deployed == []


@pytest.mark.parametrize("moved", [False, True], ids=["in beta", "while production is verified"])
def test_a_store_out_of_reach_says_nothing_of_the_candidate(moved, begin, store, versions, monkeypatch):
    release, pull, lost = begin(), store.pull, []

    def lose_connection(reference, folder):
        if not lost and aliases(store)[PROD] == versions[moved]:
            lost.append(reference)
            raise StoreError("s3://models: no connection; check the network")
        return pull(reference, folder)

    monkeypatch.setattr(store, "pull", lose_connection)
    with pytest.raises(StoreError, match="no connection"):
        release.run()
    assert aliases(store)[PROD] == versions[moved]
    assert open_release(release.folder, store, {}).run() == 0
    assert aliases(store)[PROD] == versions[1]


@pytest.mark.parametrize("starts", [True, False])
def test_production_follows_an_alias_that_was_moved_before(starts, begin, store, versions):
    store.move_alias("tiny", PROD, versions[1], reason="by a release that was cut off then")
    release = begin(production=versions[1], broken={"broken_in_production": not starts})
    if starts:
        assert release.run() == 0
    else:
        with pytest.raises(ReleaseError, match="production does not start with it"):
            release.run()
    assert release.environment.deployed == [f"prod={versions[1]}"]
    assert len(store.history("tiny", PROD)) == 2


def test_other_classes_than_productions_are_broken(tmp_path, store, versions):
    bundle = plain_bundle(tmp_path / "c", "c")
    manifest = (bundle / "model.json").read_text()
    (bundle / "model.json").write_text(manifest.replace('["low", "high"]', '["high", "low"]'))
    plan = make_plan(store.push(bundle).version, versions[0])
    release = start_release(tmp_path / "release", store, plan, {}, say=lambda _: None)
    assert release.run() == 1
    assert "other classes than production, or in another order" in decision(release)["reasons"][0]


@pytest.mark.parametrize("stage", [BETA, GAMMA])
def test_undecided_waits_for_a_person_and_then_goes_on(stage, begin, store, versions):
    release = begin({stage: Verdict.UNDECIDED})
    assert release.run() == 3
    assert aliases(store).get(stage) is None and aliases(store)[PROD] == versions[0]
    assert f"moves tiny@{stage} to {versions[1]}" in decision(release)["approve"]
    again = open_release(release.folder, store, {}, say=lambda _: None)
    again.approve("looked at all ten")
    assert again.run() == 0
    assert aliases(store)[PROD] == versions[1]
    assert stage not in again.meter.measured
    entry = again.journal.find(stage, "approve")
    assert entry and entry.details["reason"] == "looked at all ten" and "@" in entry.details["by"]
    assert store.history("tiny", stage)[0].reason.endswith("undecided, approved: looked at all ten")


def test_a_resumed_undecided_release_still_waits(begin, store):
    release = begin({GAMMA: Verdict.UNDECIDED})
    assert [release.run(), open_release(release.folder, store, {}).run()] == [3, 3]


def test_an_approved_stage_cannot_be_approved_again(begin, store):
    release = begin({GAMMA: Verdict.UNDECIDED})
    release.run()
    release.approve("yes")
    release.run()
    with pytest.raises(ReleaseError, match="every stage is promoted"):
        release.approve("yes")


@pytest.mark.parametrize("fault", ["worse figures", "does not start"])
def test_failing_production_rolls_back_by_itself(fault, begin, store, versions):
    starts = fault == "worse figures"
    release = begin({"verify": Verdict.WORSE} if starts else {}, broken={"broken_in_production": not starts})
    assert release.run() == 1
    records = store.history("tiny", PROD)
    old, new = versions
    assert [record.version for record in records] == [old, new, old]
    assert "rolled back" in records[-1].reason
    assert release.environment.deployed[-1] == f"prod={old}"
    assert decision(release)["rolled_back_to"] == old


def test_a_hotfix_during_the_verification_is_not_rolled_back(begin, store, tmp_path, monkeypatch):
    release = begin({"verify": Verdict.WORSE})
    other = store.push(plain_bundle(tmp_path / "c", "c")).version
    follow = release.environment.follow_production

    def and_a_hotfix(bundle):
        store.move_alias("tiny", PROD, other, reason="a hotfix")
        return follow(bundle)

    monkeypatch.setattr(release.environment, "follow_production", and_a_hotfix)
    with pytest.raises(StoreConflict, match=r"somebody else has moved it"):
        release.run()
    assert aliases(store)[PROD] == other
    assert not release.journal.find(PROD, "rollback")


def test_after_a_rollback_a_resume_changes_nothing(begin, store, versions):
    release = begin({"verify": Verdict.WORSE})
    release.run()
    store.move_alias("tiny", PROD, versions[1], reason="a person wants it nevertheless")
    assert open_release(release.folder, store, {}).run() == 1
    assert len(store.history("tiny", PROD)) == 4


def test_the_first_model_asks_a_person_and_cannot_roll_back(tmp_path, store):
    version = store.push(plain_bundle(tmp_path / "a", "a")).version
    plan = make_plan(version, None)
    release = start_release(tmp_path / "release", store, plan, {}, broken_in_production=True)
    assert release.run() == 3
    assert "no production to compare with" in decision(release)["reasons"][0]
    release.approve("the first")
    assert release.run() == 1
    assert aliases(store)[PROD] == version and decision(release)["rolled_back_to"] is None


def test_production_moved_by_somebody_else_is_an_error(begin, store, versions, tmp_path):
    release = begin({GAMMA: Verdict.UNDECIDED})
    release.run()
    other = store.push(plain_bundle(tmp_path / "c", "c")).version
    store.move_alias("tiny", PROD, other, reason="somebody else")
    release.approve("yes")
    with pytest.raises(ReleaseError, match=f"tiny@prod is {other} by now, and was {versions[0]}"):
        release.run()
    assert aliases(store)[PROD] == other


def test_production_moved_at_the_last_moment_is_kept(begin, store, versions, tmp_path):
    release = begin()
    other = store.push(plain_bundle(tmp_path / "c", "c")).version
    judge = release.meter.judge

    def move_and_judge(production, candidate, only):
        if candidate.name == PROD:
            store.move_alias("tiny", PROD, other, reason="somebody else")
        return judge(production, candidate, only)

    release.meter.judge = move_and_judge
    with pytest.raises(StoreError):
        release.run()
    assert aliases(store)[PROD] == other


def test_fewer_stages_are_run_in_their_order(begin, store, versions):
    release = begin(stages=(BETA, GAMMA))
    assert release.run() == 0
    assert aliases(store) == {BETA: versions[1], GAMMA: versions[1], PROD: versions[0]}


def test_the_places_of_the_decision_are_the_plans(begin):
    release = begin({GAMMA: Verdict.WORSE})
    release.run()
    assert [criterion["target"] for criterion in decision(release)["criteria"]] == [PLACE]
