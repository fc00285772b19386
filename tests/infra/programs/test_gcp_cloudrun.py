"""infra/gcp_cloudrun: what Google is asked to run, as whom, for whom, and at what cost."""

from __future__ import annotations

import pytest

from infra.artifact import REPOSITORY, deployment_files, digest
from infra.local.dockerfile import instructions
from infra.local.start_commands import gcp_cloudrun_process
from infra.naming import resource_name
from infra.targets import GCP_CLOUDRUN
from service.schema import HEALTHZ, READYZ
from service.settings import ENGINES
from tests.helpers.infra.gcp_programs import (
    API,
    API_OF,
    BUDGET,
    NONSENSE,
    SIZES,
    apis_before,
    before,
    named,
    roles_of,
)
from tests.helpers.infra.program_runs import TOKEN, make_checkout, packed, refused, rehearse, well
from tests.offline_engine import fake_provider
from tests.offline_engine.engine import ProgramResult, diff, run_program

pytestmark = pytest.mark.integration

DOCKERFILE = REPOSITORY / "service" / "Dockerfile"
STACK = "gcp_cloudrun"
PROJECT = {"gcp:project": "example-project"}
SERVICE = "gcp:cloudrunv2/service:Service"
ACCOUNT = "cloudtrial-run@example-project.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def run() -> ProgramResult:
    return well(rehearse(STACK))


@pytest.fixture(scope="module")
def guarded() -> ProgramResult:
    return well(rehearse(STACK, token=True))


def container(run: ProgramResult) -> dict:
    (only,) = run.single(SERVICE).inputs["template"]["containers"]
    return only


def environment(run: ProgramResult) -> dict[str, str]:
    return {variable["name"]: variable.get("value") for variable in container(run)["envs"]}


def test_what_is_run_is_pinned_by_the_digest_of_what_was_built(run):
    assert container(run)["image"] == run.single("Image").outputs["ref"]
    assert "@sha256:" in container(run)["image"]


def test_the_image_is_of_the_service_for_googles_processors(run):
    image = run.single("Image").inputs
    assert image["context"]["location"] == "./.build/gcp_cloudrun"
    assert image["dockerfile"]["location"] == "./.build/gcp_cloudrun/service/Dockerfile"
    assert image["platforms"] == ["linux/amd64"]
    assert image["push"] is True


def test_a_preview_builds_nothing(run):
    assert run.single("Image").inputs["buildOnPreview"] is False


