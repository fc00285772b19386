"""Pulumi's protocol of resource providers, over a fake cloud: one server for every package that the programs use.

The pulumi program attaches to it by PULUMI_DEBUG_PROVIDERS=aws:PORT,gcp:PORT,... and then installs no plugin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from tests.offline_engine import fake_provider
from tests.offline_engine.engine import LARGEST_MESSAGE_BYTES, merge_outputs, to_struct, unwrap_secrets
from tests.pulumi_engine.fake_cloud import CloudError, Existing, FakeCloud, UnreadyError

PACKAGES = ("aws", "command", "docker-build", "gcp", "heroku")
VERSION = "999.0.0"  # newer than any that a program asks for
# Inputs whose changes a provider takes for none: the registries' passwords are new in every run.
UNCOMPARED = {"docker-build:index:Image": ("registries",)}


@contextmanager
def serve_provider(cloud: FakeCloud) -> Iterator[int]:
    """A server on a port of its own, which it yields."""
    limits = [(f"grpc.max_{way}_message_length", LARGEST_MESSAGE_BYTES) for way in ("receive", "send")]
    server = grpc.server(futures.ThreadPoolExecutor(32), options=limits)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Provider(cloud), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0)


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """What the engine asks of a provider."""

    def __init__(self, cloud: FakeCloud):
        self.cloud = cloud

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def Attach(self, request: Any, context: grpc.ServicerContext) -> Any:
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return plugin_pb2.PluginInfo(version=VERSION)

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        return empty_pb2.Empty()  # it is sent at every end, also of a preview: this server goes on

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:
        olds, news = (unwrap_secrets(_to_dict(inputs)) for inputs in (request.old_inputs, request.news))
        ignored = UNCOMPARED.get(request.type, ())
        changed = [key for key in sorted({*olds, *news}) if key not in ignored and olds.get(key) != news.get(key)]
        fixed = fake_provider.IMMUTABLE_INPUTS.get(request.type, ())
        response = provider_pb2.DiffResponse
        return response(
            changes=response.DIFF_SOME if changed else response.DIFF_NONE,
            diffs=changed,
            replaces=[key for key in changed if key in fixed],
        )

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        inputs = _to_dict(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=_foreseen(request.type, request.name, inputs))
        with _errors_sent(context):
            made = self.cloud.create(request.type, request.name, inputs)
            return provider_pb2.CreateResponse(id=made.id, properties=_properties(made))

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        inputs = _to_dict(request.news)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=_foreseen(request.type, request.name, inputs))
        with _errors_sent(context):
            changed = self.cloud.update(request.type, request.name, request.id, inputs)
            return provider_pb2.UpdateResponse(properties=_properties(changed))

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _errors_sent(context):
            self.cloud.delete(request.type, request.name, request.id)
        return empty_pb2.Empty()

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            found = self.cloud.get(request.type, request.id)
        except CloudError:
            return provider_pb2.ReadResponse()  # without an id: it is gone
        return provider_pb2.ReadResponse(id=found.id, inputs=to_struct(found.inputs), properties=_properties(found))

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        response = provider_pb2.InvokeResponse()
        try:
            getattr(response, "return").update(self.cloud.invoke(request.tok, _to_dict(request.args)))
        except LookupError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return response


@contextmanager
def _errors_sent(context: grpc.ServicerContext) -> Iterator[None]:
    """Sends a cloud's error on; with what there is all the same, as Pulumi's providers do, where it is not ready."""
    try:
        yield
    except UnreadyError as error:
        found = error.resource
        detail = provider_pb2.ErrorResourceInitFailed(
            id=found.id, properties=_properties(found), reasons=[str(error)], inputs=to_struct(found.inputs)
        )
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
        status.details.add().Pack(detail)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.UNKNOWN, str(error))
    except CloudError as error:
        context.abort(grpc.StatusCode.UNKNOWN, str(error))


def _properties(resource: Existing) -> struct_pb2.Struct:
    return to_struct(merge_outputs(resource.inputs, resource.computed, unknown=False))


def _foreseen(kind: str, name: str, inputs: Mapping[str, Any]) -> struct_pb2.Struct:
    """The properties that a preview knows."""
    _, computed = fake_provider.create(kind, name, unwrap_secrets(inputs))
    return to_struct(merge_outputs(inputs, computed, unknown=True))


def _to_dict(struct: struct_pb2.Struct) -> dict[str, Any]:
    return json_format.MessageToDict(struct)
