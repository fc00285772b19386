"""A made-up run with every scenario: that of `run_kit.make_run`, with streams, bursts, a search and cold starts."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from eval.plan.config import SCENARIOS, Config
from eval.samples.model import OPEN_LOOPS, SAMPLES_FILE
from eval.samples.store import append_sample, write_run
from tests.helpers.synthetic_run import CLASSES, make_run, make_sample, median_ms, version_of

RATE_RPS = 25.0
SLO_MS = 60.0
BREAKS_AT = {"aws_ec2": 210.0, "heroku": 60.0, "gcp_cloudrun": 130.0, "gcp_function": 95.0}  # requests a second
PHASES_MS = {"process": 240.0, "import": 1450.0, "load": 300.0, "first_prediction": 120.0}
COLD_N, IDLE_N = 24, 7
RATES = (25.0, 50.0, 100.0, 200.0, 400.0)


def make_full_run(n_images=400, *, scenarios=SCENARIOS, cached=(), drifting=(), late_ms=0.02, started_at=None,
                  **options):  # fmt: skip
    """A run with the scenarios that are named.

    cached: targets that answer a repeated picture from memory. drifting: targets whose single requests grow slower.
    late_ms: by how much the open streams are sent late.
    """
    run, samples = make_run(n_images, **options)
    config = Config(
        scenarios=tuple(scenarios), rate_rps=RATE_RPS, slo_ms=SLO_MS, gap_s=900.0, restarts=COLD_N, idle=IDLE_N
    )
    samples = [_slower(s) if s.target in drifting and s.scenario == "single" else s for s in samples]
    if "single" not in scenarios:
        samples = [s for s in samples if s.scenario != "single"]
    rng, places = np.random.default_rng(11), itertools.count(1000)
    for name in (t.name for t in run.targets if not t.failure):
        maker = Maker(name, run, rng, places, late_ms)
        samples += maker.baseline_rtt()
        for scenario in scenarios:
            if scenario != "single":
                samples += getattr(maker, scenario)(*([name in cached] if scenario == "repeat" else []))
    changed = {"started_at": started_at} if started_at else {}
    planned = sum(s.phase == "measure" and s.target != "reference" for s in samples)
    run = dataclasses.replace(
        run, scenarios=list(scenarios), config=config.to_json(), planned_requests=planned, **changed
    )
    return run, samples


def write_full_run(folder, **options):
    """The same as a run directory."""
    folder.mkdir(parents=True, exist_ok=True)
    run, samples = make_full_run(**options)
    write_run(folder, run)
    with (folder / SAMPLES_FILE).open("w") as file:
        for sample in samples:
            append_sample(file, sample)
    return folder


def _slower(sample):
    factor = 1 + sample.block / 20
    return dataclasses.replace(
        sample, latency_ms=sample.latency_ms * factor, service_time_ms=sample.service_time_ms * factor
    )  # fmt: skip


class Maker:
    """The samples of one target, scenario by scenario."""

    def __init__(self, name, run, rng, places, late_ms):
        self.name, self.run, self.rng, self.places, self.late_ms = name, run, rng, places, late_ms
        self.median_ms = median_ms(name)
        self.instances = itertools.count(1)

    def sample(self, scenario, image, block, place, scheduled_s, took_ms, *, late_ms=0.02, **changes):
        image = image % len(self.run.image_manifest) if image >= 0 else image
        facts = {
            "target": self.name, "scenario": scenario, "block": block, "index_in_block": place,
            "scheduled_s": round(scheduled_s, 5), "service_time_ms": round(took_ms, 4),
            "latency_ms": round(took_ms, 4),
            "predicted_class": self.run.image_manifest[image].label if image >= 0 else None,
            "time_to_first_byte_ms": round(took_ms * 0.9, 4), "probabilities": None, "response_bytes": 412,
            "instance_id": f"{self.name}-0", "instance_request_number": 9, "model_version": version_of(self.name),
            "server_timing_ms": {"total": max(0.3, round(took_ms - 1.5, 3))},
        }  # fmt: skip
        if scenario in OPEN_LOOPS:
            facts |= {"latency_ms": round(took_ms + late_ms, 4), "send_delay_ms": late_ms}
        return make_sample(image, **facts | changes)

    def took(self, factor=1.0):
        return self.median_ms * factor * float(self.rng.lognormal(0, 0.15))

    def baseline_rtt(self):
        opened = {"new_connection": True, "connection_ms": {"connect": 0.21}}
        return [
            self.sample("baseline_rtt", -1, block, place, block, 0.8 * float(self.rng.lognormal(0, 0.1)),
                        server_timing_ms={}, model_version=None, **opened if place == 0 else {})
            for block in (1, 999)
            for place in range(25)
        ]  # fmt: skip

    def poisson(self):
        made = []
        for block in range(10):
            number, at = next(self.places), 40.0 + 12 * block
            for place, gap in enumerate(self.rng.exponential(1 / RATE_RPS, 60)):
                at += float(gap)
                ways = {"dns": 0.4, "connect": 0.2 + place / 100, "tls": 1.9}
                opened = {"new_connection": True, "connection_ms": ways} if place < 2 else {}
                took = self.took(1.1 + self.rng.exponential(0.3))
                made.append(self.sample("poisson", place, number, place, at, took, rate_rps=RATE_RPS,
                                        late_ms=self.late_ms, **opened))  # fmt: skip
        return made

    def ramp(self):
        number = next(self.places)
        return [
            self.sample("ramp", i % 100, number, i, 170 + 6 * (i / 200) ** 0.5, self.took(1 + i / 150),
                        rate_rps=RATE_RPS, error="http_5xx" if i > 180 and i % 2 else None)
            for i in range(200)
        ]  # fmt: skip

    def burst(self):
        return [
            self.sample("burst", place, number, place, 180 + 3 * turn, self.took(1 + place * 0.5))
            for turn, number in enumerate(itertools.islice(self.places, 5))
            for place in range(32)
        ]

    def repeat(self, cached):
        number = next(self.places)
        return [
            self.sample("repeat", 3, number, place, 200 + place * 0.02, 1.4 if cached and place else self.took())
            for place in range(40)
        ]

    def cold(self):
        made = []
        for turn in range(COLD_N):
            phases = {phase: round(took * float(self.rng.lognormal(0, 0.05)), 2) for phase, took in PHASES_MS.items()}
            proven = turn != 4  # once the old instance answers
            born = {"instance_id": f"{self.name}-c{turn}", "instance_request_number": 1} if proven else {}
            whole = {"ready": 2050.0, "time_to_first_prediction": round(sum(phases.values()) + 60 + turn, 2)}
            startup = phases | whole if proven else {}
            made.append(self.sample("cold", turn % 10, next(self.places), 0, 260 + 4 * turn, self.took(2.5),
                                    startup_ms=startup, **born))  # fmt: skip
        return made

    def idle(self):
        told = {phase: took for phase, took in PHASES_MS.items() if phase != "process"}
        made = []
        for turn in range(IDLE_N):  # the first time the instance was still there
            new_instance = {"instance_id": f"{self.name}-i{turn}", "instance_request_number": 1}
            born = {"startup_ms": told, **new_instance} if turn else {}
            took = 2300.0 + 20 * turn if turn else self.took()
            made.append(self.sample("idle", turn, next(self.places), 0, 400 + 905 * turn, took, idle_gap_s=900.0 + turn,
                                    **born))  # fmt: skip
        return made

    def max_rate(self):
        made, breaks = [], BREAKS_AT.get(self.name.removesuffix("-onnx"), 100.0)
        tried = [rate for rate in RATES if rate <= 2 * breaks]
        for turn, rate in enumerate([*tried, (breaks * 0.7), breaks * 0.97]):
            number, load = next(self.places), rate / breaks
            factor = 1 + 1.2 * load**2 if load <= 1 else 12 * load
            for place in range(160):
                error = "dropped" if load > 1.6 and place % 3 == 0 else None
                made.append(self.sample("max_rate", place % len(CLASSES), number, place, 700 + 15 * turn + place / rate,
                                        self.took(factor), rate_rps=rate, error=error))  # fmt: skip
        return made
