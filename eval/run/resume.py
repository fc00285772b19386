"""Going on with a run that was ended: what must be the same, and what is left to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from eval.dataset.images import ImageSet
from eval.errors import EvalError
from eval.plan.config import MAX_RATE, Config, config_from_json
from eval.samples.model import SAMPLES_GZ_FILE, Run
from eval.samples.store import ResumeState, load_resume_state, read_run, truncate_torn_line
from eval.targets.endpoints import TargetSet


def load_resumable(run_dir: Path) -> tuple[Run, Config]:
    """A run that can be gone on with, and how it was configured. Raises EvalError that says why it cannot."""
    run = read_run(run_dir)
    if run.complete:
        raise EvalError(f"{run_dir} is complete, there is nothing left to measure; start a new run without --resume")
    if not run.config:
        raise EvalError(f"{run_dir} was made before runs could be gone on with; start a new run without --resume")
    if (run_dir / SAMPLES_GZ_FILE).exists():
        raise EvalError(f"the samples of {run_dir} are packed ({SAMPLES_GZ_FILE}); unpack them with gunzip first")
    return run, config_from_json(run.config)


def check_same_config(run_dir: Path, requested: Config, recorded_config: Config) -> None:
    """Raises EvalError when the command line asks for another run than the one in the folder."""
    if differences := requested.differences_from(recorded_config):
        raise EvalError(
            f"{run_dir} was made otherwise: {'; '.join(differences)}; leave the option out, or start a new run"
        )


def resume_run(run_dir: Path, run: Run, target_set: TargetSet, image_set: ImageSet) -> tuple[Run, ResumeState]:
    """The run as it goes on, and what it has measured; a torn last line of the samples is cut off.

    Raises EvalError when pictures or targets are not those of the run.
    """
    if image_set.sha256 != run.images_sha256:
        raise EvalError(
            f"the pictures are not those of {run_dir}: {image_set.source}, sha256 {image_set.sha256[:12]}, was"
            f" {run.images_source}, {run.images_sha256[:12]}; name the same ones with --images"
        )
    recorded_urls = {target.name: target.url for target in run.targets if not target.twin}
    current_urls = {endpoint.name: endpoint.url for endpoint in target_set.endpoints if endpoint.twin is None}
    if recorded_urls != current_urls:
        raise EvalError(
            f"{run_dir} asked {_describe_endpoints(recorded_urls)},"
            f" and now it would be {_describe_endpoints(current_urls)}; start a new run"
        )
    if not_restarted := [
        target.name for target in run.targets if target.twin and target.name in target_set.start_failures
    ]:
        raise EvalError(
            f"{', '.join(not_restarted)} could not be started again: {target_set.start_failures[not_restarted[0]]}"
        )
    truncate_torn_line(run_dir)
    urls = {endpoint.name: endpoint.url for endpoint in target_set.endpoints}
    targets = [replace(t, url=urls.get(t.name, t.url), failure=None) for t in run.targets]
    resumed_at = datetime.now(UTC).isoformat(timespec="seconds")
    resumed = [*run.resumed, resumed_at]
    return replace(run, targets=targets, resumed=resumed), load_resume_state(run_dir, MAX_RATE, len(resumed))


def _describe_endpoints(endpoints: dict[str, str]) -> str:
    return ", ".join(f"{name} at {url}" for name, url in sorted(endpoints.items())) or "no remote endpoint"
