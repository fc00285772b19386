"""The clouds behind the provider: what exists, what was done in which order, and what is to fail.

Values are invented by tests/offline_engine/fake_provider.py. What the miniature engine has no memory for is here:
resources stay between runs, an identifier is given out once, and a name that is taken is refused.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.offline_engine import fake_provider
from tests.offline_engine.engine import unwrap_secrets

# Where the program gives the name, there can't be two at once; else the provider adds digits of its own to it.
NAMED = {
    "aws:cloudwatch/logGroup:LogGroup": "name",
    "aws:ecr/repository:Repository": "name",
    "aws:sagemaker/endpoint:Endpoint": "name",
    "aws:sagemaker/endpointConfiguration:EndpointConfiguration": "name",
    "aws:sagemaker/model:Model": "name",
    "aws:ssm/parameter:Parameter": "name",
    "gcp:artifactregistry/repository:Repository": "repositoryId",
    "gcp:cloudfunctionsv2/function:Function": "name",
    "gcp:cloudrunv2/service:Service": "name",
    "gcp:secretmanager/secret:Secret": "secretId",
    "gcp:serviceaccount/account:Account": "accountId",
    "gcp:storage/bucket:Bucket": "name",
    "heroku:app/app:App": "name",
}
SECRET_VERSION = "gcp:secretmanager/secretVersion:SecretVersion"


class CloudError(Exception):
    """What a cloud answers instead of doing it."""


class UnreadyError(CloudError):
    """The resource is there, and did not become ready; `resource` is what there is."""

    resource: Existing


@dataclass
class Existing:
    """A resource of the cloud."""

    type: str
    name: str  # in the program
    id: str
    inputs: dict[str, Any]  # as they came, secrets marked
    computed: dict[str, Any]

    @property
    def plain_inputs(self) -> dict[str, Any]:
        """The inputs with every secret laid open, as a cloud knows them."""
        return unwrap_secrets(self.inputs)


Effect = Callable[[str, Existing], None]  # called with "create", "update" or "delete"; may raise CloudError


@dataclass
class FakeCloud:
    """Everything that exists."""

    resources: dict[tuple[str, str], Existing] = field(default_factory=dict)  # by type and id
    log: list[str] = field(default_factory=list)  # "create Instance vm": what ended well, in the order of its end
    failures: dict[str, str] = field(default_factory=dict)  # "create Instance vm" -> why it is going to fail
    effects: dict[str, Effect] = field(default_factory=dict)  # by type: what really happens
    answers: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # by function: what differs from the invented
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def create(self, kind: str, name: str, inputs: Mapping[str, Any]) -> Existing:
        """Makes a resource. Raises CloudError."""
        self._fail(step := f"create {_short(kind)} {name}")
        with self._lock:
            new = self._new(kind, name, inputs)
            if (kind, new.id) in self.resources:
                raise CloudError(f"{_short(kind)} {new.id!r} already exists")
            self.resources[kind, new.id] = new
        try:
            self._happen("create", new)
        except UnreadyError:
            raise
        except CloudError:
            del self.resources[kind, new.id]
            raise
        self.log.append(step)
        return new

    def update(self, kind: str, name: str, key: str, inputs: Mapping[str, Any]) -> Existing:
        """Changes a resource in place. Raises CloudError."""
        self._fail(step := f"update {_short(kind)} {name}")
        existing = self.get(kind, key)
        before = copy.copy(existing)
        existing.inputs = dict(inputs)
        if kind == "aws:ssm/parameter:Parameter":
            existing.computed["version"] += 1
        try:
            self._happen("update", existing)
        except UnreadyError:
            raise
        except CloudError:
            self.resources[kind, key] = before
            raise
        self.log.append(step)
        return existing

    def delete(self, kind: str, name: str, key: str) -> None:
        """Deletes a resource. Raises CloudError."""
        self._fail(step := f"delete {_short(kind)} {name}")
        self._happen("delete", self.get(kind, key))
        del self.resources[kind, key]
        self.log.append(step)

    def get(self, kind: str, key: str) -> Existing:
        """The resource. Raises CloudError when there is none."""
        if (kind, key) not in self.resources:
            raise CloudError(f"{_short(kind)} {key!r} does not exist")
        return self.resources[kind, key]

    def of_type(self, kind: str) -> list[Existing]:
        """Resources whose type ends in `kind`, the oldest first."""
        return [each for each in self.resources.values() if _short(each.type) == kind]

    def invoke(self, token: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A function's answer. Raises LookupError for one that is not known."""
        return fake_provider.invoke(token, arguments) | dict(self.answers.get(token, {}))

    def _new(self, kind: str, name: str, inputs: Mapping[str, Any]) -> Existing:
        plain = unwrap_secrets(inputs)
        key, computed = fake_provider.create(kind, name, plain)
        number = next(self._numbers)
        if given := plain.get(NAMED.get(kind, "")):
            key = str(given)
        elif (kind, key) in self.resources:  # another one with the same inputs
            key = computed["name"] = f"{key}-{number}"
        if kind == SECRET_VERSION:
            computed["version"] = str(number)
        return Existing(kind, name, key, dict(inputs), computed)

    def _fail(self, step: str) -> None:
        if step in self.failures:
            raise CloudError(self.failures[step])

    def _happen(self, operation: str, resource: Existing) -> None:
        if effect := self.effects.get(resource.type):
            try:
                effect(operation, resource)
            except UnreadyError as error:
                error.resource = resource
                raise


def _short(kind: str) -> str:
    return kind.rpartition(":")[2]
