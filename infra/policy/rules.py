"""The rules that every program must keep: a function for each, which yields a message for every violation.

A rule sees one resource's inputs as the program sent them, secrets laid open. In a preview, what a rule reads may be
unknown; the pack then says so, and judges in the `up`. To whom an endpoint answers is the user's choice, not a rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)

from infra.policy import property_paths
from infra.size_limits import MAX_CLOUD_RUN_INSTANCES

Rule = Callable[[ResourceValidationArgs], Iterator[str]]

WEB_PORTS = (80, 443)
EVERYONE = ("allUsers", "allAuthenticatedUsers")
PRIMITIVE_ROLES = ("roles/owner", "roles/editor", "roles/viewer")
ACCESS_BLOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
DEFAULT_ACCOUNT = re.compile(r"(-compute@developer|@appspot|@cloudbuild)\.gserviceaccount\.com$")
BROAD_POLICY = re.compile(r"AdministratorAccess|PowerUserAccess|FullAccess")
S3_WRITE = re.compile(r"s3:(?!Get|List|Head)\w+$")  # one with a wildcard is refused anyway
BUCKET_ROLES = ("roles/storage.objectViewer",)
NOWHERE = "-"  # a path at which no resource has anything
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|KEY", re.IGNORECASE)
SECRET_ASSIGNMENT = re.compile(r"\b([A-Z_]*(?:TOKEN|SECRET|PASSWORD))=[\"']?\w")  # in a script; not NAME=$(...)


def only_web_ports(resource: ResourceValidationArgs) -> Iterator[str]:
    """Only ports 80 and 443 are open, and no VM has an SSH key: a shell comes through Session Manager."""
    if resource.resource_type in property_paths.INGRESS_RULES:
        for rule in _values_at(resource.props, property_paths.INGRESS_RULES[resource.resource_type]):
            protocol = rule.get("ipProtocol") or rule.get("protocol")
            low, high = rule.get("fromPort"), rule.get("toPort")
            if protocol not in ("tcp", "6") or low != high or low not in WEB_PORTS:
                ports = "every port" if None in (low, high) else f"ports {low:g} to {high:g}"
                yield f"opens {ports} ({protocol}); open tcp 80 or 443 alone, and use Session Manager for a shell"
    if resource.resource_type == "aws:ec2/instance:Instance" and (key := resource.props.get("keyName")):
        yield f"keyName is {key!r}; leave it out, and use Session Manager for a shell"


def imdsv2(resource: ResourceValidationArgs) -> Iterator[str]:
    """A VM's metadata service, which has its role's keys, requires a session token (IMDSv2)."""
    if resource.resource_type == "aws:ec2/instance:Instance":
        tokens = _value_at(resource.props, "metadataOptions.httpTokens")
        if tokens != "required":
            yield f"metadataOptions.httpTokens is {tokens!r}; set it to 'required'"


def encrypted_disks(resource: ResourceValidationArgs) -> Iterator[str]:
    """Every disk is encrypted."""
    paths = property_paths.DISK_BLOCKS.get(resource.resource_type, ())
    disks = [(path, disk) for path in paths for disk in _values_at(resource.props, path)]
    if resource.resource_type == "aws:ec2/instance:Instance" and resource.props.get("rootBlockDevice") is None:
        disks.append(("rootBlockDevice", {}))  # the default is the image's, and Debian's is not encrypted
    for path, disk in disks:
        if disk.get("encrypted") is not True:
            yield f"{path or 'the volume'} has encrypted={disk.get('encrypted')!r}; set it to True"


def no_public_bucket(resource: ResourceValidationArgs) -> Iterator[str]:
    """No bucket can be read by everyone."""
    kind, props = resource.resource_type, resource.props
    if kind == "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock":
        for flag in ACCESS_BLOCKS:
            if props.get(flag) is not True:
                yield f"{flag} is {props.get(flag)!r}; set it to True"
    elif kind.startswith("aws:s3/"):
        if (acl := props.get("acl")) and str(acl).startswith(("public", "authenticated")):
            yield f"acl is {acl!r}; leave it out"
        if kind == "aws:s3/bucketPolicy:BucketPolicy":
            for statement in _allow_statements(props.get("policy")):
                if "*" in _flatten(statement.get("Principal")):
                    yield "the policy allows Principal '*'; name who may read"
    elif kind == "gcp:storage/bucket:Bucket":
        for key, expected in (("publicAccessPrevention", "enforced"), ("uniformBucketLevelAccess", True)):
            if props.get(key) != expected:
                yield f"{key} is {props.get(key)!r}; set it to {expected!r}"
    elif kind.startswith("gcp:storage/bucketI"):
        for member in [props.get("member"), *_values_at(props, "members.*")]:
            if member in EVERYONE:
                yield f"{member} has access; name who may read"


def own_accounts(resource: ResourceValidationArgs) -> Iterator[str]:
    """Code runs, and is built, as an account of its own, not as the project's default account."""
    for path in property_paths.SERVICE_ACCOUNTS.get(resource.resource_type, ()):
        account = _value_at(resource.props, path)
        if not account or DEFAULT_ACCOUNT.search(account):
            yield f"{path} is {account!r}; give it a service account made for it"


