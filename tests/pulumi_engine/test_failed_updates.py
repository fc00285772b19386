"""Updates that fail on the way, and the `up` after them, under the real pulumi."""

from __future__ import annotations

import pytest

from tests.helpers.infra.program_runs import TOKEN
from tests.helpers.infra.stored_models import make_checkout_with_store, settings
from tests.pulumi_engine.fake_cloud import CloudError, Effect, Existing, FakeCloud, UnreadyError
from tests.pulumi_engine.pulumi_project import PulumiProject, failed, passed, pulumi_project

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.pulumi]

UP = ("up", "--yes", "--skip-preview")
SIZE, LARGER, SERVERLESS = "ml.m5.large", "ml.m5.xlarge", "serverless-2048"  # of SageMaker; the first by default
CLOUD_RUN = "gcp:cloudrunv2/service:Service"
CONFIGURATION = "aws:sagemaker/endpointConfiguration:EndpointConfiguration"
MODEL = "aws:sagemaker/model:Model"
KINDS = ("Model", "EndpointConfiguration", "Endpoint")


@pytest.fixture
def ec2(tmp_path):
    with pulumi_project("aws_ec2", tmp_path, FakeCloud()) as project:
        project.up()
        project.cloud.log.clear()
        project.set("cloudtrial:allowedOrigins", "https://example.org")  # in the user data: another VM
        yield project


@pytest.fixture
def cloud_run(tmp_path):
    with pulumi_project("gcp_cloudrun", tmp_path, FakeCloud()) as project:
        project.set("cloudtrial:apiToken", TOKEN, secret=True)
        project.up()
        project.cloud.log.clear()
        yield project


@pytest.fixture
def sagemaker(tmp_path):
    with pulumi_project("aws_sagemaker", tmp_path, FakeCloud()) as project:
        project.cloud.effects |= refuses_to_delete_what_is_used(project.cloud)
        project.up()
        project.cloud.log.clear()
        yield project


@pytest.fixture
def sagemaker_with_store(tmp_path):
    """An endpoint of instances, into which the store's model is mounted."""
    source = make_checkout_with_store(tmp_path / "source")
    with pulumi_project("aws_sagemaker", tmp_path, FakeCloud(), source) as project:
        project.cloud.effects |= refuses_to_delete_what_is_used(project.cloud)
        for key, value in settings("aws_sagemaker").items():
            project.set(key, value)
        project.up()
        project.cloud.log.clear()
        yield project


def refuses_to_delete_what_is_used(cloud: FakeCloud) -> dict[str, Effect]:
    """AWS's documentation forbids it of the configuration by which an endpoint serves; its model is held to it, too."""

    def names_used(kind: str) -> set[str]:
        if kind == CONFIGURATION:
            return {endpoint.plain_inputs["endpointConfigName"] for endpoint in cloud.of_type("Endpoint")}
        used = [each for each in cloud.of_type("EndpointConfiguration") if each.id in names_used(CONFIGURATION)]
        return {each.plain_inputs["productionVariants"][0]["modelName"] for each in used}

    def refuse(operation: str, resource: Existing) -> None:
        if operation == "delete" and resource.id in names_used(resource.type):
            raise CloudError(f"{resource.id} is in use")

    return {CONFIGURATION: refuse, MODEL: refuse}


def test_old_vm_goes_after_everything_else_has_passed(ec2):
    vm = f"Instance {ec2.cloud.of_type('Instance')[0].name}"
    ec2.up()
    log = ec2.cloud.log
    created = [log.index(f"create {name}") for name in (vm, "EipAssociation address", "Command ready")]
    deleted = [log.index(f"delete {name}") for name in ("Command ready", "EipAssociation address", vm)]
    assert created + deleted == sorted(created + deleted) and len(ec2.cloud.of_type("Instance")) == 1


def test_failed_up_keeps_the_old_vm_and_the_next_goes_on(ec2):
    old = ec2.cloud.of_type("Instance")[0].id
    ec2.cloud.failures["create Command ready"] = "not ready"
    for _ in range(2):
        assert "not ready" in failed(ec2.make(*UP))
        assert ec2.cloud.of_type("Instance")[0].id == old
        assert len(ec2.cloud.of_type("Instance")) == 2  # the second `up` makes no third
    ec2.cloud.failures.clear()
    assert "+- Command ready" in passed(ec2.make("preview")).steps
    failed(ec2.make("preview", "--expect-no-changes"))
    ec2.up()
    assert old not in [vm.id for vm in ec2.cloud.of_type("Instance")] and len(ec2.cloud.of_type("Instance")) == 1
    passed(ec2.make("preview", "--expect-no-changes"))


