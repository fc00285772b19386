"""What the clouds would answer, invented: identifiers, addresses and other values that a provider computes.

An identifier depends on the inputs that a provider cannot change in place, so a resource that would be replaced gets
another one. Which inputs these are is stated in each provider's schema.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

PUBLIC_IP = "203.0.113.7"  # of the addresses that RFC 5737 sets aside for examples
VM_IP = "198.51.100.9"  # a new VM's own
ACCOUNT = "123456789012"
ECR = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com"
GCP_PROJECT = "example-project"
# Zone -> the sizes that it does not offer. The first one in the alphabet is not the one that has most of them.
MISSING_SIZES = {
    "us-east-1e": ("t3.micro", "t3.small", "t3.medium", "t3.large", "t4g.small"),
    "us-east-1c": ("c7a.large",),
    "us-east-1b": ("t4g.small", "c7a.large"),
}

# Inputs that cannot change in place. userData counts because the program sets userDataReplaceOnChange.
IMMUTABLE_INPUTS: dict[str, tuple[str, ...]] = {
    "aws:ec2/instance:Instance": ("userData", "subnetId", "availabilityZone"),
    "aws:ec2/eipAssociation:EipAssociation": ("allocationId", "instanceId"),
    "aws:s3/bucketObjectv2:BucketObjectv2": ("bucket", "key"),
    "aws:appautoscaling/target:Target": ("serviceNamespace", "resourceId", "scalableDimension"),
    "aws:ecr/repository:Repository": ("name",),
    "aws:sagemaker/model:Model": ("name", "executionRoleArn", "primaryContainer"),
    "aws:sagemaker/endpointConfiguration:EndpointConfiguration": ("name", "productionVariants"),
    "aws:sagemaker/endpoint:Endpoint": ("name",),
    "command:local:Command": ("triggers",),
    "gcp:storage/bucketObject:BucketObject": ("bucket", "name", "source"),
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember": ("repository", "role", "member"),
    "gcp:projects/iAMMember:IAMMember": ("project", "role", "member", "condition"),
    "gcp:secretmanager/secret:Secret": ("secretId",),
    "gcp:secretmanager/secretIamMember:SecretIamMember": ("secretId", "role", "member"),
    "gcp:secretmanager/secretVersion:SecretVersion": ("secret", "secretData"),
    "gcp:cloudrunv2/service:Service": ("name", "location"),
    "gcp:cloudrunv2/serviceIamMember:ServiceIamMember": ("name", "location", "role", "member"),
    "gcp:cloudfunctionsv2/function:Function": ("name", "location"),
    "gcp:storage/bucket:Bucket": ("name", "location"),
    "gcp:artifactregistry/repository:Repository": ("repositoryId", "location", "format"),
    "gcp:serviceaccount/account:Account": ("accountId",),
    "heroku:app/app:App": ("region",),
    "heroku:build/build:Build": ("appId", "source", "buildpacks"),
    "heroku:formation/formation:Formation": ("appId",),
}


def invoke(token: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A provider's answer to a function call. Raises LookupError for one that is not known here."""
    revision = f"{arguments.get('name')}-00001-abc"
    answers: dict[str, dict[str, Any]] = {
        "aws:index/getRegion:getRegion": {"region": "us-east-1", "id": "us-east-1"},
        "aws:index/getCallerIdentity:getCallerIdentity": {"accountId": ACCOUNT},
        "aws:ecr/getAuthorizationToken:getAuthorizationToken": {
            "userName": "AWS",
            "password": "ecr-password",
            "proxyEndpoint": f"https://{ECR}",
        },
        "aws:ec2/getAvailabilityZones:getAvailabilityZones": {"names": ["us-east-1a", "us-east-1b"]},
        "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": {"locations": _zones_with(arguments)},
        "aws:ssm/getParameter:getParameter": {"value": _image(arguments), "name": arguments.get("name")},
        "gcp:cloudrunv2/getService:getService": {"latestCreatedRevision": revision, "latestReadyRevision": revision},
        "gcp:organizations/getClientConfig:getClientConfig": {"accessToken": "ya29.example", "project": GCP_PROJECT},
        "gcp:organizations/getProject:getProject": {"number": "123456789", "projectId": GCP_PROJECT},
    }
    if token not in answers:
        raise LookupError(
            f"the fake provider has no answer to {token}; add one to tests/offline_engine/fake_provider.py"
        )
    return answers[token]


