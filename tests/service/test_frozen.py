"""The service frozen for longer than any time-out, as platforms do with what nobody asks."""

import http.client
import sys
import time

import psutil
import pytest

from service import schema
from tests.helpers.pressure import grey_png
from tests.helpers.running_service import ready_service

FROZEN_S = 90  # longer than every time-out but that of connections at rest
PNG = grey_png(3)


@pytest.mark.slow
@pytest.mark.integration
def test_frozen_service_resumes_without_a_restart(tmp_path):
    command = (sys.executable, "-c", "from service.server import serve; serve('tests.helpers.pressure_app:app')")
    with ready_service(tmp_path / "log", command) as server:
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

        def instance(connection) -> str:
            connection.request("POST", "/predict", PNG, {"Content-Type": "image/png"})
            reply = connection.getresponse()
            reply.read()
            assert reply.status == 200
            return reply.headers[schema.INSTANCE_ID]

        parent = psutil.Process(server.process.pid)
        before, processes = instance(kept), [*parent.children(), parent]
        for process in processes:
            process.suspend()
        time.sleep(FROZEN_S)
        for process in processes:
            process.resume()
        assert instance(kept) == before
        assert server.post("/predict", PNG, "image/png").headers[schema.INSTANCE_ID] == before
        assert "rror" not in server.log.read_text()
        kept.close()