def test_newer_image_alone_changes_nothing_but_a_new_vm_has_it(ec2):
    ec2.up()
    ec2.cloud.answers["aws:ssm/getParameter:getParameter"] = {"value": "ami-newer"}
    passed(ec2.make("preview", "--expect-no-changes"))
    passed(ec2.make(*UP, "--replace", ec2.urn(f"Instance::{ec2.cloud.of_type('Instance')[0].name}")))
    (vm,) = ec2.cloud.of_type("Instance")
    assert vm.inputs["ami"] == "ami-newer"


@pytest.mark.parametrize(
    ("target", "kind", "name", "failure"),
    [
        ("aws_ec2", "aws:s3/bucketObjectv2:BucketObjectv2", "key", "create Command ready"),
        ("gcp_function", "gcp:storage/bucketObject:BucketObject", "name", "update Function function"),
    ],
)
def test_what_is_shipped_again_after_a_failed_update_stays(target, kind, name, failure, tmp_path):
    """Objects of one name are one object: whichever of them is deleted, it is gone."""
    with pulumi_project(target, tmp_path, FakeCloud()) as project:
        stored: set[str] = set()

        def store(operation: str, resource: Existing) -> None:
            (stored.discard if operation == "delete" else stored.add)(resource.plain_inputs[name])

        project.cloud.effects[kind] = store
        project.up()
        (shipped,) = stored
        project.set("cloudtrial:engine", "onnx")
        project.cloud.failures[failure] = "not ready"
        assert "not ready" in failed(project.make(*UP))
        project.cloud.failures.clear()
        project.set("cloudtrial:engine", "torch")
        project.up()
        assert shipped in stored


def test_unready_revision_is_asked_again_without_a_change(cloud_run):
    def unready(operation, resource):
        raise UnreadyError("the revision is not ready")

    cloud_run.set("cloudtrial:allowedOrigins", "https://example.org")
    cloud_run.cloud.effects[CLOUD_RUN] = unready
    assert "the revision is not ready" in failed(cloud_run.make(*UP))
    assert "~ Service service" in passed(cloud_run.make("preview")).steps
    cloud_run.cloud.effects.clear()
    cloud_run.up()
    passed(cloud_run.make("preview", "--expect-no-changes"))


def test_failed_update_keeps_the_old_token_for_the_old_revision(cloud_run):
    cloud_run.set("cloudtrial:apiToken", TOKEN + "-2", secret=True)
    cloud_run.cloud.failures["update Service service"] = "no"
    failed(cloud_run.make(*UP))
    assert len(cloud_run.cloud.of_type("SecretVersion")) == 2
    cloud_run.cloud.failures.clear()
    cloud_run.up()
    log = cloud_run.cloud.log
    assert log.index("update Service service") < log.index("delete SecretVersion api-token")
    assert len(cloud_run.cloud.of_type("SecretVersion")) == 1


def test_endpoint_goes_over_before_what_it_had_is_deleted(sagemaker):
    sagemaker.set("cloudtrial:revision", "r2")
    sagemaker.up()
    log = sagemaker.cloud.log
    name = "cloudtrial-endpoint-ml-m5-large"
    steps = [f"create Model {name}", f"create EndpointConfiguration {name}", f"update Endpoint endpoint-{SIZE}",
             "create Command ready", f"delete EndpointConfiguration {name}", f"delete Model {name}"]  # fmt: skip
    assert [log.index(step) for step in steps] == sorted(log.index(step) for step in steps)
    assert not [step for step in log if step.startswith(("delete Endpoint ", "create Endpoint "))]
    passed(sagemaker.make("preview", "--expect-no-changes"))


