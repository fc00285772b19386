"""Signals while the service starts, at moments that stand-ins for its libraries announce."""

import os
import signal
import socket

import pytest

from service.server import DRAIN_S
from tests.helpers.held_start import held_at_import
from tests.helpers.running_service import ready_service

pytestmark = pytest.mark.integration

# As Heroku does, which signals every process; and as the other platforms do
SENDERS = {"each process": os.killpg, "the first process": os.kill}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_during_imports_ends_the_service_quietly(tmp_path, number):
    with held_at_import(tmp_path, "granian", "-m", "service.server") as process:
        process.send_signal(number)
        assert process.communicate(timeout=30)[0] == ""
        assert process.returncode == 0


@pytest.mark.parametrize("sender", SENDERS)
def test_a_signal_while_the_model_loads_ends_it_quietly(tmp_path, sender):
    with held_at_import(tmp_path, "onnxruntime", "-m", "service.server") as process:
        SENDERS[sender](process.pid, signal.SIGTERM)
        # The parent would wait DRAIN_S for a worker that does not end
        assert process.communicate(timeout=DRAIN_S)[0] == "service: has ended\n"
        assert process.returncode == 0


def test_the_service_listens_on_all_addresses_of_both_families(tmp_path):
    if not socket.has_dualstack_ipv6():
        pytest.skip("IPv6 is switched off here")
    with ready_service(tmp_path / "log", ENGINE="onnx", HOST="[::]") as server:  # ready on 127.0.0.1
        with socket.create_connection(("::1", server.port), 30):
            pass
        assert f"listening on [::]:{server.port}" in server.log.read_text()
