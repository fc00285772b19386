"""What the tests of the two Google programs share: what stands behind a resource, and settings that are refused."""

from __future__ import annotations

from tests.offline_engine.engine import ProgramResult, Resource

# The API that has to be on before a resource can be made.
API_OF = {
    "gcp:artifactregistry/repository:Repository": "artifactregistry",
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember": "artifactregistry",
    "docker-build:index:Image": "artifactregistry",
    "gcp:billing/budget:Budget": "billingbudgets",
    "gcp:serviceaccount/account:Account": "iam",
    "gcp:projects/iAMMember:IAMMember": "cloudresourcemanager",
    "gcp:secretmanager/secret:Secret": "secretmanager",
    "gcp:secretmanager/secretVersion:SecretVersion": "secretmanager",
    "gcp:secretmanager/secretIamMember:SecretIamMember": "secretmanager",
    "gcp:storage/bucket:Bucket": "storage",
    "gcp:storage/bucketObject:BucketObject": "storage",
    "gcp:cloudrunv2/service:Service": "run",
    "gcp:cloudrunv2/serviceIamMember:ServiceIamMember": "run",
    "gcp:cloudfunctionsv2/function:Function": "cloudfunctions",
}
API = "gcp:projects/service:Service"

BUDGET = {"budgetUsd": "20", "billingAccount": "0123AB-4567CD-89EF01"}

# Settings that make no sense, and words of the reason; the same for both.
NONSENSE = {
    "no-project": ({"gcp:project": ""}, "gcp:project is"),
    "project-number": ({"gcp:project": "123456789012"}, "a project's ID, not its name or number"),
    "project-name": ({"gcp:project": "My Project"}, "a project's ID, not its name or number"),
    "zone": ({"gcp:region": "us-central1-a"}, "not a zone"),
    "multi-region": ({"gcp:region": "US"}, "a region such as us-central1"),
    "odd-vcpus": ({"vcpus": "3"}, "one of 0.5, 1, 2, 4, 6, 8"),
    "memory-with-unit": ({"memoryMib": "1Gi"}, "a whole number from 512 to 32768"),
    "memory-too-small": ({"memoryMib": "256"}, "a whole number from 512 to 32768"),
    "memory-too-large-for-1": ({"memoryMib": "4097"}, "with 1 vCPU, Cloud Run has 512 to 4096 MiB"),
    "memory-too-large-for-half": (
        {"vcpus": "0.5", "memoryMib": "2048", "concurrency": "1"},
        "with 0.5 vCPU, Cloud Run has 512 to 1024 MiB",
    ),
    "memory-too-small-for-4": ({"vcpus": "4"}, "with 4 vCPU, Cloud Run has 2048 to 16384 MiB"),
    "concurrency-on-half": ({"vcpus": "0.5", "concurrency": "2"}, "one request at once into an instance"),
    "concurrency-zero": ({"concurrency": "0"}, "a whole number from 1 to 1000"),
    "min-above-max": ({"minInstances": "4"}, "minInstances is 4, more than cloudtrial:maxInstances, 3"),
    "max-zero": ({"maxInstances": "0"}, "a whole number from 1 to 100"),
    "max-by-mistake": ({"maxInstances": "3000"}, "a whole number from 1 to 100"),
    "invoker-without-kind": ({"invoker": "someone@example.com"}, "user:EMAIL"),
    "invoker-not-an-address": ({"invoker": "user:someone"}, "user:EMAIL"),
    "invoker-misspelt": ({"invoker": "allusers"}, "allUsers"),
    "budget-of-nobody": ({"budgetUsd": "20"}, "budgetUsd needs cloudtrial:billingAccount"),
    "budget-of-nothing": ({"billingAccount": "0123AB-4567CD-89EF01"}, "billingAccount needs cloudtrial:budgetUsd"),
    "budget-in-cents": (BUDGET | {"budgetUsd": "9.99"}, "a whole number from 1 to 100000"),
    "billing-account-by-name": (BUDGET | {"billingAccount": "My Account"}, "a billing account's ID, 0123AB-"),
}

# The ends of what Cloud Run sells, and what the stack calls it.
SIZES = {
    "half": ({"vcpus": "0.5", "memoryMib": "512", "concurrency": "1"}, "0.5 vCPU, 512 MiB"),
    "uneven": ({"memoryMib": "1536"}, "1 vCPU, 1536 MiB"),
    "largest": ({"vcpus": "8", "memoryMib": "32768", "concurrency": "1000"}, "8 vCPU, 32 GiB"),
}


def before(run: ProgramResult, resource: Resource) -> list[Resource]:
    """Everything that has to be there before a resource is made."""
    needed: dict[str, Resource] = {}
    waiting = [resource]
    while waiting:
        for urn in waiting.pop().dependencies:
            if urn not in needed:
                needed[urn] = run.resources[urn]
                waiting.append(needed[urn])
    return list(needed.values())


def named(run: ProgramResult, name: str) -> Resource:
    """The only Command of that name: both programs have several."""
    (only,) = [resource for resource in run.of_type("Command") if resource.name == name]
    return only


def apis_before(run: ProgramResult, resource: Resource) -> set[str]:
    return {r.inputs["service"].partition(".")[0] for r in before(run, resource) if r.type == API}


def roles_of(run: ProgramResult, email: str) -> dict[str, str]:
    """Every role that an account is given, and the type of resource that gives it."""
    return {
        r.inputs["role"]: r.type for r in run.resources.values() if r.inputs.get("member") == f"serviceAccount:{email}"
    }
