"""infra/gcp_function: the zip, who builds it, who runs it, who may call it, and what it costs."""

from __future__ import annotations

import ast
import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from infra.artifact import REPOSITORY, deployment_files
from infra.local.start_commands import gcp_function_process
from infra.targets import FUNCTION_ENTRY_POINT, GCP_FUNCTION
from tests.helpers.infra.gcp_programs import (
    API,
    API_OF,
    NONSENSE,
    apis_before,
    before,
    named,
    roles_of,
)
from tests.helpers.infra.program_runs import TOKEN, make_checkout, refused, rehearse, well
from tests.offline_engine.engine import ProgramResult, diff, run_program

pytestmark = pytest.mark.integration

STACK = "gcp_function"
PROJECT = {"gcp:project": "example-project"}
BUILDER = "cloudtrial-build@example-project.iam.gserviceaccount.com"
RUNNER = "cloudtrial-function@example-project.iam.gserviceaccount.com"
PROJECT_ROLE = "gcp:projects/iAMMember:IAMMember"
REPOSITORY_ROLE = "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember"


@pytest.fixture(scope="module")
def run() -> ProgramResult:
    return well(rehearse(STACK))


@pytest.fixture(scope="module")
def guarded() -> ProgramResult:
    return well(rehearse(STACK, token=True))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The project, with litter."""
    checkout = make_checkout(tmp_path_factory.mktemp("function") / "checkout")
    cache = checkout / "service" / "__pycache__"
    cache.mkdir()
    (cache / "main.cpython-311.pyc").touch()
    return checkout


def run_and_read(checkout: Path, engine: str) -> tuple[ProgramResult, bytes]:
    """A run, and the zip that it wrote."""
    run = well(run_program(checkout, STACK, {**PROJECT, "cloudtrial:engine": engine}))
    return run, (checkout / run.single("BucketObject").inputs["source"]["path"]).read_bytes()


@pytest.fixture(scope="module")
def shipped(checkout) -> tuple[ProgramResult, bytes]:
    return run_and_read(checkout, "torch")


def part(run: ProgramResult, name: str) -> dict:
    return run.single("Function").inputs[name]


def test_the_zip_has_the_entry_and_the_requirements_at_its_root(shipped):
    with zipfile.ZipFile(io.BytesIO(shipped[1])) as archive:
        names = archive.namelist()
        assert archive.read("main.py") == (REPOSITORY / "service" / "main.py").read_bytes()
        own = REPOSITORY / "infra" / "gcp_function" / "requirements.txt"
        assert archive.read("requirements.txt") == own.read_bytes() and b"functions-framework==" in own.read_bytes()
    assert {"service/wsgi.py", "models/resnet18-cifar10/model.json"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_onnx_zip_requires_no_torch_and_has_no_torch_weights(checkout):
    run, content = run_and_read(checkout, "onnx")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert set(archive.namelist()) == set(deployment_files(engine="onnx"))
        pins = archive.read("requirements.txt").decode()
    assert "onnxruntime==" in pins and "torch==" not in pins and "safetensors" not in pins
    assert "functions-framework==" in pins
    assert part(run, "serviceConfig")["environmentVariables"]["ENGINE"] == "onnx"


def test_zip_has_no_procfile_to_start_instead_of_the_function(shipped):
    with zipfile.ZipFile(io.BytesIO(shipped[1])) as archive:
        assert set(archive.namelist()) == set(deployment_files())


def test_the_objects_name_carries_the_zips_hash(shipped):
    run, content = shipped
    assert run.single("BucketObject").retain_on_delete  # until the bucket goes: what is sent again has the same name
    source = run.single("BucketObject").inputs
    sha256 = hashlib.sha256(content).hexdigest()
    assert source["name"] == f"source-{sha256[:12]}.zip"
    assert source["source"]["hash"] == sha256
    assert source["source"]["path"] == "./.build/gcp_function.zip"


def test_the_function_is_built_from_that_object(run):
    storage = part(run, "buildConfig")["source"]["storageSource"]
    assert storage == {
        "bucket": run.single("Bucket").inputs["name"],
        "object": run.single("BucketObject").inputs["name"],
    }


def test_the_entry_is_a_function_of_main_py(run):
    entry = part(run, "buildConfig")["entryPoint"]
    tree = ast.parse((REPOSITORY / "service" / "main.py").read_text())
    assert entry == FUNCTION_ENTRY_POINT == "classify"
    assert entry in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_the_python_is_that_of_the_image(run):
    assert part(run, "buildConfig")["runtime"] == "python311"
    assert "FROM python:3.11-" in (REPOSITORY / "service" / "Dockerfile").read_text()


def test_the_source_is_private_and_leaves_nothing_behind(run):
    bucket = run.single("Bucket").inputs
    assert bucket["name"] == "example-project-cloudtrial-function"
    assert bucket["uniformBucketLevelAccess"] is True
    assert bucket["publicAccessPrevention"] == "enforced"
    assert bucket["forceDestroy"] is True
    assert bucket["softDeletePolicy"] == {"retentionDurationSeconds": 0}


def test_the_longest_bucket_name_is_one_that_google_allows():
    run = well(rehearse(f"{STACK}-abcdefghij", {"gcp:project": "p" * 30}))
    assert len(run.single("Bucket").inputs["name"]) <= 63
    assert max(len(account.inputs["accountId"]) for account in run.of_type("Account")) <= 30


def test_image_goes_to_our_repository_which_is_cleaned_up(run):
    repository = run.single("Repository").inputs
    path = f"projects/example-project/locations/us-central1/repositories/{repository['repositoryId']}"
    assert part(run, "buildConfig")["dockerRepository"] == path
    keep, delete = repository["cleanupPolicies"]
    assert keep == {"id": "keep-newest", "action": "KEEP", "mostRecentVersions": {"keepCount": 3}}
    condition = {"tagState": "ANY", "olderThan": "604800s"}
    assert delete == {"id": "delete-old", "action": "DELETE", "condition": condition}
    assert repository["cleanupPolicyDryRun"] is False


def test_build_account_has_three_roles_and_one_repository(run):
    assert part(run, "buildConfig")["serviceAccount"] == f"projects/example-project/serviceAccounts/{BUILDER}"
    assert roles_of(run, BUILDER) == {
        "roles/logging.logWriter": PROJECT_ROLE,
        "roles/artifactregistry.writer": REPOSITORY_ROLE,
        "roles/storage.objectViewer": PROJECT_ROLE,
    }
    assert run.single("RepositoryIamMember").inputs["repository"] == run.single("Repository").inputs["repositoryId"]


def test_another_revision_is_built_again(run):
    """The provider builds nothing while its state has the same, also where that build has failed."""
    assert "environmentVariables" not in part(run, "buildConfig")
    revised = well(rehearse("gcp_function", {"revision": "again"}))
    assert part(revised, "buildConfig")["environmentVariables"] == {"REVISION": "again"}


def test_build_account_reads_only_the_source_buckets(run):
    (reading,) = [r.inputs for r in run.of_type("IAMMember") if r.inputs["role"] == "roles/storage.objectViewer"]
    assert reading["condition"]["expression"] == (
        'resource.type == "storage.googleapis.com/Object" && ('
        'resource.name.startsWith("projects/_/buckets/gcf-v2-sources-") || '
        'resource.name.startsWith("projects/_/buckets/gcf-v2-uploads-") || '
        'resource.name.startsWith("projects/_/buckets/run-sources-"))'
    )


def test_the_function_runs_as_an_account_that_may_do_nothing(run):
    assert part(run, "serviceConfig")["serviceAccountEmail"] == RUNNER
    assert roles_of(run, RUNNER) == {}


def test_build_waits_until_every_grant_has_propagated(guarded):
    wait, function = named(guarded, "grants-settled"), guarded.single("Function")
    grants = [r for r in guarded.resources.values() if "serviceAccount:" in r.inputs.get("member", "")]
    assert len(grants) == 4
    assert {r.urn for r in grants} <= set(wait.dependencies)
    assert {r.id for r in grants} <= set(wait.inputs["triggers"])
    assert wait in before(guarded, function)


def test_recreated_account_triggers_the_wait_again(run):
    unique = {account.outputs["uniqueId"] for account in run.of_type("Account")}
    assert unique <= set(named(run, "grants-settled").inputs["triggers"])


def test_the_wait_is_two_minutes_by_a_python_of_any_machine(run):
    wait = named(run, "grants-settled").inputs
    assert wait["create"] == Path(REPOSITORY, "infra", "waits", "google_wait.py").read_text()
    assert ast.unparse(ast.parse(wait["create"]).body[-1]) == "time.sleep(120)"


@pytest.mark.parametrize("token", [False, True], ids=["open", "token"])
def test_every_api_is_on_before_what_needs_it_and_stays_on(token):
    run = well(rehearse(STACK, token=token))
    for resource in run.resources.values():
        if resource.type in API_OF:
            assert API_OF[resource.type] in apis_before(run, resource), resource.urn
    assert {"run", "cloudbuild", "artifactregistry", "storage"} <= apis_before(run, run.single("Function"))
    assert {api.inputs["disableOnDestroy"] for api in run.of_type(API)} == {False}
    assert ("secretmanager.googleapis.com" in {api.inputs["service"] for api in run.of_type(API)}) is token


def test_cpu_memory_and_concurrency_are_explicit(run):
    service = part(run, "serviceConfig")
    assert (service["availableCpu"], service["availableMemory"]) == ("1", "1Gi")
    assert service["maxInstanceRequestConcurrency"] == GCP_FUNCTION.concurrency == 1
    assert service["minInstanceCount"] == 0
    assert service["maxInstanceCount"] == GCP_FUNCTION.max_instances == 3
    assert service["timeoutSeconds"] == 60


def test_the_settings_reach_google():
    settings = {"vcpus": "2", "memoryMib": "2048", "concurrency": "9", "minInstances": "1", "maxInstances": "7"}
    run = well(rehearse(STACK, {**settings, "revision": "r7", "gcp:region": "europe-west12"}))
    service = part(run, "serviceConfig")
    assert (service["availableCpu"], service["availableMemory"]) == ("2", "2Gi")
    assert service["maxInstanceRequestConcurrency"] == 9
    assert (service["minInstanceCount"], service["maxInstanceCount"]) == (1, 7)
    assert service["environmentVariables"]["THREADS"] == "9"
    assert service["environmentVariables"]["REVISION"] == "r7"
    assert run.outputs["size"] == "2 vCPU, 2 GiB"
    places = {r.inputs["location"] for r in run.resources.values() if "location" in r.inputs}
    assert places == {run.outputs["region"]} == {"europe-west12"}
    assert "/europe-west12/" in part(run, "buildConfig")["dockerRepository"]


def test_the_service_reads_the_environment_of_its_twin(run, tmp_path):
    twin = gcp_function_process(tmp_path, 1234).env
    assert part(run, "serviceConfig")["environmentVariables"] == {
        "ENGINE": "torch",
        "MODEL_DIR": "models/resnet18-cifar10",
        "GIT_SHA": named(run, "ready").inputs["environment"]["GIT_SHA"],
        "THREADS": twin["THREADS"],
        "LOG_EXECUTION_ID": "true",
    }


@pytest.mark.parametrize(("settings", "threads"), [({"vcpus": "0.5"}, "2"), ({"concurrency": "50"}, "50")])
def test_every_request_that_is_let_in_has_a_thread(settings, threads):
    run = well(rehearse(STACK, settings))
    assert part(run, "serviceConfig")["environmentVariables"]["THREADS"] == threads


def test_the_token_comes_from_the_secret_manager_by_its_version(guarded):
    version = guarded.single("SecretVersion").outputs["version"]
    assert part(guarded, "serviceConfig")["secretEnvironmentVariables"] == [
        {"key": "API_TOKEN", "projectId": "example-project", "secret": "cloudtrial-function", "version": version}
    ]
    assert guarded.single("SecretVersion").unwrapped_inputs["secretData"] == TOKEN
    assert guarded.single("SecretVersion").inputs["secret"] == guarded.single("Secret").id


def test_with_a_token_the_account_may_read_that_one_secret(guarded):
    assert roles_of(guarded, RUNNER) == {
        "roles/secretmanager.secretAccessor": "gcp:secretmanager/secretIamMember:SecretIamMember"
    }
    assert guarded.single("SecretIamMember").inputs["secretId"] == guarded.single("Secret").id
    assert "roles/secretmanager.secretAccessor" not in roles_of(guarded, BUILDER)


def test_anyone_may_invoke_the_functions_underlying_service(run):
    path = run.single("Function").outputs["serviceConfig"]["service"]
    assert path == "projects/example-project/locations/us-central1/services/cloudtrial-function"
    assert run.single("ServiceIamMember").inputs == {
        "name": "cloudtrial-function",
        "location": "us-central1",
        "role": "roles/run.invoker",
        "member": "allUsers",
    }
    assert part(run, "serviceConfig")["ingressSettings"] == "ALLOW_ALL"


def test_configured_invoker_replaces_everyone():
    member = "group:testers@example.com"
    assert well(rehearse(STACK, {"invoker": member})).single("ServiceIamMember").inputs["member"] == member


def test_invoker_none_lets_no_one_but_the_function_itself_call():
    """A grant that is dropped would stay until an `up` has passed; this one takes the place of the one before."""
    run = well(rehearse(STACK, {"invoker": "none"}))
    assert run.single("ServiceIamMember").inputs["member"] == f"serviceAccount:{RUNNER}"


@pytest.mark.parametrize("before_it", ["allUsers", "user:a@example.com"])
@pytest.mark.parametrize("after_it", ["user:b@example.com", "none"])
def test_the_old_right_to_call_goes_before_the_proof(before_it, after_it):
    old, new = (well(rehearse(STACK, {"invoker": invoker})) for invoker in (before_it, after_it))
    assert diff(old, new)["ServiceIamMember invoker"] == "replace"
    invoker = new.single("ServiceIamMember")
    assert invoker.delete_before_replace  # else it would go after `ready`, and stay when that fails
    assert invoker.urn in named(new, "ready").dependencies


def test_the_url_is_the_services_own(run):
    assert run.outputs["url"] == run.single("Function").outputs["serviceConfig"]["uri"]


def test_nothing_has_the_name_of_what_cloud_run_has(guarded):
    other = well(rehearse("gcp_cloudrun", token=True))
    keys = ("accountId", "repositoryId", "secretId", "name")
    ours, theirs = (
        {(key, r.inputs[key]) for r in run.resources.values() for key in keys if key in r.inputs}
        for run in (guarded, other)
    )
    assert ours and not ours & theirs


# Both programs read their settings by the same rules; test_infra_gcp_cloudrun.py has all the refusals.
@pytest.mark.parametrize("case", ["zone", "memory-too-large-for-1", "concurrency-on-half", "min-above-max"])
def test_invalid_setting_is_refused(case):
    settings, reason = NONSENSE[case]
    assert reason in refused(rehearse(STACK, settings))