def least_privilege(resource: ResourceValidationArgs) -> Iterator[str]:
    """No account gets one of Google's primitive roles, or a policy of AWS with a wildcard for actions or resources."""
    kind, props = resource.resource_type, resource.props
    if kind.startswith("gcp:") and props.get("role") in PRIMITIVE_ROLES:
        yield f"role is {props['role']!r}; give the one role that is needed"
    for document in _values_at(props, property_paths.POLICY_DOCUMENTS.get(kind, NOWHERE)):
        for statement in _allow_statements(document):
            for action in _flatten(statement.get("Action")):
                if "*" in action:
                    yield f"action {action!r} is allowed; name the actions that are needed"
            account_wide = set(_flatten(statement.get("Action"))) <= property_paths.ACCOUNT_WIDE_ACTIONS
            for target in () if account_wide else _flatten(statement.get("Resource")):
                if target.split(":", 5)[-1].startswith("*"):
                    yield f"resource {target!r} is allowed; name the resources that are needed"
            for inverse in ("NotAction", "NotResource"):
                if inverse in statement:
                    yield f"{inverse} allows all but a few; name what is needed"
    if kind == "aws:iam/role:Role":
        for statement in _allow_statements(props.get("assumeRolePolicy")):
            if "*" in _flatten(statement.get("Principal")):
                yield "anyone may take the role (Principal '*'); name who may"
    attached = [props.get("policyArn"), *_values_at(props, "managedPolicyArns.*")]
    for arn in attached if kind.startswith("aws:iam/") else ():
        if arn and BROAD_POLICY.search(arn):
            yield f"policy {arn!r} is attached; attach one that allows what is needed"


def read_only_store(resource: ResourceValidationArgs) -> Iterator[str]:
    """A store of models is only read: AWS's role writes single objects, and a mounted bucket is read-only."""
    kind, props = resource.resource_type, resource.props
    for document in _values_at(props, property_paths.POLICY_DOCUMENTS.get(kind, NOWHERE)):
        for statement in _allow_statements(document):
            writing = [each for each in _flatten(statement.get("Action")) if S3_WRITE.match(each)]
            for target in _flatten(statement.get("Resource")) if writing else ():
                if "*" in target or "/" not in target:
                    yield f"{writing[0]} is allowed on {target!r}; name the one object, or only read"
    if kind in property_paths.BUCKET_GRANTS and (role := props.get("role")) not in BUCKET_ROLES:
        yield f"role is {role!r}; a bucket that is not the stack's own is read with {BUCKET_ROLES[0]}"
    for path in property_paths.MOUNTED_BUCKETS.get(kind, ()):
        for mount in _values_at(props, path):
            if mount.get("readOnly") is not True:
                yield f"{mount.get('bucket')} is mounted with readOnly={mount.get('readOnly')!r}; set it to True"


def limited_instances(resource: ResourceValidationArgs) -> Iterator[str]:
    """Every service has a maximum number of instances, so that its bill is bounded."""
    if path := property_paths.MAX_INSTANCE_COUNTS.get(resource.resource_type):
        max_instances = _value_at(resource.props, path)
        if max_instances is None or not 1 <= max_instances <= MAX_CLOUD_RUN_INSTANCES:
            shown = max_instances if max_instances is None else f"{max_instances:g}"
            yield f"{path} is {shown}; set it to 1 to {MAX_CLOUD_RUN_INSTANCES}"


