"""Going on with a run that was ended: what must be the same, and what is left to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from eval.dataset.images import ImageSet
from eval.errors import EvalError
from eval.plan.config import MAX_RATE, Config, config_from_json
from eval.samples.model import SAMPLES_GZ, Run
from eval.samples.store import Past, mend, read_run, recorded
from eval.targets.endpoints import Fleet


def read_unfinished(folder: Path) -> tuple[Run, Config]:
    """A run that can be gone on with, and how it was configured. Raises EvalError that says why it cannot."""
    run = read_run(folder)
    if run.complete:
        raise EvalError(f"{folder} is complete, there is nothing left to measure; start a new run without --resume")
    if not run.config:
        raise EvalError(f"{folder} was made before runs could be gone on with; start a new run without --resume")
    if (folder / SAMPLES_GZ).exists():
        raise EvalError(f"the samples of {folder} are packed ({SAMPLES_GZ}); unpack them with gunzip first")
    return run, config_from_json(run.config)


def refuse_change(folder: Path, now: Config, before: Config) -> None:
    """Raises EvalError when the command line asks for another run than the one in the folder."""
    if changed := now.difference(before):
        raise EvalError(f"{folder} was made otherwise: {'; '.join(changed)}; leave the option out, or start a new run")


def gone_on(folder: Path, run: Run, fleet: Fleet, images: ImageSet) -> tuple[Run, Past]:
    """The run as it goes on, and what it has measured; a torn last line of the samples is cut off.

    Raises EvalError when pictures or targets are not those of the run.
    """
    if images.sha256 != run.images_sha256:
        raise EvalError(
            f"the pictures are not those of {folder}: {images.source}, sha256 {images.sha256[:12]}, was"
            f" {run.images_source}, {run.images_sha256[:12]}; name the same ones with --images"
        )
    asked = {target.name: target.url for target in run.targets if not target.twin}
    here = {endpoint.name: endpoint.url for endpoint in fleet.endpoints if endpoint.twin is None}
    if asked != here:
        raise EvalError(f"{folder} asked {_places(asked)}, and now it would be {_places(here)}; start a new run")
    if missing := [target.name for target in run.targets if target.twin and target.name in fleet.failures]:
        raise EvalError(f"{', '.join(missing)} could not be started again: {fleet.failures[missing[0]]}")
    mend(folder)
    places = {endpoint.name: endpoint.url for endpoint in fleet.endpoints}
    targets = [replace(t, url=places.get(t.name, t.url), failure=None) for t in run.targets]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    resumed = [*run.resumed, now]
    return replace(run, targets=targets, resumed=resumed), recorded(folder, MAX_RATE, len(resumed))


def _places(endpoints: dict[str, str]) -> str:
    return ", ".join(f"{name} at {url}" for name, url in sorted(endpoints.items())) or "no remote endpoint"
