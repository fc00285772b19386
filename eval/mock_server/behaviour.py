"""What the oracle answers, and when: instances, queue, stalls, cache, faults and predictions, as its truth says.

The same for the same seed and the same order of requests. Only predictions wake an instance, keep it awake, wait in
the queue and can fail; the other routes wait for nothing but a stall.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from eval.mock_server.http_protocol import LOGIN, Reply, Request, faulty, problem, response
from eval.mock_server.profile import Truth
from service import schema
from service.machine import processor, usable_cpus

COUNTS = "/oracle/counts"
DRAWS = 1024  # predictions that are drawn for at once, so few that nobody has to wait for it
CERTAINTY = 0.82  # probability that the oracle gives its class
PHASES = {"import": 0.7, "load": 0.2, "first_prediction": 0.1}  # shares of a cold start, named as the service does
MODEL = "oracle"


class Oracle:
    """The endpoint's state, shared by its connections."""

    def __init__(self, truth: Truth, began: float):
        """`began` is the event loop's time."""
        self.truth = truth
        self.began = self._last = began
        self.pictures: Counter[str] = Counter()  # sha256 -> predictions asked for
        self.given: Counter[str] = Counter()  # fault, "good" or "no-op"
        self.instances: list[str] = []
        self._draws = self._drawn()
        self._faults = [(fault, share) for fault, share in truth.faults.items() if share]
        self._bodies: dict[tuple[str, bool], bytes] = {}
        self._start_instance()
        next(self._draws)  # the libraries are warm now

    def reply(self, request: Request, arrived: float) -> Reply:
        """What is answered, and when."""
        if request.path != schema.PREDICT:
            return Reply(arrived if request.path == COUNTS else self._awake(arrived), self._other(request))
        if request.method != "POST":
            return Reply(arrived, problem(405, "POST a picture", f"Allow: POST\r\n{self._identity}"))
        sha256 = hashlib.sha256(request.body).hexdigest()
        self.pictures[sha256] += 1
        start, done, fault = self._work(arrived, known=self.pictures[sha256] > 1)
        self.given[fault] += 1
        head = f"{self._head()}{_timing(start - arrived, done - start)}"
        right = response(200, self._body(sha256, "probabilities=1" in request.query.split("&")), head)
        return Reply(done, right) if fault == "good" else faulty(fault, done, right, head, self.truth.retry_after_s)

    def _start_instance(self) -> None:
        """A new instance, which has answered nothing yet."""
        instance_id, started = uuid.uuid4().hex[:12], datetime.now(UTC).isoformat(timespec="milliseconds")
        self.instances.append(instance_id)
        self._started = started
        self._identity = f"{schema.INSTANCE_ID}: {instance_id}\r\n{schema.INSTANCE_STARTED}: {started}\r\n"
        self._identity += f"{schema.MODEL_VERSION}: {self.truth.model_version}\r\n"
        self._ordinal = 0
        self._warm_at = self.began
        self._free = [0.0] * (self.truth.servers or 0)  # when each has nothing left to do; a heap

    def _work(self, arrived: float, *, known: bool) -> tuple[float, float, str]:
        """When work on a prediction begins and ends, and the fault, or "good"."""
        truth = self.truth
        if self._ordinal and arrived - self._last >= truth.idle_s:
            self._start_instance()
        if not self._ordinal:
            self._warm_at = arrived + truth.cold_start_ms / 1000
        self._ordinal += 1
        drawn_ms, dice = next(self._draws)
        if known and truth.cached_ms is not None:
            drawn_ms = truth.cached_ms
        since = arrived - self.began
        service_s = drawn_ms / 1000 * (1 + truth.drift_per_minute * since / 60)
        begin = self._worked(max(arrived, self._warm_at) - self.began)
        if self._free:
            begin = max(begin, self._free[0])
            heapq.heapreplace(self._free, begin + service_s)
        done = self.began + self._ended(begin + service_s)
        self._last = max(self._last, done)
        return max(arrived, self.began + self._ended(begin)), done, self._fault(dice)

    def _worked(self, since: float) -> float:
        return float(self.truth.pauses.worked(since)) if self.truth.pauses else since

    def _ended(self, worked: float) -> float:
        return float(self.truth.pauses.ended(worked)) if self.truth.pauses else worked

    def _awake(self, now: float) -> float:
        """Now, or when the stall is over."""
        if not self.truth.pauses:
            return now
        return max(now, self.began + self._ended(self._worked(now - self.began) + 1e-6))

    def _fault(self, dice: float) -> str:
        for fault, share in self._faults:
            dice -= share
            if dice < 0:
                return fault
        return "good"

    def _drawn(self) -> Iterator[tuple[float, float]]:
        """Time in the service and a throw for the faults, of each prediction in turn; from the seed alone."""
        for chunk in range(sys.maxsize):
            dice = np.random.default_rng((self.truth.seed, chunk))
            yield from zip(self.truth.draw(dice, DRAWS).tolist(), dice.random(DRAWS).tolist(), strict=True)

    def _head(self) -> str:
        return f"{self._identity}{schema.REQUEST_ORDINAL}: {self._ordinal}\r\n"

    def _body(self, sha256: str, with_probabilities: bool) -> bytes:
        key = sha256, with_probabilities
        if key not in self._bodies:
            classes, said = self.truth.classes, self.truth.says(sha256)
            rest = (1 - CERTAINTY) / (len(classes) - 1)
            probabilities = tuple(CERTAINTY if i == said else rest for i in range(len(classes)))
            prediction = schema.Prediction(probabilities, classes)
            answer = prediction.to_json(with_probabilities=with_probabilities) | {"model": self._model.to_json()}
            self._bodies[key] = json.dumps(answer).encode()
        return self._bodies[key]

    @property
    def _model(self) -> schema.ModelInfo:
        return schema.ModelInfo(MODEL, self.truth.model_version, MODEL)

    def _other(self, request: Request) -> bytes:
        """What the other routes answer."""
        match request.path:
            case schema.HEALTHZ | schema.READYZ:
                self.given["no-op"] += 1
                facts: dict[str, Any] = {"status": "ready" if request.path == schema.READYZ else "alive"}
            case schema.VERSION:
                facts = self._version()
            case _ if request.path == COUNTS:
                facts = {"asked": self.pictures.total(), "pictures": self.pictures, "given": self.given}
                facts["instances"] = self.instances
            case _ if request.path == LOGIN:
                self.given["login page"] += 1
                return response(200, b"<html>Please log in</html>", media_type="text/html")
            case _:
                return problem(404, f"the oracle has no {request.path}", self._head())
        return response(200, json.dumps(facts).encode(), self._head() + _timing(0, 0))

    def _version(self) -> dict[str, Any]:
        start_ms = self.truth.cold_start_ms
        return {
            "model": self._model.to_json(),
            "engine": MODEL,
            "git_sha": None,
            "versions": {"numpy": np.__version__},
            **processor(),
            "cpus": usable_cpus(),
            "instance_id": self.instances[-1],
            "started_at": self._started,
            "startup_ms": {phase: round(share * start_ms, 3) for phase, share in PHASES.items()} | {"total": start_ms},
        }


def _timing(queued_s: float, service_s: float) -> str:
    """Server-Timing, as drawn."""
    parts = zip(schema.SERVER_TIMING_PARTS, (0.0, queued_s, service_s, queued_s + service_s), strict=True)
    return f"{schema.SERVER_TIMING}: {', '.join(f'{part};dur={s * 1000:.3f}' for part, s in parts)}\r\n"
