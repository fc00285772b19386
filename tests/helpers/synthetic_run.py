"""A made-up run with known numbers, for the tests of the summary and of the report."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from eval.samples.model import OPEN_LOOPS, RUN_SCHEMA_VERSION, ImageEntry, Run, Sample, TargetRun
from infra.models import DEFAULT_MODEL

PRICES = Path(__file__).resolve().parents[2] / "eval" / "cost" / "prices.yaml"

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
MODEL_VERSION = "0123456789ab"
ONNX_VERSION = "ba9876543210"
ONNX_FACTOR = 5.0  # times as fast
REFERENCE = "reference"
MEDIAN_MS = {"aws_ec2": 9.2, "heroku": 14.6, "gcp_cloudrun": 14.1, "gcp_function": 17.3}
STARTUP_MS = {"aws_ec2": 2950.0, "heroku": 2610.0, "gcp_cloudrun": 2680.0, "gcp_function": 3020.0}
PEAK_MIB = {"aws_ec2": 318.0, "heroku": 297.0, "gcp_cloudrun": 301.0, "gcp_function": 326.0}
PROCESSOR = {"cpu_model": "Made-up CPU", "cpu_generation": None, "instruction_sets": ["AVX2"], "instruction_limits": {}}
SHIPPED = {
    "torch": {"files_bytes": 22_600_000, "installed_bytes": 754_000_000, "reason": None},
    "onnx": {"files_bytes": 11_400_000, "installed_bytes": 71_000_000, "reason": None},
}
FOUR = ("aws_ec2", "heroku", "gcp_cloudrun", "gcp_function")  # as runs of before have them, which are still read
BLOCK_IMAGES = 20  # asked of one target before the next one's turn
WARMUP_MS = 250.0  # a first request, long enough to be seen where it should have been left out
ANSWER_BYTES = 412


def image_bytes(index: int) -> bytes:
    """The picture with that number, as a PNG whose checksum the run's manifest holds."""
    pixels = np.random.default_rng(index).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def make_run(
    n_images: int = 400,
    *,
    seed: int = 7,
    names: Sequence[str] = FOUR,
    foreign: bool = False,
    twin: bool = True,
    wrong: int | None = None,
    failures: Mapping[str, int] | None = None,
    failure_kind: str = "disconnected",
    not_started: Mapping[str, str] | None = None,
    disagreements: Mapping[str, int] | None = None,
    model_versions: Mapping[str, str] | None = None,
    reference: bool = True,
    warmup: int = 5,
    complete: bool = True,
    spread: float = 0.12,
) -> tuple[Run, list[Sample]]:
    """A run of single-stream requests over `n_images` pictures, the same whenever it is made with the same arguments.

    wrong: pictures that the model gets wrong (default 7% of them); the first ones are right.
    failures: target -> how many of its last requests failed, as when it is killed. not_started: target -> why.
    disagreements: target -> how many pictures, the first ones, it answers differently and so wrongly.
    foreign: endpoints of unknown kind rather than the four targets.
    """
    rng = np.random.default_rng(seed)
    labels = [i % len(CLASSES) for i in range(n_images)]
    answers = _answers(labels, round(n_images * 0.07) if wrong is None else wrong, rng)
    versions = {name: version_of(name) for name in names} | dict(model_versions or {})
    asked = [name for name in names if name not in (not_started or {})]
    samples, clock = [], 0.0
    for name in asked:
        for ordinal in range(1, warmup + 1):
            samples.append(_sample(name, "warmup", 0, 0, clock, WARMUP_MS, answers[0], ordinal, versions))
            clock += WARMUP_MS / 1000
    fails = failures or {}
    ordinals = dict.fromkeys(asked, warmup)
    for block, first in enumerate(range(0, n_images, BLOCK_IMAGES)):
        for turn in rng.permutation(len(asked)):
            name = asked[turn]
            for image in range(first, min(first + BLOCK_IMAGES, n_images)):
                took = median_ms(name) * float(rng.lognormal(0, spread))
                answer = answers[image]
                if image < (disagreements or {}).get(name, 0):
                    answer = np.roll(answer, 1)
                ordinals[name] += 1
                index = image - first
                sample = _sample(name, "measure", block, image, clock, took, answer, ordinals[name], versions, index)
                failed = image >= n_images - fails.get(name, 0)
                samples.append(_failed(sample, failure_kind) if failed else sample)
                clock += took / 1000
    if reference:
        samples += [_reference(image, answers[image]) for image in range(n_images)]
    return _run(n_images, labels, names, foreign, twin, versions, not_started or {}, complete, seed, clock), samples


def engine_of(name: str) -> str:
    """heroku-onnx runs onnx, anything else torch."""
    return "onnx" if name.endswith("-onnx") else "torch"


def version_of(name: str) -> str:
    return ONNX_VERSION if engine_of(name) == "onnx" else MODEL_VERSION


def median_ms(name: str) -> float:
    target = name.removesuffix("-onnx")
    return MEDIAN_MS.get(target, 12.0) / (ONNX_FACTOR if engine_of(name) == "onnx" else 1)


def _answers(labels: list[int], wrong: int, rng: np.random.Generator) -> list[np.ndarray]:
    """A probability vector for each picture: the truth is on top but for the last `wrong` ones."""
    answers = []
    for image, label in enumerate(labels):
        right = image < len(labels) - wrong
        top = label if right else (label + 2) % len(CLASSES)
        certainty = rng.uniform(0.75, 0.999) if right else rng.uniform(0.45, 0.8)
        rest = rng.dirichlet(np.ones(len(CLASSES) - 1)) * (1 - certainty)
        answer = np.insert(rest, top, certainty)
        if answer.argmax() != top:  # the rest went to a single class
            answer[[top, answer.argmax()]] = answer[[answer.argmax(), top]]
        answers.append(answer)
    return answers


