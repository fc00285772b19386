"""Pulumi's protocol of language hosts: starts a program as the miniature engine does.

It stands in where pulumi-language-python does not lie beside the pulumi program, which attaches to it by
PULUMI_DEBUG_LANGUAGES=python:PORT.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

from tests.offline_engine.engine import TIMEOUT_S, run_in_a_host


@contextmanager
def serve_language_host() -> Iterator[int]:
    """A server on a port of its own, which it yields."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageHost(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0)


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """What the engine asks of a language's host."""

    engine_address = ""  # of the pulumi program that is attached now

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.engine_address = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return plugin_pb2.PluginInfo(version="999.0.0")

    def GetRequiredPackages(self, request: Any, context: grpc.ServicerContext) -> Any:
        return language_pb2.GetRequiredPackagesResponse()  # the providers are attached

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        return empty_pb2.Empty()

    def Run(self, request: Any, context: grpc.ServicerContext) -> Any:
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
            run = {
                "address": request.monitor_address,
                "engine": self.engine_address,
                "project": request.project,
                "stack": request.stack,
                "root": request.info.root_directory,
                "preview": request.dryRun,
                "output": output.name,  # what is an error is sent to the engine, too
                "timeout_s": TIMEOUT_S,
                "env": {
                    **os.environ,
                    "PULUMI_CONFIG": json.dumps(dict(request.config)),
                    "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
                    "PULUMI_ERROR_OUTPUT_STRING": "1",
                },
            }
            failed = run_in_a_host(run) != 0
        return language_pb2.RunResponse(error="the program failed" if failed else "", bail=failed)

    def RunPlugin(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Starts a policy pack, and passes on what it prints: its port, then nothing until the engine hangs up."""
        # Unbuffered: the pack prints its port without a flush, and the engine waits for it.
        command = [sys.executable, "-u", request.info.program_directory, *request.args]
        env = dict(entry.partition("=")[::2] for entry in request.env)
        with subprocess.Popen(command, cwd=request.pwd, env=env, stdout=subprocess.PIPE) as pack:
            if not context.add_callback(pack.kill):  # the engine has gone already
                pack.kill()
            assert pack.stdout
            for line in pack.stdout:
                yield language_pb2.RunPluginResponse(stdout=line)
        yield language_pb2.RunPluginResponse(exitcode=pack.returncode)
