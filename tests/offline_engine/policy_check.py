"""Runs the rules in this process over what the miniature engine recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pulumi_policy import PolicyCustomTimeouts, PolicyResourceOptions, ResourceValidationArgs
from pulumi_policy.deserialize import deserialize_properties
from pulumi_policy.proxy import UnknownValueError, unknown_checking_proxy

from infra.policy.rules import RULES
from tests.offline_engine.engine import Resource


@dataclass(frozen=True)
class Violation:
    """One breach of one rule."""

    rule: str  # the rule's function
    resource: str  # its name in the program
    message: str  # what is wrong, which value, what to do


def find_violations(resources: Iterable[Resource]) -> list[Violation]:
    """Every breach. What a rule cannot know in a preview is none."""
    violations: list[Violation] = []
    for resource in resources:
        seen = to_policy_args(resource)
        for rule in RULES:
            try:
                violations += [Violation(rule.__name__, resource.name, message) for message in rule(seen)]
            except UnknownValueError:
                continue
    return violations


def to_policy_args(resource: Resource) -> ResourceValidationArgs:
    """A resource as pulumi hands it to a rule."""
    return ResourceValidationArgs(
        resource_type=resource.type,
        props=unknown_checking_proxy(deserialize_properties(resource.inputs)),
        urn=resource.urn,
        name=resource.name,
        opts=PolicyResourceOptions(
            protect=resource.protect,
            ignore_changes=list(resource.ignore_changes),
            delete_before_replace=None,
            aliases=[],
            custom_timeouts=PolicyCustomTimeouts(0, 0, 0),
            additional_secret_outputs=[],
        ),
        provider=None,
    )
