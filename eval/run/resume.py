"""Resuming a run: what must be the same, and what is left to measure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from eval.dataset.image_set import ImageSet
from eval.errors import EvalError
from eval.load.nodes.destinations import Node
from eval.plan.config import MAX_RATE, Config, config_from_json
from eval.run.run_dir import refuse_linked_logs
from eval.samples.model import RUN_SCHEMA_VERSION, RUNNING, SAMPLES_GZ_FILE, Run
from eval.samples.store import ResumeState, load_resume_state, read_run, truncate_torn_line
from eval.targets.endpoints import TargetSet, parse_target, stack_target_name
from eval.targets.tokens import is_loopback


def load_resumable(run_dir: Path) -> tuple[Run, Config]:
    """A run that can be resumed, and its configuration. Raises EvalError that says why it cannot."""
    run = read_run(run_dir)
    if run.complete:
        raise EvalError(f"cannot resume {run_dir}: it is complete; start a new run without --resume")
    if not run.config:
        raise EvalError(f"cannot resume {run_dir}: it is too old; start a new run without --resume")
    if "restarts" not in run.config:
        raise EvalError(
            f"cannot resume {run_dir}: an earlier version, with another schedule, began it; start a new run"
        )
    if (run_dir / SAMPLES_GZ_FILE).exists():
        raise EvalError(f"cannot resume {run_dir}: run gunzip on its {SAMPLES_GZ_FILE} first")
    refuse_linked_logs(run_dir)
    return run, config_from_json(run.config)


def check_options_given(run_dir: Path, run: Run, given: Mapping[str, bool]) -> None:
    """Raises EvalError if the run began with an option that its folder does not keep, and this part lacks it.

    `given`: flag -> whether it is on the command line.
    """
    words = {word.partition("=")[0] for word in run.command if word.startswith("--") and len(word) > 2}
    began_with = {flag for flag in given if any(map(flag.startswith, words))}  # argparse takes shorter forms
    if lacking := [flag for flag, is_given in given.items() if flag in began_with and not is_given]:
        raise EvalError(
            f"cannot resume {run_dir} without {lacking[0]}, which the run began with and its folder does not keep:"
            " give it again"
        )


def check_same_config(run_dir: Path, requested: Config, recorded_config: Config) -> None:
    """Raises EvalError if the command line differs from the run's configuration."""
    if differences := requested.differences_from(recorded_config):
        raise EvalError(
            f"cannot resume {run_dir} with {'; '.join(differences)}; leave the option out, or start a new run"
        )


def check_confirmed(
    run_dir: Path, remote: TargetSet, named_targets: Sequence[str], named_stacks: Sequence[str]
) -> None:
    """Raises EvalError if the folder alone names an address to which images or a token would be sent.

    Anyone may have written the folder. Its addresses count once the command line names them too (`check_same_config`
    has compared them); one of this machine gets images without that, and a token never.
    """
    named = {parse_target(text).name for text in named_targets} | {stack_target_name(stack) for stack in named_stacks}
    unconfirmed = {
        endpoint.name: endpoint.url
        for endpoint in remote.endpoints
        if endpoint.name not in named and (endpoint.token or endpoint.signer or not is_loopback(endpoint.url))
    }
    if unconfirmed:
        raise EvalError(
            f"cannot resume {run_dir}: only its folder names {_describe_endpoints(unconfirmed)}; give the run's"
            " --target and --stacks again, or --yes to send to all addresses that are listed above"
        )


def check_senders(run_dir: Path, run: Run, nodes: Collection[Node]) -> None:
    """Raises EvalError if other machines have sent a part of the run, and this one would send the rest."""
    if run.senders and not nodes:
        names = ",".join(dict.fromkeys(sender.name for sender in run.senders))
        raise EvalError(
            f"cannot resume {run_dir} from this machine: {names} sent its open loops; give --cluster {names}, or name"
            " other machines"
        )


def resume_run(run_dir: Path, run: Run, target_set: TargetSet, image_set: ImageSet) -> tuple[Run, ResumeState]:
    """The record of the resumed run, and what it has measured. An incomplete last line of the samples is cut off.

    Raises EvalError if the images or the targets are not those of the run.
    """
    if image_set.sha256 != run.images_sha256:
        raise EvalError(
            f"cannot resume {run_dir} with other images: {image_set.source}, sha256 {image_set.sha256[:12]}, instead of"
            f" {run.images_source}, {run.images_sha256[:12]}; select the same ones with --images"
        )
    recorded_urls = {target.name: target.url for target in run.targets if not target.twin and target.url}
    current_urls = {endpoint.name: endpoint.url for endpoint in target_set.endpoints if endpoint.twin is None}
    if any(current_urls.get(name) != url for name, url in recorded_urls.items()):
        raise EvalError(
            f"cannot resume {run_dir} with {_describe_endpoints(current_urls)}"
            f" instead of {_describe_endpoints(recorded_urls)}; start a new run"
        )
    failures = target_set.start_failures
    if not_restarted := [target.name for target in run.targets if target.twin and target.name in failures]:
        raise EvalError(f"cannot resume: {', '.join(not_restarted)} did not start: {failures[not_restarted[0]]}")
    truncate_torn_line(run_dir)
    urls = {endpoint.name: endpoint.url for endpoint in target_set.endpoints}
    targets = [replace(t, url=urls.get(t.name, t.url), failure=failures.get(t.name)) for t in run.targets]
    resumed_at = [*run.resumed_at, datetime.now(UTC).isoformat(timespec="seconds")]
    resumed_run = replace(
        run, schema_version=RUN_SCHEMA_VERSION, targets=targets, resumed_at=resumed_at, ended_at=None,
        incomplete_reason=RUNNING,
    )  # fmt: skip
    return resumed_run, load_resume_state(run_dir, run, MAX_RATE, len(resumed_at))


def _describe_endpoints(endpoints: dict[str, str]) -> str:
    return ", ".join(f"{name} at {url}" for name, url in sorted(endpoints.items())) or "no remote endpoint"