def _zones_with(arguments: Mapping[str, Any]) -> list[str]:
    """One entry for each size of the filter in each zone that offers it."""
    sizes = [size for wanted in arguments.get("filters", ()) for size in wanted["values"]]
    return [zone for zone, missing in MISSING_SIZES.items() for size in sizes if size not in missing]


def _image(arguments: Mapping[str, Any]) -> str:
    return f"ami-{hashlib.sha256(str(arguments.get('name')).encode()).hexdigest()[:17]}"


def create(
    kind: str, name: str, inputs: Mapping[str, Any], replace_on_changes: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """A resource's identifier, and the outputs that its provider adds to the inputs.

    replace_on_changes: inputs that the program has count as immutable as well.
    """
    fixed = {key: inputs.get(key) for key in (*IMMUTABLE_INPUTS.get(kind, ()), *replace_on_changes)}
    suffix = hashlib.sha256(json.dumps([kind, name, fixed], sort_keys=True).encode()).hexdigest()[:7]
    resource_id = f"{name}-{suffix}"
    computed: dict[str, Any] = {"name": resource_id, "arn": f"arn:aws:example:us-east-1:{ACCOUNT}:{name}"}
    match kind:
        case "aws:s3/bucket:Bucket":
            computed |= {"bucket": resource_id, "arn": f"arn:aws:s3:::{resource_id}"}
        case "aws:ec2/instance:Instance":
            computed |= {"publicIp": VM_IP}
        case "aws:ec2/eip:Eip":
            computed |= {"publicIp": PUBLIC_IP, "allocationId": f"eipalloc-{suffix}"}
        case "aws:ssm/parameter:Parameter":
            computed |= {"version": 1, "arn": f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter{inputs['name']}"}
        case "aws:ecr/repository:Repository":
            url, arn = f"{ECR}/{inputs['name']}", f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/{inputs['name']}"
            computed |= {"repositoryUrl": url, "registryId": ACCOUNT, "arn": arn}
        case "aws:cloudwatch/logGroup:LogGroup":
            computed |= {"arn": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{inputs['name']}"}
        case "docker-build:index:Image":
            tag = inputs["tags"][0]
            digest = hashlib.sha256(tag.encode()).hexdigest()
            computed |= {"ref": f"{tag}@sha256:{digest}", "digest": f"sha256:{digest}"}
        case "gcp:serviceaccount/account:Account":
            email = f"{inputs['accountId']}@{GCP_PROJECT}.iam.gserviceaccount.com"
            path = f"projects/{GCP_PROJECT}/serviceAccounts/{email}"
            computed |= {"email": email, "member": f"serviceAccount:{email}", "name": path, "uniqueId": "1" + suffix}
            resource_id = path
        case "gcp:secretmanager/secret:Secret":
            resource_id = f"projects/{GCP_PROJECT}/secrets/{inputs['secretId']}"
            computed |= {"name": resource_id}
        case "gcp:secretmanager/secretVersion:SecretVersion":
            computed |= {"version": str(int(suffix, 16))}  # other data are another version
        case "gcp:cloudrunv2/service:Service":
            resource_id = f"projects/{GCP_PROJECT}/locations/{inputs['location']}/services/{inputs['name']}"
            computed |= {"uri": f"https://{inputs.get('name', name)}-uc.a.run.app"}
        case "gcp:cloudfunctionsv2/function:Function":
            path = f"projects/{GCP_PROJECT}/locations/us-central1/services/{inputs.get('name', name)}"
            computed |= {"serviceConfig": {"uri": f"https://{name}-uc.a.run.app", "service": path}}
            computed |= {"url": f"https://us-central1-{GCP_PROJECT}.cloudfunctions.net/{name}"}
        case "heroku:app/app:App":
            resource_id = f"01234567-89ab-cdef-0123-45678{suffix}"
            computed |= {"webUrl": f"https://{inputs['name']}-0123456789ab.herokuapp.com/"}
    return resource_id, computed