def destroyable(resource: ResourceValidationArgs) -> Iterator[str]:
    """`pulumi destroy` can delete every resource, with its contents."""
    kind, props = resource.resource_type, resource.props
    if resource.opts.protect:
        yield "is protected; leave `protect` out"
    if kind in property_paths.DESTROYABLE:
        key, expected = property_paths.DESTROYABLE[kind]
        if props.get(key) is not expected:
            yield f"{key} is {props.get(key)!r}; set it to {expected}"
    elif props.get("deletionProtection") is True:
        yield "deletionProtection is True; set it to False"
    for key in ("disableApiTermination", "skipDestroy"):
        if props.get(key) is True:
            yield f"{key} is True; set it to False"
    if (policy := props.get("deletionPolicy")) not in (None, "DELETE"):
        yield f"deletionPolicy is {policy!r}; set it to 'DELETE'"


def tagged(resource: ResourceValidationArgs) -> Iterator[str]:
    """Every resource that can carry tags or labels names its project and stack."""
    kind = resource.resource_type
    _, _, stack, _, project, *_ = resource.urn.split(":")
    expected = {"project": project, "stack": stack}
    for path in property_paths.TAGS.get(kind, ()):
        actual = _value_at(resource.props, path) or {}
        for key, value in expected.items():
            if actual.get(key) != value:
                yield f"{path} has {key}={actual.get(key)!r}; set it to {value!r}"
    if kind.startswith(("aws:", "gcp:")) and kind not in property_paths.TAGS and kind not in property_paths.UNTAGGED:
        yield f"whether {kind} can carry tags is not known here; say so in infra/policy/property_paths.py"


def pinned_image(resource: ResourceValidationArgs) -> Iterator[str]:
    """A container's image is named by its digest, so that what runs is what was built."""
    for container in _values_at(resource.props, property_paths.CONTAINERS.get(resource.resource_type, NOWHERE)):
        image = container.get("image")
        if not image or "@sha256:" not in image:
            yield f"image is {image!r}; name it by its digest: NAME@sha256:..."


def no_secret_in_clear(resource: ResourceValidationArgs) -> Iterator[str]:
    """No environment holds the plain value of a TOKEN, SECRET, PASSWORD or KEY."""
    kind, props = resource.resource_type, resource.props
    names = [name for path in property_paths.ENV_MAPS.get(kind, ()) for env in _values_at(props, path) for name in env]
    for variable in _values_at(props, f"{property_paths.CONTAINERS.get(kind, NOWHERE)}.envs.*"):
        if variable.get("value"):
            names.append(variable["name"])
    if kind == "aws:ec2/instance:Instance":
        names += SECRET_ASSIGNMENT.findall(props.get("userData") or "")
    for name in filter(SECRET_NAME.search, names):
        yield f"{name} holds its value in clear; refer to the cloud's store of secrets (Heroku: sensitiveConfigVars)"
    if kind == "aws:ssm/parameter:Parameter" and props.get("type") != "SecureString":
        yield f"type is {props.get('type')!r}; set it to 'SecureString'"


RULES: tuple[Rule, ...] = (
    only_web_ports,
    imdsv2,
    encrypted_disks,
    no_public_bucket,
    own_accounts,
    least_privilege,
    read_only_store,
    limited_instances,
    destroyable,
    tagged,
    pinned_image,
    no_secret_in_clear,
)


def _as_policy(rule: Rule) -> ResourceValidationPolicy:
    def validate(resource: ResourceValidationArgs, report: ReportViolation) -> None:
        for message in rule(resource):
            report(f"{resource.name}: {message}", None)

    name, description = rule.__name__.replace("_", "-"), rule.__doc__ or ""
    return ResourceValidationPolicy(name, description, validate, enforcement_level=EnforcementLevel.MANDATORY)


def _values_at(value: Any, path: str) -> list[Any]:
    """All values at a path such as "template.containers.*.image"; the empty path is the value itself."""
    values = [value]
    for step in filter(None, path.split(".")):
        if step == "*":
            values = [inner for outer in values if isinstance(outer, Sequence) for inner in outer]
        else:
            values = [outer[step] for outer in values if isinstance(outer, Mapping) and step in outer]
    return values


def _value_at(value: Any, path: str) -> Any:
    return next(iter(_values_at(value, path)), None)


def _allow_statements(document: str | None) -> list[Mapping[str, Any]]:
    """The statements of a policy document that allow something."""
    statements = json.loads(document or "{}").get("Statement", [])
    statements = statements if isinstance(statements, list) else [statements]
    return [statement for statement in statements if statement.get("Effect") == "Allow"]


def _flatten(value: Any) -> list[str]:
    """A text, a list of texts, or the texts in a mapping, as one list."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value or ()
    return [text for item in inner for text in _flatten(item)]


POLICIES: list[Policy] = [_as_policy(rule) for rule in RULES]