@pytest.mark.parametrize("step", [f"update Endpoint endpoint-{SIZE}", "create Command ready"])
def test_failed_endpoint_keeps_what_it_had_and_up_goes_on(sagemaker, step):
    """Also where SageMaker has rolled back: the proof fails, and `up` asks again."""
    sagemaker.set("cloudtrial:revision", "r2")
    sagemaker.cloud.failures[step] = "did not pass the ping health check"
    for _ in range(2):
        assert "did not pass the ping health check" in failed(sagemaker.make(*UP))
        kept = [len(sagemaker.cloud.of_type(kind)) for kind in KINDS]
        assert kept == [2, 2, 1]  # the second `up` makes no third
    sagemaker.cloud.failures.clear()
    sagemaker.up()
    kept = [len(sagemaker.cloud.of_type(kind)) for kind in KINDS]
    assert kept == [1, 1, 1]
    passed(sagemaker.make("preview", "--expect-no-changes"))


@pytest.mark.parametrize("step", [f"update Endpoint endpoint-{SIZE}", "create Command ready"])
@pytest.mark.parametrize(("setting", "before", "after"), [("revision", "r1", "r2"), ("minInstances", "1", "2")])
def test_one_may_go_back_from_an_endpoint_that_fails(sagemaker, step, setting, before, after):
    """What it had waits for its deletion under its name, and the same is made again."""
    sagemaker.set("cloudtrial:revision", "r1")
    sagemaker.up()
    sagemaker.set(f"cloudtrial:{setting}", after)
    sagemaker.cloud.failures[step] = "did not pass the ping health check"
    failed(sagemaker.make(*UP))
    sagemaker.cloud.failures.clear()
    sagemaker.set(f"cloudtrial:{setting}", before)
    sagemaker.up()
    (model,), (configuration,), (endpoint,) = map(sagemaker.cloud.of_type, KINDS)
    assert endpoint.plain_inputs["endpointConfigName"] == configuration.id
    (variant,) = configuration.plain_inputs["productionVariants"]
    assert (variant["modelName"], variant["initialInstanceCount"]) == (model.id, 1)
    assert model.plain_inputs["primaryContainer"]["environment"]["REVISION"] == "r1"
    passed(sagemaker.make("preview", "--expect-no-changes"))


def test_another_size_is_proven_before_the_old_endpoint_goes(sagemaker):
    sagemaker.set("cloudtrial:size", LARGER)
    sagemaker.up()
    log = sagemaker.cloud.log
    steps = [f"create Endpoint endpoint-{LARGER}", f"create Target instances-{LARGER}", "create Command ready",
             f"delete Target instances-{SIZE}", f"delete Endpoint endpoint-{SIZE}"]  # fmt: skip
    assert [log.index(step) for step in steps] == sorted(log.index(step) for step in steps)
    assert not [step for step in log if step.startswith("update ")]
    assert len(sagemaker.cloud.of_type("Endpoint")) == 1
    passed(sagemaker.make("preview", "--expect-no-changes"))


@pytest.mark.parametrize("step", [f"create Endpoint endpoint-{LARGER}", "create Command ready"])
def test_one_may_go_back_from_a_size_that_fails(sagemaker, step):
    """Such as from one whose quota is 0: the old endpoint is as it was, and serves."""
    goes_back_from(sagemaker, LARGER, step)


@pytest.mark.parametrize("step", [f"create Endpoint endpoint-{SERVERLESS}", "create Command ready"])
def test_one_may_go_back_to_instances_with_a_mounted_model(sagemaker_with_store, step):
    """Serverless has the model in its image: another model, beside the one that is mounted."""
    goes_back_from(sagemaker_with_store, SERVERLESS, step)


def goes_back_from(project: PulumiProject, size: str, step: str) -> None:
    kinds = ("Endpoint", "EndpointConfiguration", "Model", "LogGroup", "RolePolicy", "Target")
    before = [[(each.name, each.id) for each in project.cloud.of_type(kind)] for kind in kinds]
    project.set("cloudtrial:size", size)
    project.cloud.failures[step] = "ResourceLimitExceeded"
    assert "ResourceLimitExceeded" in failed(project.make(*UP))
    changed = [each for each in project.cloud.log if each.startswith(("update ", "delete "))]
    assert changed in ([], ["update Image image"])
    project.cloud.failures.clear()
    project.set("cloudtrial:size", SIZE)
    project.up()
    assert before == [[(each.name, each.id) for each in project.cloud.of_type(kind)] for kind in kinds]
    passed(project.make("preview", "--expect-no-changes"))
