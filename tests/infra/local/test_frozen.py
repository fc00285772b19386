"""The five twins frozen for longer than any time-out, as Cloud Run and Functions do to what nobody asks, and thawed."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping

import psutil
import pytest

from eval.targets.sagemaker.invoke import invoke_twin
from infra.local.running.twin import Twin
from infra.local.twins import local_twins
from infra.targets import AWS_SAGEMAKER, TARGETS
from service import schema
from tests.helpers.pressure import grey_png

FROZEN_S = 90  # longer than every time-out but that of connections at rest
ANSWERS = 100  # for some seconds: a server that ends a silent worker looks for one every second
PNG = grey_png(3)


def instance_and_ordinal(twin: Twin) -> tuple[str, int]:
    """Who answers a prediction, and its number there. A new instance would count as a cold start."""
    status, headers = ask_signed(twin) if twin.target is AWS_SAGEMAKER else ask(twin)
    assert status == 200, twin.name
    return headers[schema.INSTANCE_ID], int(headers[schema.REQUEST_ORDINAL])


def ask(twin: Twin) -> tuple[int, Mapping[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", twin.port, timeout=60)
    connection.request("POST", "/predict", PNG, {"Content-Type": "image/png"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers


def ask_signed(twin: Twin) -> tuple[int, Mapping[str, str]]:
    """Through InvokeEndpoint, which passes the service's headers as attributes."""
    answer = invoke_twin(twin.url, PNG, "image/png")
    return answer.status, answer.headers


def processes_of(twin: Twin) -> list[psutil.Process]:
    return [psutil.Process(pid) for process in twin.everything for pid in process.members()]


@pytest.mark.slow
@pytest.mark.integration
def test_frozen_twin_resumes_with_the_same_instance(tmp_path):
    with local_twins(list(TARGETS), tmp_path, engines=["onnx"]) as twins:
        assert len(twins.running) == len(TARGETS), twins.failures
        before = {twin.name: instance_and_ordinal(twin)[0] for twin in twins.running}
        frozen = [process for twin in twins.running for process in processes_of(twin)]
        for process in frozen:
            process.suspend()
        time.sleep(FROZEN_S)
        for process in frozen:
            process.resume()
        for twin in twins.running:
            answers = [instance_and_ordinal(twin) for _ in range(ANSWERS)]
            assert answers == [(before[twin.name], 2 + number) for number in range(ANSWERS)], twin.name
        assert set(frozen) == {process for twin in twins.running for process in processes_of(twin)}
