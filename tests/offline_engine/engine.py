"""A miniature Pulumi engine: runs a stack's program without the pulumi CLI, without an account, without a network.

It speaks the engine's own gRPC protocols (ResourceMonitor and Engine) to the program, which runs in a process of its
own as `pulumi up` would start it, and records every resource with its inputs. What a cloud would answer is invented
(fake_provider.py); in a preview that is unknown, as it is in Pulumi's. No provider checks an input here.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, resource_pb2, resource_pb2_grpc

from infra.stackfile import read_settings
from tests.offline_engine import fake_provider

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"  # how the protocol writes a value that is not known yet
SIGNATURE = "4dabf18193072939515e22adb298388d"  # the key that marks special values
SECRET = "1b47061264138c4ac30d75fd1eb44270"
ASSET = "c44067f5952c0a294b673a41bacd8c17"
LARGEST_MESSAGE_BYTES = 400 << 20
TIMEOUT_S = 600  # a run takes seconds; on a busy machine, minutes


@dataclass(frozen=True)
class Resource:
    """One resource that a program registered."""

    urn: str
    type: str  # "aws:ec2/instance:Instance"
    name: str  # its name in the program
    inputs: dict[str, Any]  # as sent: secrets are marked, assets carry the sha256 of their file
    outputs: dict[str, Any]
    id: str
    dependencies: tuple[str, ...]  # URNs
    property_dependencies: dict[str, tuple[str, ...]]
    ignore_changes: tuple[str, ...]
    replace_on_changes: tuple[str, ...]
    protect: bool
    retain_on_delete: bool
    delete_before_replace: bool
    provider: str  # its reference, where the program names one: URN::ID
    provider_version: str
    plugin_url: str

    @property
    def unwrapped_inputs(self) -> dict[str, Any]:
        """The inputs with every secret laid open."""
        return unwrap_secrets(self.inputs)

    @property
    def cleartext(self) -> str:
        """The inputs as JSON text, without what is marked secret."""
        return json.dumps(unwrap_secrets(self.inputs, secret="[secret]"))


@dataclass(frozen=True)
class ProgramResult:
    """What came of one run of a program."""

    stack: str
    preview: bool
    exit_code: int
    resources: dict[str, Resource]  # by URN, in the order of registration
    outputs: dict[str, Any]
    invokes: tuple[tuple[str, dict[str, Any]], ...]  # functions that the program asked the providers
    errors: tuple[str, ...]
    output: str  # what the process printed

    def of_type(self, kind: str) -> list[Resource]:
        """Resources whose type ends in `kind`: "Instance", or "aws:ec2/instance:Instance"."""
        return [r for r in self.resources.values() if r.type == kind or r.type.rpartition(":")[2] == kind]

    def single(self, kind: str) -> Resource:
        """The only resource of that type."""
        matches = self.of_type(kind)
        if len(matches) != 1:
            raise LookupError(f"{len(matches)} resources of type {kind}, expected one: {[r.name for r in matches]}")
        return matches[0]


def run_program(
    root: Path,
    stack: str,
    config: Mapping[str, str] | None = None,
    *,
    secrets: Mapping[str, str] | None = None,
    preview: bool = False,
    env: Mapping[str, str] | None = None,
) -> ProgramResult:
    """Run the project in `root` for a stack. Settings come from Pulumi.yaml, Pulumi.<stack>.yaml, then `config`."""
    project = yaml.safe_load((root / "Pulumi.yaml").read_text())
    record = _Record(root, project["name"], stack, preview)
    server = grpc.server(
        futures.ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES)]
    )
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(_Monitor(record), server)
    engine_pb2_grpc.add_EngineServicer_to_server(_Engine(record), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    settings = {**read_settings(stack, root), **(config or {}), **(secrets or {})}
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
        run = {
            "address": f"127.0.0.1:{port}",
            "engine": f"127.0.0.1:{port}",
            "project": record.project,
            "stack": stack,
            "root": str(root),
            "preview": preview,
            "output": output.name,
            "timeout_s": TIMEOUT_S,
            "env": {
                **os.environ,
                "PULUMI_CONFIG": json.dumps(settings),
                "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(secrets or {})),
                "PULUMI_ERROR_OUTPUT_STRING": "1",  # str() of an output is an error, not a line in a URL
                **(env or {}),
            },
        }
        try:
            exit_code = run_in_a_host(run)
        finally:
            server.stop(0)
        printed = output.read()
    return ProgramResult(
        stack,
        preview,
        exit_code,
        record.resources,
        record.outputs,
        tuple(record.invokes),
        tuple(record.errors),
        printed,
    )


_idle_hosts: list[subprocess.Popen[str]] = []


def run_in_a_host(run: Mapping[str, Any]) -> int:
    """The exit code of a run, in a host that has none now; hosts stay until this process ends."""
    host = _idle_hosts.pop() if _idle_hosts else _start_host()
    assert host.stdin and host.stdout
    print(json.dumps(run), file=host.stdin, flush=True)
    exit_code = int(host.stdout.readline())
    _idle_hosts.append(host)
    return exit_code


def _start_host() -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-W", "ignore", str(Path(__file__).with_name("program_host.py"))]
    host = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    host.wait()  # it goes on in a process of its own, until standard input ends
    return host


def unwrap_secrets(value: Any, secret: str | None = None) -> Any:
    """A value without its wrappings; `secret` stands in for what is marked secret when given."""
    if isinstance(value, Mapping):
        if value.get(SIGNATURE) == SECRET:
            return secret if secret is not None else unwrap_secrets(value["value"])
        return {k: unwrap_secrets(v, secret) for k, v in value.items()}
    if isinstance(value, list):
        return [unwrap_secrets(v, secret) for v in value]
    return value


def diff(before: ProgramResult, after: ProgramResult) -> dict[str, str]:
    """What a second `up` would do: resource name in the program, with its type -> create, delete, replace or update."""
    changes: dict[str, str] = {}
    for urn in {**before.resources, **after.resources}:
        old, new = before.resources.get(urn), after.resources.get(urn)
        resource = new or old
        assert resource is not None
        label = f"{resource.type.rpartition(':')[2]} {resource.name}"
        if old is None:
            changes[label] = "create"
        elif new is None:
            changes[label] = "delete"
        elif _compared(old) != _compared(new):
            changes[label] = "replace" if old.id != new.id else "update"
    return changes


def _compared(resource: Resource) -> dict[str, Any]:
    return {k: v for k, v in resource.inputs.items() if k not in resource.ignore_changes}


@dataclass
class _Record:
    """What a run has told the engine so far."""

    root: Path
    project: str
    stack: str
    preview: bool
    resources: dict[str, Resource] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    invokes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def urn(self, request: Any) -> str:
        parent = request.parent.split("::")[2] if request.parent else ""
        prefix = "" if not parent or parent.endswith("pulumi:pulumi:Stack") else f"{parent}$"
        return f"urn:pulumi:{self.stack}::{self.project}::{prefix}{request.type}::{request.name}"


class _Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    """Answers the program's registrations and questions."""

    def __init__(self, record: _Record):
        self.record = record

    def GetDeploymentInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        features = ("SECRETS", "RESOURCE_REFERENCES", "ALIAS_SPECS", "DELETED_WITH", "PARAMETERIZATION")
        return resource_pb2.DeploymentInfo(
            project=self.record.project,
            stack=self.record.stack,
            dryRun=self.record.preview,
            supportedFeatures=[getattr(resource_pb2, f"RESOURCE_MONITOR_FEATURE_{name}") for name in features],
        )

    def SupportsFeature(self, request: Any, context: grpc.ServicerContext) -> Any:
        known = ("secrets", "resourceReferences", "aliasSpecs", "deletedWith")
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id in known)

    def RegisterPackage(self, request: Any, context: grpc.ServicerContext) -> Any:
        return resource_pb2.RegisterPackageResponse(ref=f"{request.name}@{request.version}")

    def SignalAndWaitForShutdown(self, request: Any, context: grpc.ServicerContext) -> Any:
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        arguments = json_format.MessageToDict(request.args)
        with self.record.lock:
            self.record.invokes.append((request.tok, arguments))
        try:
            answer = fake_provider.invoke(request.tok, arguments)
        except LookupError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        response = resource_pb2.ResourceInvokeResponse()
        getattr(response, "return").update(answer)
        return response

    def RegisterResource(self, request: Any, context: grpc.ServicerContext) -> Any:
        record, urn = self.record, self.record.urn(request)
        try:
            inputs = _with_hashes(json_format.MessageToDict(request.object), record.root)
        except OSError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{urn} has an asset that cannot be read: {error}")
        resource_id, outputs = "", dict(inputs)
        if request.custom:
            resource_id, computed = fake_provider.create(
                request.type, request.name, unwrap_secrets(inputs), request.replaceOnChanges
            )
            outputs = merge_outputs(inputs, computed, unknown=record.preview)
        with record.lock:
            if urn in record.resources:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"two resources have the URN {urn}")
            if unknown := [urn for urn in request.dependencies if urn not in record.resources]:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{urn} depends on unregistered {unknown}")
            record.resources[urn] = Resource(
                urn=urn,
                type=request.type,
                name=request.name,
                inputs=inputs,
                outputs=outputs,
                id=resource_id,
                dependencies=tuple(sorted(request.dependencies)),
                property_dependencies={k: tuple(sorted(v.urns)) for k, v in request.propertyDependencies.items()},
                ignore_changes=tuple(request.ignoreChanges),
                replace_on_changes=tuple(request.replaceOnChanges),
                protect=request.protect,
                retain_on_delete=request.retainOnDelete,
                delete_before_replace=request.deleteBeforeReplace,
                provider=request.provider,
                provider_version=request.version,
                plugin_url=request.pluginDownloadURL,
            )
        sent_id = "" if record.preview else resource_id
        return resource_pb2.RegisterResourceResponse(urn=urn, id=sent_id, object=to_struct(outputs))

    def RegisterResourceOutputs(self, request: Any, context: grpc.ServicerContext) -> Any:
        if "pulumi:pulumi:Stack" in request.urn:
            self.record.outputs = json_format.MessageToDict(request.outputs)
        return empty_pb2.Empty()


