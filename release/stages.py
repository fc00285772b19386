"""Takes a version through its stages. Every step may be repeated, so that a killed release goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.dataset.golden import is_golden
from eval.errors import EvalError
from eval.gate.criteria import Verdict
from infra.errors import InfraError
from release.decision import Decision, Measured, broken, judge_gate, judge_harm, judge_parity
from release.environments.environment import Addresses, Environment
from release.errors import CandidateBroken, ReleaseError
from release.journal import Journal
from release.measure import CANDIDATE, PRODUCTION, Meter
from release.plan import BETA, GAMMA, PROD, Plan
from release.text import decision_lines, halted_lines
from service.errors import BundleError
from service.model import Bundle, load_bundle
from store.aliases import NO_VERSION, current_user
from store.errors import DamagedVersion
from store.model_store import ModelStore

PROMOTED, WORSE, UNDECIDED = 0, 1, 3  # exit codes
DECISION_FILE = "decision.json"
HARM = ("accuracy", "failures")  # what a canary of few images is judged by
Say = Callable[[str], None]


class Release:
    """One release: its plan, and what has been done of it."""

    def __init__(
        self, folder: Path, plan: Plan, store: ModelStore, environment: Environment, meter: Meter, say: Say = print
    ):
        self.folder, self.plan, self.store, self.environment = folder, plan, store, environment
        self.meter, self.say, self.journal = meter, say, Journal(folder)

    def run(self) -> int:
        """Go on with what is not done yet. Returns the exit code. Raises ReleaseError, and what its parts raise."""
        try:
            if self.plan.released:
                return self._follow()
            for stage in self.plan.stages:
                halted = self._stage(stage)
                if halted is not None:
                    return halted
            self.say(f"Done: {self.plan.model}@{self.plan.stages[-1]} is {self.plan.version}")
            return PROMOTED
        finally:
            self.environment.close()

    def approve(self, reason: str) -> None:
        """Let an undecided stage pass. Raises ReleaseError for any other."""
        stage = next((s for s in self.plan.stages if not self.journal.find(s, "promote")), None)
        entry = self.journal.find(stage, "gate") if stage else None
        if stage is None or entry is None or entry.details["verdict"] != Verdict.UNDECIDED:
            verdict = entry.details["verdict"] if entry else "not judged"
            raise ReleaseError(
                f"{self.folder}: only an undecided stage can be approved; {stage or 'every stage'} is"
                f" {'promoted' if stage is None else verdict}"
            )
        self.journal.add(stage, "approve", reason=reason, by=current_user())
        self.say(f"{stage}: approved by {current_user()}: {reason}")

    def _follow(self) -> int:
        """Bring production to where NAME@prod was moved before, as by a release that was cut off right then."""
        self.say(f"prod: {self.plan.model}@prod is {self.plan.version} already; production follows it")
        bundle = self._bundle(self.plan.version)
        self._prove(PROD, self.environment.follow_production(bundle), bundle)
        return PROMOTED

    def _stage(self, stage: str) -> int | None:
        """One stage; an exit code where the release ends there."""
        if not self.journal.find(stage, "promote"):
            decision = self._decision(stage)
            if not self._may_go_on(stage, decision["verdict"]):
                return self._halt(stage, decision)
            self._promote(stage, decision)
        if stage != PROD or self.journal.find(PROD, "kept"):
            return None
        verdict = self._verified()
        if verdict["verdict"] != Verdict.WORSE:
            self.journal.add(PROD, "kept")
            return None
        return self._roll_back(verdict)

    def _decision(self, stage: str) -> dict[str, Any]:
        """What the stage's gate said; of a stage that has none yet, after deploying and measuring."""
        if entry := self.journal.find(stage, "gate"):
            return entry.details
        self._check_production()
        self.say(f"{stage}: deploying {self.plan.model}@{self.plan.version}")
        try:
            decision = self._deploy_and_measure(stage)
        except CandidateBroken as error:
            decision = broken(stage, f"Broken: {error}")
        return self._judged(stage, "gate", decision)

    def _deploy_and_measure(self, stage: str) -> Decision:
        bundle = self._candidate()
        addresses = self.environment.deploy(stage, bundle)
        self._prove(stage, addresses, bundle)
        image_set = self.meter.images(stage, bundle)
        self.say(f"{stage}: measuring {len(image_set.images):,} of {image_set.source}")
        run = self.folder / stage
        if stage == BETA:
            failures = self.meter.measure(run, image_set, {CANDIDATE: addresses})
            production = self._bundle(self.plan.production) if self.plan.production else None
            parities, agreement = self.meter.parity(run, addresses, bundle, production, image_set)
            return judge_parity(stage, Measured(str(run), failures, parities, agreement))
        if not self.plan.production:
            failures = self.meter.measure(run, image_set, {CANDIDATE: addresses})
            judge = judge_gate if stage == GAMMA else judge_harm
            return judge(stage, Measured(str(run), failures or self.meter.failed_more(None, run)), ())
        failures = self.meter.measure(run, image_set, {PRODUCTION: self._production(), CANDIDATE: addresses})
        labelled = not is_golden(image_set.source)
        if stage == GAMMA:
            criteria = () if failures else self.meter.judge(run, run, self.plan.only)
            return judge_gate(stage, Measured(str(run), failures, labelled=labelled), criteria)
        return self._harm(run, run, failures, labelled=labelled)

    def _harm(self, before: Path | None, run: Path, failures: tuple[str, ...], *, labelled: bool) -> Decision:
        """Of few images: what is worse for certain than in production's run before."""
        failures = failures or self.meter.failed_more(before, run)
        criteria = self.meter.judge(before, run, HARM) if before and not failures else ()
        return judge_harm(PROD, Measured(str(run), failures, labelled=labelled), criteria)

    def _prove(self, stage: str, addresses: Addresses, bundle: Bundle) -> None:
        """That each place is ready, serves this version and passes its self-test."""
        for place, address in addresses.items():
            tested = self.meter.prove(address.url, bundle, self.environment.ready_timeout_s)
            version = f"{self.plan.model}@{bundle.folder.name}"
            self.say(f"{stage}: {place} is ready and serves {version}; self-test passed ({tested} inputs)")

    def _judged(self, stage: str, step: str, decision: Decision) -> dict[str, Any]:
        for line in decision_lines(decision):
            self.say(f"{stage}: {line}")
        return self.journal.add(stage, step, **{k: v for k, v in decision.to_json().items() if k != "stage"}).details

    def _may_go_on(self, stage: str, verdict: str) -> bool:
        if verdict == Verdict.UNDECIDED:
            return self.journal.find(stage, "approve") is not None
        return verdict != Verdict.WORSE

    def _halt(self, stage: str, decision: dict[str, Any]) -> int:
        self._write_decision(stage, decision)
        for line in halted_lines(self.folder, self.plan, stage, decision["verdict"]):
            self.say(line)
        return UNDECIDED if decision["verdict"] == Verdict.UNDECIDED else WORSE

    def _write_decision(self, stage: str, decision: dict[str, Any], **more: Any) -> None:
        """For people and programs: what was decided, of what, and what approving would do."""
        plan = self.plan
        document = {
            "schema_version": 1,
            "release": plan.id,
            "model": plan.model,
            "candidate": plan.version,
            "production": plan.production,
            "stage": stage,
            **decision,
            **more,
        }
        if decision["verdict"] == Verdict.UNDECIDED:
            document["approve"] = (
                f"./cloudtrial release approve {self.folder} --reason TEXT: moves {plan.model}@{stage} to"
                f" {plan.version} and goes on"
            )
        part = self.folder / f"{DECISION_FILE}.part"
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.folder / DECISION_FILE)

    # Aliases

    def _promote(self, stage: str, decision: dict[str, Any]) -> None:
        """Move the stage's alias, unless that was done before a kill."""
        approval = self.journal.find(stage, "approve")
        reason = f"release {self.plan.id}: {stage} {decision['verdict']}"
        reason += f", approved: {approval.details['reason']}" if approval else ""
        current = self._alias(stage)
        expected = (self.plan.production if stage == PROD else current) or NO_VERSION
        if current != self.plan.version:
            self.store.move_alias(self.plan.model, stage, self.plan.version, reason=reason, expected=expected)
        self.journal.add(stage, "promote", version=self.plan.version, previous=current)
        self.say(f"{stage}: {self.plan.model}@{stage} -> {self.plan.version}")

    def _verified(self) -> dict[str, Any]:
        """What production's figures with the new version say, beside those that the canary's run has of the old."""
        if entry := self.journal.find(PROD, "verify"):
            return entry.details
        run = self.folder / "verify"
        self.say(f"prod: following {self.plan.model}@prod")
        try:
            bundle = self._candidate()
            addresses = self.environment.follow_production(bundle)
            self._prove(PROD, addresses, bundle)
            image_set = self.meter.images(PROD, bundle)
            failures = self.meter.measure(run, image_set, {CANDIDATE: addresses})
            before = self.folder / PROD if self.plan.production else None
            decision = self._harm(before, run, failures, labelled=not is_golden(image_set.source))
        except (ReleaseError, EvalError, InfraError) as error:  # whatever it is: users are served by it now
            decision = broken(PROD, f"Production with it: {error}", str(run))
        return self._judged(PROD, "verify", decision)

    def _roll_back(self, decision: dict[str, Any]) -> int:
        """Let NAME@prod point to the version before, and see that it is served again."""
        plan = self.plan
        if self.journal.find(PROD, "rollback"):
            self.say(f"prod: {plan.model}@prod was rolled back to {plan.production}")
            return WORSE
        if plan.production is None:
            self._write_decision(PROD, decision, rolled_back_to=None)
            self.say(f"prod: {plan.model}@prod stays {plan.version}: there is no version before it")
            return WORSE
        if self._alias(PROD) != plan.production:  # else it was moved before a kill
            reason = f"release {plan.id}: rolled back from {plan.version}: worse in production"
            self.store.move_alias(plan.model, PROD, plan.production, reason=reason, expected=plan.version)
        self.say(f"prod: worse, so {plan.model}@prod -> {plan.production} again")
        bundle = self._bundle(plan.production)
        self._prove(PROD, self.environment.follow_production(bundle), bundle)
        self._write_decision(PROD, decision, rolled_back_to=plan.production)
        self.journal.add(PROD, "rollback", version=plan.production)
        return WORSE

    def _check_production(self) -> None:
        """Raises ReleaseError where somebody has moved NAME@prod since the release began."""
        if (now := self._alias(PROD)) not in (self.plan.production, self.plan.version):
            raise ReleaseError(
                f"{self.plan.model}@prod is {now} by now, and was {self.plan.production} when this release began: start"
                " a new one"
            )

    def _alias(self, alias: str) -> str | None:
        record = self.store.aliases(self.plan.model).get(alias)
        return record.version if record else None

    # Bundles

    def _production(self) -> Addresses:
        """Production's addresses, each of which serves the version that the candidate is compared with."""
        bundle = self._bundle(self.plan.production or "")
        addresses = self.environment.production(bundle)
        self._prove(PROD, addresses, bundle)
        return addresses

    def _candidate(self) -> Bundle:
        """The candidate, whose classes are production's. Raises CandidateBroken, and StoreError for a store that cannot
        be read, which says nothing of the candidate."""
        try:
            bundle = self._bundle(self.plan.version)
        except (BundleError, DamagedVersion) as error:
            raise CandidateBroken(str(error)) from None
        if self.plan.production and bundle.classes != self._bundle(self.plan.production).classes:
            raise CandidateBroken(
                "it has other classes than production, or in another order, and clients read them by number: give it"
                " another name"
            )
        return bundle

    def _bundle(self, version: str) -> Bundle:
        """A version, pulled and checked."""
        folder = self.folder / "bundles" / version
        self.store.pull(f"{self.plan.model}@{version}", folder)
        return load_bundle(folder)