def test_the_tag_is_the_hash_of_what_is_shipped(tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    image = well(run_program(checkout, STACK, {"gcp:project": "example-project"})).single("Image").inputs
    shipped = {name: checkout / path.relative_to(REPOSITORY) for name, path in deployment_files().items()}
    repository = "us-central1-docker.pkg.dev/example-project/cloudtrial-run"
    assert image["tags"] == [f"{repository}/service:{digest(shipped)[:12]}"]


@pytest.mark.parametrize("engine", ENGINES)
def test_build_folder_holds_the_deployment_files_only(engine, tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    stale = checkout / ".build" / "gcp_cloudrun" / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    cache = checkout / "service" / "__pycache__"
    cache.mkdir()
    (cache / "app.cpython-311.pyc").touch()
    config = {"gcp:project": "example-project", "cloudtrial:engine": engine}
    image = well(run_program(checkout, STACK, config)).single("Image").inputs
    assert (checkout / image["dockerfile"]["location"]).is_file()
    assert set(packed(checkout, STACK)) == set(deployment_files(engine=engine))


@pytest.mark.parametrize("engine", ENGINES)
def test_image_is_built_from_the_engines_stage_and_starts_it(engine):
    run = well(rehearse(STACK, {"engine": engine}))
    assert run.single("Image").inputs["buildArgs"] == {"ENGINE": engine}
    assert environment(run)["ENGINE"] == engine
    stages = [rest for name, rest in instructions(DOCKERFILE.read_text()) if name == "FROM"]
    assert f"base AS {engine}" in stages and "${ENGINE} AS common" in stages
    assert stages[-1] == "common AS service" and "target" not in run.single("Image").inputs
    tags = {well(rehearse(STACK, {"engine": each})).single("Image").inputs["tags"][0] for each in ENGINES}
    assert len(tags) == len(ENGINES)


def test_the_registrys_token_is_secret(run):
    image = run.single("Image")
    (registry,) = image.unwrapped_inputs["registries"]
    assert registry == {
        "address": "us-central1-docker.pkg.dev",
        "username": "oauth2accesstoken",
        "password": "ya29.example",
    }
    assert "ya29.example" not in image.cleartext


@pytest.mark.parametrize("token", [False, True], ids=["open", "token"])
def test_every_api_is_on_before_what_needs_it_and_stays_on(token):
    run = well(rehearse(STACK, token=token))
    for resource in run.resources.values():
        if resource.type in API_OF:
            assert API_OF[resource.type] in apis_before(run, resource), resource.urn
    assert {api.inputs["disableOnDestroy"] for api in run.of_type(API)} == {False}


@pytest.mark.parametrize("stack", ["gcp_cloudrun", "gcp_function"])
def test_the_api_that_the_provider_asks_is_on_before_the_others(stack):
    run = well(rehearse(stack, token=True))
    for api in run.of_type(API):
        first = api.inputs["service"] == "cloudresourcemanager.googleapis.com"
        assert apis_before(run, api) == (set() if first else {"cloudresourcemanager"})


def test_the_secret_managers_api_is_switched_on_only_for_a_token(run, guarded):
    names = {api.inputs["service"] for api in run.of_type(API)}
    expected = ("run", "artifactregistry", "iam", "cloudresourcemanager")
    assert names == {f"{name}.googleapis.com" for name in expected}
    assert {api.inputs["service"] for api in guarded.of_type(API)} - names == {"secretmanager.googleapis.com"}


def test_request_waits_for_an_instance_until_the_model_is_ready(run):
    probe = container(run)["startupProbe"]
    assert probe["httpGet"] == {"path": READYZ, "port": 8080}
    assert probe["periodSeconds"] * probe["failureThreshold"] == GCP_CLOUDRUN.boot_timeout_s == 240
    assert probe["timeoutSeconds"] <= probe["periodSeconds"] == 1


def test_hung_instance_is_killed_and_a_busy_one_is_not(run):
    probe = container(run)["livenessProbe"]
    assert probe["httpGet"] == {"path": HEALTHZ, "port": 8080}
    assert probe["timeoutSeconds"] <= probe["periodSeconds"]
    timeout = int(run.single(SERVICE).inputs["template"]["timeout"].removesuffix("s"))
    assert probe["periodSeconds"] * probe["failureThreshold"] > timeout == 60


def test_it_is_billed_by_request_and_boosted_at_start(run):
    resources = container(run)["resources"]
    assert resources == {"limits": {"cpu": "1", "memory": "1Gi"}, "cpuIdle": True, "startupCpuBoost": True}


def test_instance_concurrency_is_what_a_busy_processor_can_serve(run):
    template = run.single(SERVICE).inputs["template"]
    assert template["maxInstanceRequestConcurrency"] == GCP_CLOUDRUN.concurrency == 4
    assert template["scaling"] == {"minInstanceCount": 0, "maxInstanceCount": GCP_CLOUDRUN.max_instances}
    assert template["executionEnvironment"] == "EXECUTION_ENVIRONMENT_GEN2"


def test_the_service_reads_the_environment_of_its_twin(run, tmp_path):
    for name in ("service", "models"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "requirements.txt").symlink_to(REPOSITORY / "service" / "requirements.txt")
    twin = gcp_cloudrun_process(tmp_path, 1234).env
    sent = named(run, "ready").inputs["environment"]
    twins = {key: twin[key] for key in ("ENGINE", "MODEL_DIR", "WEB_THREADS")}
    assert environment(run) == twins | {"GIT_SHA": sent["GIT_SHA"]}
    assert container(run)["ports"] == {"containerPort": 8080}


def test_the_settings_reach_google():
    settings = {"vcpus": "2", "memoryMib": "2048", "concurrency": "9", "minInstances": "1", "maxInstances": "7"}
    run = well(rehearse(STACK, {**settings, "revision": "r7", "gcp:region": "europe-west12"}))
    service = run.single(SERVICE).inputs
    assert container(run)["resources"]["limits"] == {"cpu": "2", "memory": "2Gi"}
    assert service["template"]["maxInstanceRequestConcurrency"] == 9
    assert service["template"]["scaling"] == {"minInstanceCount": 1, "maxInstanceCount": 7}
    assert environment(run)["WEB_THREADS"] == "9"
    assert environment(run)["REVISION"] == "r7"
    assert run.outputs["size"] == "2 vCPU, 2 GiB"
    places = {r.inputs["location"] for r in run.resources.values() if "location" in r.inputs}
    assert places == {run.outputs["region"]} == {"europe-west12"}
    assert run.single("Image").inputs["tags"][0].startswith("europe-west12-docker.pkg.dev/")


def test_less_than_one_processor_runs_in_the_first_generation():
    run = well(rehearse(STACK, SIZES["half"][0]))
    assert run.single(SERVICE).inputs["template"]["executionEnvironment"] == "EXECUTION_ENVIRONMENT_GEN1"


@pytest.mark.parametrize(("settings", "size"), SIZES.values(), ids=SIZES)
def test_the_output_names_the_configured_size(settings, size):
    assert well(rehearse(STACK, settings)).outputs["size"] == size


def test_the_service_runs_as_an_account_that_may_do_nothing(run):
    assert run.single(SERVICE).inputs["template"]["serviceAccount"] == ACCOUNT
    assert roles_of(run, ACCOUNT) == {}


def test_with_a_token_the_account_may_read_that_one_secret(guarded):
    secret = guarded.single("Secret")
    assert roles_of(guarded, ACCOUNT) == {
        "roles/secretmanager.secretAccessor": "gcp:secretmanager/secretIamMember:SecretIamMember"
    }
    assert guarded.single("SecretIamMember").inputs["secretId"] == secret.id


def test_the_token_comes_from_the_secret_manager_by_its_version(guarded):
    (variable,) = [v for v in container(guarded)["envs"] if v["name"] == "API_TOKEN"]
    version = guarded.single("SecretVersion")
    reference = {"secret": "cloudtrial-run", "version": version.outputs["version"]}
    assert variable == {"name": "API_TOKEN", "valueSource": {"secretKeyRef": reference}}
    assert version.unwrapped_inputs["secretData"] == TOKEN
    assert version.inputs["secret"] == guarded.single("Secret").id


def test_service_waits_for_its_right_to_read_the_token(run, guarded):
    wait = named(guarded, "grants-settled")
    accessor, account = guarded.single("SecretIamMember"), guarded.single("Account")
    assert "time.sleep(120)" in wait.inputs["create"]
    assert wait.inputs["triggers"] == [account.outputs["uniqueId"], accessor.id]
    assert accessor.urn in wait.dependencies and wait in before(guarded, guarded.single(SERVICE))
    assert "grants-settled" not in [r.name for r in run.of_type("Command")]  # without a token there is no grant


def test_anyone_may_call_by_the_services_switch_not_by_a_grant(run):
    """A grant to allUsers fails in an organisation with domain-restricted sharing."""
    assert run.single(SERVICE).inputs["invokerIamDisabled"] is True
    assert run.of_type("ServiceIamMember") == []
    assert run.single(SERVICE).inputs["ingress"] == "INGRESS_TRAFFIC_ALL"


@pytest.mark.parametrize(
    "member",
    [
        "user:a.b@example.com",
        "serviceAccount:x@p.iam.gserviceaccount.com",
        "domain:example.com",
        "allAuthenticatedUsers",
    ],
)
def test_configured_invoker_replaces_everyone(member):
    run = well(rehearse(STACK, {"invoker": member}))
    service, invoker = run.single(SERVICE), run.single("ServiceIamMember")
    assert service.inputs["invokerIamDisabled"] is False
    assert invoker.inputs == {
        "name": service.inputs["name"],
        "location": "us-central1",
        "role": "roles/run.invoker",
        "member": member,
    }
    assert service.urn in invoker.dependencies  # closed to everyone before it is opened to someone
    assert invoker.urn in named(run, "ready").dependencies


def test_invoker_none_lets_no_one_but_the_service_itself_call():
    run = well(rehearse(STACK, {"invoker": "none"}))
    assert run.single(SERVICE).inputs["invokerIamDisabled"] is False
    assert run.single("ServiceIamMember").inputs["member"] == f"serviceAccount:{ACCOUNT}"


def test_the_old_right_to_call_goes_before_the_new_one_comes():
    """After the new one, and after the proof, it would stay where the proof fails."""
    old, new = (well(rehearse(STACK, {"invoker": f"user:{name}@example.com"})) for name in "ab")
    assert diff(old, new)["ServiceIamMember invoker"] == "replace"
    assert new.single("ServiceIamMember").delete_before_replace


@pytest.mark.parametrize("stack", ["gcp_cloudrun", "gcp_function"])
def test_up_ends_with_the_proof_of_the_new_revision(stack):
    run = well(rehearse(stack))
    ready = named(run, "ready")
    env, service = ready.inputs["environment"], resource_name(stack.removeprefix("gcp_").removeprefix("cloud"), stack)
    assert env["URL"] == run.outputs["url"] and env["GIT_SHA"].startswith("unversioned-")  # no repository of git
    assert env["CREATED_REVISION"] == env["READY_REVISION"] == f"{service}-00001-abc"
    assert ("gcp:cloudrunv2/getService:getService", service) in [(name, a.get("name")) for name, a in run.invokes]
    sent = run.single("Image").outputs["ref"] if stack == STACK else sha256_of_zip(run)
    assert ready.inputs["triggers"] == [env["GIT_SHA"], sent, env["CREATED_REVISION"], env["READY_REVISION"]]
    assert f"gcloud run services logs read {service} --region us-central1 --project example-project" in env["ADVICE"]
    assert not {"API_TOKEN", "IDENTITY_TOKEN"} & set(env)


def test_a_revision_that_failed_is_asked_about_at_every_up(tmp_path, monkeypatch):
    """Google serves the old one then, and after a refresh the next plan shows no difference in the service."""
    live = {"latestCreatedRevision": "r-00002", "latestReadyRevision": "r-00001"}
    answer = fake_provider.invoke
    monkeypatch.setattr(fake_provider, "invoke", lambda name, a: live if "getService" in name else answer(name, a))
    ready = named(well(run_program(make_checkout(tmp_path / "checkout"), STACK, PROJECT)), "ready").inputs
    assert (ready["environment"]["CREATED_REVISION"], ready["environment"]["READY_REVISION"]) == ("r-00002", "r-00001")
    assert ready["triggers"][-2:] == ["r-00002", "r-00001"]


def sha256_of_zip(run: ProgramResult) -> str:
    return run.single("BucketObject").inputs["source"]["hash"]


@pytest.mark.parametrize("stack", ["gcp_cloudrun", "gcp_function"])
def test_a_closed_endpoint_is_asked_with_both_tokens(stack):
    ready = named(well(rehearse(stack, {"protectStatus": "true", "invoker": "none"}, token=True)), "ready")
    env = ready.unwrapped_inputs["environment"]
    assert (env["API_TOKEN"], env["IDENTITY_TOKEN"]) == (TOKEN, "gcloud") and TOKEN not in ready.cleartext


def test_what_google_fills_in_is_no_change(run):
    assert run.single(SERVICE).ignore_changes == ("scaling",)


@pytest.mark.parametrize("stack", ["gcp_cloudrun", "gcp_function"])
def test_a_budget_mails_before_and_when_the_project_exceeds_it(stack):
    run = well(rehearse(stack, BUDGET))
    budget = run.single("Budget")
    assert budget.inputs == {
        "billingAccount": "0123AB-4567CD-89EF01",
        "displayName": resource_name(stack.removeprefix("gcp_").removeprefix("cloud"), stack),
        "budgetFilter": {"projects": ["projects/123456789"], "calendarPeriod": "MONTH"},
        "amount": {"specifiedAmount": {"currencyCode": "USD", "units": "20"}},
        "thresholdRules": [
            {"thresholdPercent": 0.5, "spendBasis": "CURRENT_SPEND"},
            {"thresholdPercent": 0.9, "spendBasis": "CURRENT_SPEND"},
            {"thresholdPercent": 1, "spendBasis": "CURRENT_SPEND"},
            {"thresholdPercent": 1, "spendBasis": "FORECASTED_SPEND"},
        ],
    }
    assert "billingbudgets" in apis_before(run, budget)


def test_the_budgets_api_is_told_which_project_asks(run):
    """With credentials of a user it refuses who does not say; the rest asks as ever."""
    asked = well(rehearse(STACK, BUDGET))
    provider = asked.single("pulumi:providers:gcp")
    assert provider.inputs == {
        "project": "example-project",
        "billingProject": "example-project",
        "userProjectOverride": "true",
    }
    assert asked.single("Budget").provider.startswith(provider.urn)
    assert {r.name for r in asked.resources.values() if provider.urn in r.provider} == {"budget"}
    assert run.of_type("Budget") == run.of_type("pulumi:providers:gcp") == []


def test_old_images_are_deleted_and_the_newest_kept(run):
    repository = run.single("Repository").inputs
    keep, delete = repository["cleanupPolicies"]
    assert keep == {"id": "keep-newest", "action": "KEEP", "mostRecentVersions": {"keepCount": 5}}
    # every image has a tag, so a policy for untagged ones alone would delete none
    condition = {"tagState": "ANY", "olderThan": "604800s"}
    assert delete == {"id": "delete-old", "action": "DELETE", "condition": condition}
    assert repository["cleanupPolicyDryRun"] is False


def test_destroy_is_not_held_up(guarded):
    assert guarded.single(SERVICE).inputs["deletionProtection"] is False
    assert guarded.single("Secret").inputs["deletionProtection"] is False


@pytest.mark.parametrize(("settings", "reason"), NONSENSE.values(), ids=NONSENSE)
def test_invalid_setting_is_refused(settings, reason):
    assert reason in refused(rehearse(STACK, settings))


def test_a_project_has_to_be_named(tmp_path):
    message = refused(run_program(make_checkout(tmp_path / "checkout"), STACK))
    assert "pulumi config set gcp:project" in message
