"""Whether the record of a run can be read again: what it cannot hold is said before anything is sent."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

from eval.dataset.image_set import ImageSet
from eval.errors import EvalError, InvalidInput
from eval.formatting import plural
from eval.plan.config import POISSON, RAMP, Config
from eval.plan.schedule import build_schedule
from eval.samples.model import RUN_JSON, Run
from eval.samples.store import MAX_RUN_JSON_BYTES, MAX_SAMPLES, parse_run

OTHER_BYTES = 2 * 2**20  # of run.json, beside images and classes: targets, pauses, machines that send


def check_record_size(config: Config, target_names: list[str], image_set: ImageSet) -> None:
    """Raises EvalError if samples.jsonl or run.json would be larger than what is read of them.

    A search for the highest rate has no size beforehand: it ends where samples.jsonl does.
    """
    requests = planned_samples(config, target_names, len(image_set.images))
    if requests > MAX_SAMPLES:
        options = "--duration, --rate or --limit" if {POISSON, RAMP} & set(config.scenarios) else "--limit"
        raise EvalError(
            f"the run would send {requests:,.0f} requests to {plural(len(target_names), 'target')}, and a run holds"
            f" {MAX_SAMPLES:,}: lower {options}, or measure fewer targets at once"
        )
    of_images = {"classes": image_set.classes, "image_manifest": list(map(dataclasses.asdict, image_set.entries))}
    if len(json.dumps(of_images, indent=1)) + OTHER_BYTES > MAX_RUN_JSON_BYTES:
        raise EvalError(
            f"{plural(len(image_set.images), 'image')} with their names are too many for {RUN_JSON}, which holds"
            f" {MAX_RUN_JSON_BYTES // 2**20} MiB: lower --limit"
        )


def check_readable(run: Run) -> None:
    """Raises EvalError where no report could read the record later, before anything is measured."""
    try:
        parse_run(json.dumps(dataclasses.asdict(run)).encode())
    except InvalidInput as error:
        raise EvalError(
            f"the run could not be reported, so nothing was measured: {error}. Its record holds the command line and"
            " the names of classes and images: are they UTF-8, and not too many?"
        ) from None


def planned_samples(config: Config, target_names: list[str], image_count: int) -> float:
    """The lines of samples.jsonl, the reference's included. Streams of random arrivals count with their mean."""
    closed = replace(config, scenarios=tuple(name for name in config.scenarios if name not in (POISSON, RAMP)))
    blocks = build_schedule(closed, target_names, image_count)
    stream = config.rate_rps * config.duration_s * len(target_names)
    streams = stream * (POISSON in config.scenarios) + stream / 2 * (RAMP in config.scenarios)
    return image_count + sum(len(block.image_indices) for block in blocks) + streams
