"""Measures deployments with the harness, and reads what was measured."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eval.cli.compare import load_run_data
from eval.dataset.image_set import ImageSet
from eval.gate.criteria import Criterion, Margins
from eval.gate.runs import judge_runs
from eval.load.load_generator import RunOptions
from eval.plan.config import SINGLE, Config
from eval.progress import Reporter
from eval.run.run_dir import new_run_id
from eval.run.runner import INTERRUPTED_PREFIX, execute_run, new_run
from eval.samples.model import Sample
from eval.samples.store import read_run, read_samples
from eval.targets.endpoints import TargetSet
from eval.targets.tokens import Scrubber, Token
from release.decision import Parity
from release.environments.environment import Addresses
from release.errors import ReleaseError
from release.images import images_of
from release.invoked import endpoint_at, run_endpoint
from release.parity import bundle_answers, compare_with_bundle, share_alike
from release.plan import Plan
from service.model import Bundle

CANDIDATE, PRODUCTION = "candidate", "production"  # end the names of a run's targets


@dataclass(frozen=True)
class Meter:
    """How everything is measured in one release."""

    plan: Plan
    reporter: Reporter
    token: Token | None = None

    def images(self, stage: str, bundle: Bundle) -> ImageSet:
        """What a stage sends. Raises ReleaseError, or ImagesError."""
        return images_of(self.plan, stage, bundle, self.reporter.print)

    def prove(self, url: str, bundle: Bundle, timeout_s: float) -> int:
        """That a deployment is ready, serves this bundle and passes its self-test, of so many inputs.

        Raises ReleaseError, or CandidateBroken.
        """
        endpoint = endpoint_at(url, bundle, self.token)
        return endpoint.check_self_test(bundle, endpoint.wait_for(bundle, timeout_s))

    def measure(self, folder: Path, image_set: ImageSet, addresses: Mapping[str, Addresses]) -> tuple[str, ...]:
        """Send the images to every address in turns, in one run. `addresses`: role -> place -> address.

        Returns why the candidate was not measured to the end. What a killed run has left is replaced. Raises
        ReleaseError where production was not.
        """
        shutil.rmtree(folder, ignore_errors=True)
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        scrub = Scrubber([self.token] if self.token else [])
        endpoints = []
        for role, of_role in addresses.items():
            for place, address in of_role.items():
                target = place if self.plan.stacks else None
                endpoint = run_endpoint(target_name(place, role), target, address.url, self.token, scrub)
                endpoints.append(replace(endpoint, size=address.size, region=address.region))
        config = Config(
            local=False,
            engines=(),
            targets=tuple(f"{each.name}={each.url}" for each in endpoints),
            images=self.plan.images,
            limit=len(image_set.images),
            seed=self.plan.seed,
            restarts=0,
        )
        options = RunOptions(("./cloudtrial", *sys.argv[1:]), scrub=scrub)
        targets = TargetSet(tuple(endpoints), {})
        run = new_run(new_run_id(), targets, image_set, config, options)
        run = execute_run(part, run, targets, image_set, config, options, self.reporter)
        if (run.incomplete_reason or "").startswith(INTERRUPTED_PREFIX):
            raise KeyboardInterrupt
        os.replace(part, folder)
        failures = {target.name: target.failure.splitlines()[0] for target in run.targets if target.failure}
        for name, why in failures.items():
            if name.endswith(f"-{PRODUCTION}"):
                raise ReleaseError(f"{name} could not be measured: {why}; mend it, then resume")
        return tuple(f"{name} could not be measured: {why}" for name, why in failures.items())

    def parity(
        self, folder: Path, addresses: Addresses, bundle: Bundle, production: Bundle | None, image_set: ImageSet
    ) -> tuple[tuple[Parity, ...], dict[str, float]]:
        """Each place's answers beside the bundle's own, and the share of these that are production's."""
        parities, agreement = [], {}
        for place, address in addresses.items():
            engine = endpoint_at(address.url, bundle, self.token).version()["engine"]
            own = bundle_answers(bundle.folder, engine, image_set)
            parities.append(compare_with_bundle(place, samples_of(folder, place, CANDIDATE), own))
            if production and engine in production.engines and production.classes == bundle.classes:
                agreement[place] = share_alike(own, bundle_answers(production.folder, engine, image_set))
        return tuple(parities), agreement

    def failed_more(self, production: Path | None, candidate: Path) -> tuple[str, ...]:
        """Where more of the candidate's requests failed than of production's, by more than the margin."""
        lines = []
        for place in self.plan.places:
            before = failed_share(samples_of(production, place, PRODUCTION)) if production else 0.0
            after = failed_share(samples_of(candidate, place, CANDIDATE))
            if after - before > self.plan.failure_margin:
                lines.append(f"{place}: {after:.1%} of the requests failed, {before:.1%} in production")
        return tuple(lines)

    def judge(self, production: Path, candidate: Path, only: Sequence[str]) -> tuple[Criterion, ...]:
        """The criteria of each place; production and candidate may be of one run."""
        margins = Margins(self.plan.margin, self.plan.p95_margin, self.plan.failure_margin)
        with self.reporter.activity("Judging"):
            first = load_run_data(production, "A")[0]
            second = first if candidate == production else load_run_data(candidate, "B")[0]
            names = {target_name(place, PRODUCTION): target_name(place, CANDIDATE) for place in self.plan.places}
            steady = candidate == production
            criteria = judge_runs(first, second, margins, pairs=names, only=only, steady_machine=steady)
        places = {target_name(place, PRODUCTION): place for place in self.plan.places}
        return tuple(replace(criterion, target=places[criterion.target]) for criterion in criteria)


def target_name(place: str, role: str) -> str:
    """A target of a run."""
    return f"{place}-{role}"


def samples_of(folder: Path, place: str, role: str) -> list[Sample]:
    """The measured predictions of a target."""
    run, name = read_run(folder), target_name(place, role)
    return [s for s in read_samples(folder, run) if (s.target, s.phase, s.scenario) == (name, "measure", SINGLE)]


def failed_share(samples: Sequence[Sample]) -> float:
    """Of requests; 1 where there is none."""
    return sum(s.error is not None for s in samples) / len(samples) if samples else 1.0
