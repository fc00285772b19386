"""The responses of the mock endpoint and when they are due: instances, queue, stalls, cache, faults, predictions.

They are the same for the same profile, seed and order of requests. Only predictions start an instance, keep it alive,
queue and fail; the other routes wait only for the end of a stall.
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

from eval.mock_server.http_protocol import LOGIN_PATH, Reply, Request, fault_reply, problem_response, response
from eval.mock_server.profile import EndpointProfile
from service import schema
from service.system import processor, usable_cpus

COUNTS_PATH = "/mock/counts"
DRAW_CHUNK = 1024  # predictions whose random values are drawn at once, in well under a millisecond
CONFIDENCE = 0.82  # probability of the predicted class
# Fractions of a cold start, named as the service names them
STARTUP_PHASES = {"import": 0.7, "load": 0.2, "first_prediction": 0.1}
MODEL_NAME = "mock"


class MockEndpoint:
    """The endpoint's state, shared by its connections."""

    def __init__(self, profile: EndpointProfile, start_s: float):
        """`start_s` is the event loop's time."""
        self.profile = profile
        self.start_s = self._last_done_s = start_s
        self.image_counts: Counter[str] = Counter()  # sha256 -> prediction requests
        self.response_counts: Counter[str] = Counter()  # fault, "good" or "no-op"
        self.instance_ids: list[str] = []
        self._prediction_draws = self._draw_predictions()
        self._fault_fractions = [(fault, fraction) for fault, fraction in profile.faults.items() if fraction]
        self._body_cache: dict[tuple[str, bool], bytes] = {}
        self._start_instance()
        next(self._prediction_draws)  # imports and caches are warm now

    def reply(self, request: Request, arrived_s: float) -> Reply:
        """The response to a request, and when it is due."""
        if request.path != schema.PREDICT:
            return Reply(
                arrived_s if request.path == COUNTS_PATH else self._after_stall(arrived_s), self._other_route(request)
            )
        if request.method != "POST":
            return Reply(arrived_s, problem_response(405, "POST an image", f"Allow: POST\r\n{self._identity_headers}"))
        sha256 = hashlib.sha256(request.body).hexdigest()
        self.image_counts[sha256] += 1
        start_s, done_s, fault = self._schedule_prediction(arrived_s, seen_before=self.image_counts[sha256] > 1)
        self.response_counts[fault] += 1
        headers = f"{self._headers()}{_server_timing(start_s - arrived_s, done_s - start_s)}"
        correct = response(200, self._body(sha256, "probabilities=1" in request.query.split("&")), headers)
        return (
            Reply(done_s, correct)
            if fault == "good"
            else fault_reply(fault, done_s, correct, headers, self.profile.retry_after_s)
        )

    def _start_instance(self) -> None:
        """Replace the instance by a new one, which has not served a request."""
        instance_id, started_at = uuid.uuid4().hex[:12], datetime.now(UTC).isoformat(timespec="milliseconds")
        self.instance_ids.append(instance_id)
        self._instance_started_at = started_at
        self._identity_headers = f"{schema.INSTANCE_ID}: {instance_id}\r\n{schema.INSTANCE_STARTED}: {started_at}\r\n"
        self._identity_headers += f"{schema.MODEL_VERSION}: {self.profile.model_version}\r\n"
        self._request_ordinal = 0
        self._warm_at_s = self.start_s
        self._servers_free_at_s = [0.0] * (self.profile.servers or 0)  # when each has no work left; a heap

    def _schedule_prediction(self, arrived_s: float, *, seen_before: bool) -> tuple[float, float, str]:
        """When work on a prediction starts and ends, and its fault, or "good"."""
        profile = self.profile
        if self._request_ordinal and arrived_s - self._last_done_s >= profile.idle_s:
            self._start_instance()
        if not self._request_ordinal:
            self._warm_at_s = arrived_s + profile.cold_start_ms / 1000
        self._request_ordinal += 1
        service_ms, fault_draw = next(self._prediction_draws)
        if seen_before and profile.cached_ms is not None:
            service_ms = profile.cached_ms
        elapsed_s = arrived_s - self.start_s
        service_s = service_ms / 1000 * (1 + profile.drift_per_minute * elapsed_s / 60)
        start_s = self._work_done(max(arrived_s, self._warm_at_s) - self.start_s)
        if self._servers_free_at_s:
            start_s = max(start_s, self._servers_free_at_s[0])
            heapq.heapreplace(self._servers_free_at_s, start_s + service_s)
        done_s = self.start_s + self._finish_time(start_s + service_s)
        self._last_done_s = max(self._last_done_s, done_s)
        return max(arrived_s, self.start_s + self._finish_time(start_s)), done_s, self._pick_fault(fault_draw)

    def _work_done(self, elapsed_s: float) -> float:
        return float(self.profile.stalls.work_done(elapsed_s)) if self.profile.stalls else elapsed_s

    def _finish_time(self, work_s: float) -> float:
        return float(self.profile.stalls.finish_time(work_s)) if self.profile.stalls else work_s

    def _after_stall(self, now_s: float) -> float:
        """Now, or the end of the current stall."""
        if not self.profile.stalls:
            return now_s
        return max(now_s, self.start_s + self._finish_time(self._work_done(now_s - self.start_s) + 1e-6))

    def _pick_fault(self, fault_draw: float) -> str:
        for fault, fraction in self._fault_fractions:
            fault_draw -= fraction
            if fault_draw < 0:
                return fault
        return "good"

    def _draw_predictions(self) -> Iterator[tuple[float, float]]:
        """Yield the service time and the random value for faults of each prediction; they depend on the seed only."""
        for chunk in range(sys.maxsize):
            rng = np.random.default_rng((self.profile.seed, chunk))
            yield from zip(
                self.profile.draw_service_times_ms(rng, DRAW_CHUNK).tolist(),
                rng.random(DRAW_CHUNK).tolist(),
                strict=True,
            )

    def _headers(self) -> str:
        return f"{self._identity_headers}{schema.REQUEST_ORDINAL}: {self._request_ordinal}\r\n"

    def _body(self, sha256: str, with_probabilities: bool) -> bytes:
        key = sha256, with_probabilities
        if key not in self._body_cache:
            classes, predicted = self.profile.classes, self.profile.predicted_class(sha256)
            other_probability = (1 - CONFIDENCE) / (len(classes) - 1)
            probabilities = tuple(CONFIDENCE if i == predicted else other_probability for i in range(len(classes)))
            prediction = schema.Prediction(probabilities, classes)
            payload = prediction.to_json(with_probabilities=with_probabilities) | {"model": self._model_info.to_json()}
            self._body_cache[key] = json.dumps(payload).encode()
        return self._body_cache[key]

    @property
    def _model_info(self) -> schema.ModelInfo:
        return schema.ModelInfo(MODEL_NAME, self.profile.model_version, MODEL_NAME)

    def _other_route(self, request: Request) -> bytes:
        """The response of the other routes."""
        match request.path:
            case schema.HEALTHZ | schema.READYZ:
                self.response_counts["no-op"] += 1
                payload: dict[str, Any] = {"status": "ready" if request.path == schema.READYZ else "alive"}
            case schema.VERSION:
                payload = self._version_payload()
            case _ if request.path == COUNTS_PATH:
                payload = {
                    "requests": self.image_counts.total(),
                    "images": self.image_counts,
                    "responses": self.response_counts,
                    "instances": self.instance_ids,
                }
            case _ if request.path == LOGIN_PATH:
                self.response_counts["login page"] += 1
                return response(200, b"<html>Please log in</html>", media_type="text/html")
            case _:
                return problem_response(404, f"the mock endpoint has no {request.path}", self._headers())
        return response(200, json.dumps(payload).encode(), self._headers() + _server_timing(0, 0))

    def _version_payload(self) -> dict[str, Any]:
        start_ms = self.profile.cold_start_ms
        return {
            "model": self._model_info.to_json(),
            "engine": MODEL_NAME,
            "git_sha": None,
            "versions": {"numpy": np.__version__},
            **processor(),
            "cpus": usable_cpus(),
            "instance_id": self.instance_ids[-1],
            "started_at": self._instance_started_at,
            "startup_ms": {phase: round(fraction * start_ms, 3) for phase, fraction in STARTUP_PHASES.items()}
            | {"total": start_ms},
        }


def _server_timing(queued_s: float, service_s: float) -> str:
    """The header Server-Timing with the drawn times."""
    parts = zip(schema.SERVER_TIMING_PARTS, (0.0, queued_s, service_s, queued_s + service_s), strict=True)
    return f"{schema.SERVER_TIMING}: {', '.join(f'{part};dur={s * 1000:.3f}' for part, s in parts)}\r\n"