class _Engine(engine_pb2_grpc.EngineServicer):
    """Takes the program's log and remembers its root."""

    def __init__(self, record: _Record):
        self.record, self.root = record, ""

    def Log(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.severity >= engine_pb2.ERROR:
            self.record.errors.append(request.message)
        return empty_pb2.Empty()

    def SetRootResource(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.root = request.urn
        return engine_pb2.SetRootResourceResponse()

    def GetRootResource(self, request: Any, context: grpc.ServicerContext) -> Any:
        return engine_pb2.GetRootResourceResponse(urn=self.root)


def to_struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(values)
    return struct


def merge_outputs(inputs: Any, computed: Any, *, unknown: bool) -> Any:
    """The inputs as they were sent, with what the cloud adds; all that it adds is unknown in a preview."""
    if isinstance(computed, Mapping) and isinstance(inputs, Mapping) and SIGNATURE not in inputs:
        added = {k: merge_outputs(inputs.get(k), v, unknown=unknown) for k, v in computed.items()}
        return {**inputs, **added}
    if inputs is not None:
        return inputs
    return UNKNOWN if unknown else computed


def _with_hashes(value: Any, root: Path) -> Any:
    """The inputs with the sha256 of every file that an asset names, as Pulumi's own engine adds it."""
    if isinstance(value, list):
        return [_with_hashes(v, root) for v in value]
    if not isinstance(value, dict):
        return value
    if value.get(SIGNATURE) == ASSET and "path" in value:
        return {**value, "hash": hashlib.sha256((root / value["path"]).read_bytes()).hexdigest()}
    return {k: _with_hashes(v, root) for k, v in value.items()}