def _sample(name, phase, block, image, clock, took, answer, ordinal, versions, index=0) -> Sample:
    server = max(0.5, took - 1.4)
    parts = {"decode": 0.21, "queue": 0.05, "inference": round(server - 0.5, 3), "total": round(server, 3)}
    return Sample(
        target=name,
        scenario="single",
        phase=phase,
        block=block,
        index_in_block=index,
        image_index=image,
        scheduled_s=round(clock, 6),
        latency_ms=round(took, 4),
        service_time_ms=round(took, 4),
        new_connection=ordinal == 1,
        time_to_first_byte_ms=round(took - 0.1, 4),
        status=200,
        predicted_class=int(answer.argmax()),
        probabilities=tuple(round(float(p), 6) for p in answer),
        server_timing_ms=parts,
        response_bytes=ANSWER_BYTES,
        instance_id=f"{name}-0",
        instance_request_number=ordinal,
        model_version=versions[name],
    )


def make_sample(image=0, error=None, **changes) -> Sample:
    """One sample made by hand, answered unless `error` says otherwise."""
    usual = {
        "target": "heroku", "scenario": "single", "phase": "measure", "block": 0, "image_index": image,
        "scheduled_s": 0.0, "latency_ms": 10.0, "service_time_ms": 10.0, "new_connection": False,
        "status": 200, "predicted_class": 0, "server_timing_ms": {"total": 8.0},
    }  # fmt: skip
    if changes.get("scenario") in OPEN_LOOPS:
        usual["send_delay_ms"] = 0.0
    sample = Sample(**usual | changes)
    return _failed(sample, error) if error else sample


def _failed(sample: Sample, kind: str) -> Sample:
    """The same request without an answer."""
    return dataclasses.replace(
        sample,
        status={"http_4xx": 400, "http_429": 429, "http_5xx": 503}.get(kind),
        error=kind,
        detail=f"made up: {kind}",
        predicted_class=None,
        probabilities=None,
        server_timing_ms={},
        response_bytes=0,
        instance_id=None,
        instance_request_number=None,
        model_version=None,
    )


def _reference(image: int, answer: np.ndarray) -> Sample:
    return Sample(
        target=REFERENCE,
        scenario=REFERENCE,
        phase="measure",
        block=0,
        image_index=image,
        scheduled_s=0.0,
        latency_ms=0.0,
        service_time_ms=0.0,
        new_connection=False,
        predicted_class=int(answer.argmax()),
        probabilities=tuple(round(float(p), 6) for p in answer),
        model_version=MODEL_VERSION,
    )


def _target(index, name, foreign, twin, versions, not_started) -> TargetRun:
    failure = not_started.get(name)
    started = twin and not failure
    target, engine = name.removesuffix("-onnx"), engine_of(name)
    return TargetRun(
        name=name,
        target=None if foreign else target,
        url=f"http://127.0.0.1:{18080 + index}",
        twin=twin,
        version={}
        if failure
        else {
            "model": {"name": "resnet18-cifar10", "version": versions[name], "engine": engine, "sha256": "0" * 64},
            "engine": engine,
            **PROCESSOR,
            "instance_id": f"{name}-0",
            "startup_ms": {"import": 1480.0, "load": 310.0, "first_prediction": 120.0, "total": 1910.0},
        },
        startup_ms=STARTUP_MS.get(target, 2500.0) / (4 if engine == "onnx" else 1) if started else None,
        peak_memory_mib=PEAK_MIB.get(target, 300.0) - (200 if engine == "onnx" else 0) if started else None,
        cpus=(2 if target == "aws_ec2" else 1) if started else None,
        reverse_proxy="nginx" if started and target == "aws_ec2" else None,
        failure=failure,
        engine=engine if twin else None,
        artifact=SHIPPED[engine] if started else {},
    )


def _run(n_images, labels, names, foreign, twin, versions, not_started, complete, seed, clock) -> Run:
    images = [
        ImageEntry(f"{CLASSES[label]}/{i:04d}.png", hashlib.sha256(image_bytes(i)).hexdigest(), label)
        for i, label in enumerate(labels)
    ]
    return Run(
        schema_version=RUN_SCHEMA_VERSION,
        id="20261121-120000-abc123",
        started_at="2026-11-21T12:00:00+00:00",
        ended_at=f"2026-11-21T12:{int(clock) // 60 % 60:02d}:{int(clock) % 60:02d}+00:00",
        complete=complete,
        incomplete_reason=None if complete else "interrupted from the keyboard",
        command=["python", "-m", "eval", "run", "--local"],
        seed=seed,
        scenarios=["single"],
        images_source="made-up pictures",
        images_sha256=hashlib.sha256("".join(image.sha256 for image in images).encode()).hexdigest(),
        image_manifest=images,
        classes=CLASSES,
        model=DEFAULT_MODEL,
        prices_sha256=hashlib.sha256(PRICES.read_bytes()).hexdigest(),
        targets=[_target(i, name, foreign, twin, versions, not_started) for i, name in enumerate(names)],
        client_environment={**PROCESSOR, "cores": 4, "memory_mib": 7900, "os": "Linux"},
        versions={"python": "3.11.7", "cloudtrial": "0.1.0", "git_sha": "0" * 40},
        planned_requests=n_images * (len(names) - len(not_started)),
    )
