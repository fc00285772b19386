"""A model from a store: shipped by Heroku's and the function's programs, mounted by SageMaker's, else followed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from infra.aws_ec2.user_data import MODELS_FOLDER, SETTINGS_FILE, vm_files
from service.store_layout import version_of
from tests.helpers.infra.program_runs import REQUIRED, STACKS, make_checkout, packed, refused, rehearse, well
from tests.helpers.infra.stored_models import REFERENCE, make_checkout_with_store, push, settings
from tests.offline_engine.engine import ProgramResult, diff, run_program
from tests.offline_engine.policy_check import find_violations

pytestmark = pytest.mark.integration

SERVICE = "gcp:cloudrunv2/service:Service"
WITHOUT_MODEL, SHIPPING = ("aws_ec2", "aws_sagemaker", "gcp_cloudrun"), ("gcp_function", "heroku")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return make_checkout_with_store(tmp_path_factory.mktemp("stored") / "checkout")


def run(checkout: Path, stack: str, **more: str) -> ProgramResult:
    config = REQUIRED[stack] | settings(stack) | {f"cloudtrial:{key}": value for key, value in more.items()}
    return run_program(checkout, stack, config)


class Runs(dict[str, ProgramResult]):
    """Each stack with the store's model, run when it is first asked for."""

    def __init__(self, checkout: Path):
        self.checkout = checkout

    def __missing__(self, stack: str) -> ProgramResult:
        self[stack] = well(run(self.checkout, stack))
        return self[stack]


@pytest.fixture(scope="module")
def runs(checkout) -> Runs:
    return Runs(checkout)


def shipped(runs: Runs, stack: str) -> dict[str, bytes]:
    """What the stack's run has packed, by name."""
    assert runs[stack].exit_code == 0
    return packed(runs.checkout, stack)


@pytest.mark.parametrize("stack", STACKS)
def test_outputs_and_proof_are_of_the_aliass_version(stack, runs, checkout):
    outputs = runs[stack].outputs
    (manifest,) = (checkout / ".build" / "stored").glob(f"{outputs['store_version']}/net/model.json")
    assert outputs["model"] == "net" and version_of(manifest.read_bytes()) == outputs["store_version"]
    sha256 = json.loads(manifest.read_bytes())["files"]["weights.safetensors"]
    assert outputs["model_version"] == sha256[:12]
    proofs = [each.inputs["environment"] for each in runs[stack].of_type("Command") if "environment" in each.inputs]
    assert proofs and {proof["MODEL_SHA256"] for proof in proofs} == {sha256}


@pytest.mark.parametrize("stack", STACKS)
def test_programs_with_a_store_keep_every_policy(stack, runs):
    assert find_violations(runs[stack].resources.values()) == []


@pytest.mark.parametrize("stack", SHIPPING)
def test_the_pulled_version_is_shipped_where_models_lie(stack, runs):
    files = shipped(runs, stack)
    assert version_of(files["models/net/model.json"]) == runs[stack].outputs["store_version"]
    models = {name for name in files if name.startswith("models/")}
    assert models == {f"models/net/{name}" for name in ("model.json", "self_test.json", "weights.safetensors")}
    assert files["models/net/weights.safetensors"] == b"first"
    assert not any(name.startswith("store/") for name in files)


@pytest.mark.parametrize("stack", WITHOUT_MODEL)
def test_what_follows_or_mounts_a_store_ships_no_model(stack, runs):
    names = shipped(runs, stack)
    assert [name for name in names if name.startswith("models/net")] == []
    assert ("store/model_store.py" in names) == (stack == "aws_ec2")  # a mounted bucket needs no client


@pytest.mark.parametrize("stack", STACKS)
def test_another_version_is_a_release_or_only_another_proof(stack, tmp_path):
    checkout = make_checkout_with_store(tmp_path / "checkout")
    before, same = well(run(checkout, stack)), well(run(checkout, stack))
    version = push(checkout / ".store", b"second")
    after = well(run(checkout, stack))
    assert diff(before, same) == {}
    assert after.outputs["store_version"] == version != before.outputs["store_version"]
    proofs = {"aws_ec2": ("boots", "ready"), "gcp_cloudrun": ("ready",)}
    released = {
        "aws_sagemaker": {
            "Model cloudtrial-endpoint-ml-m5-large": "replace",  # and no other image
            "EndpointConfiguration cloudtrial-endpoint-ml-m5-large": "replace",
            "Endpoint endpoint-ml.m5.large": "update",
            "Command ready": "replace",
        },
        "gcp_function": {"BucketObject source": "replace", "Function function": "update", "Command ready": "replace"},
        "heroku": {"Build build": "replace", "Command ready": "replace"},
    }
    expected = {f"Command {name}": "update" for name in proofs.get(stack, ())} | released.get(stack, {})
    assert diff(before, after) == expected


def test_a_pinned_version_is_shipped_whatever_the_alias_says(tmp_path):
    checkout = make_checkout_with_store(tmp_path / "checkout")
    pinned = push(checkout / ".store", b"pinned", "beta")
    config = REQUIRED["heroku"] | settings("heroku", f"net@{pinned}")
    assert well(run_program(checkout, "heroku", config)).outputs["store_version"] == pinned
    assert packed(checkout, "heroku")["models/net/weights.safetensors"] == b"pinned"


# The VM


def vm_settings(result: ProgramResult) -> dict[str, str]:
    files = yaml.safe_load(result.single("Instance").unwrapped_inputs["userData"])["write_files"]
    (text,) = [entry["content"] for entry in files if entry["path"] == SETTINGS_FILE]
    return dict(line.split("=", 1) for line in text.splitlines())


def test_the_vm_is_told_the_store_the_alias_and_its_folder(runs):
    told = vm_settings(runs["aws_ec2"])
    assert (told["STORE_URL"], told["MODEL"], told["MODEL_STORE"]) == (
        "s3://models-of-tests/clouds",
        REFERENCE,
        MODELS_FOLDER,
    )
    assert "MODEL_DIR" not in told
    files = shipped(runs, "aws_ec2")
    assert set(vm_files(https=False, follows_store=True)) <= set(files)
    assert b"obstore==" in files["requirements-store.txt"] and b"--hash=sha256:" in files["requirements-store.txt"]


def test_the_vms_role_reads_its_model_in_the_store_alone(runs):
    statements = json.loads(runs["aws_ec2"].single("RolePolicy").unwrapped_inputs["policy"])["Statement"]
    of_store = [each for each in statements if "models-of-tests" in json.dumps(each)]
    arn = "arn:aws:s3:::models-of-tests"
    assert of_store == [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{arn}/clouds/net/*"]},
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [arn],
            "Condition": {"StringLike": {"s3:prefix": ["clouds/net/*"]}},
        },
    ]


# SageMaker


def test_sagemaker_mounts_the_version_where_serve_looks(runs):
    result = runs["aws_sagemaker"]
    container = result.single("Model").inputs["primaryContainer"]
    (source,) = container["modelDataSource"]["s3DataSources"]
    version = result.outputs["store_version"]
    assert source == {
        "s3Uri": f"s3://models-of-tests/clouds/net/versions/{version}/",  # without the last / AWS refuses it
        "s3DataType": "S3Prefix",
        "compressionType": "None",
    }
    texts = {name: text for name, text in shipped(runs, "aws_sagemaker").items() if name.startswith("models/")}
    assert list(texts) == ["models/models.txt"] and b"/opt/ml/model" in texts["models/models.txt"]


def test_sagemakers_role_reads_the_versions_of_its_model_alone(runs):
    statements = json.loads(runs["aws_sagemaker"].single("RolePolicy").unwrapped_inputs["policy"])["Statement"]
    arn, every_key = "arn:aws:s3:::models-of-tests", "clouds/net/versions/*"
    assert [each for each in statements if "models-of-tests" in json.dumps(each)] == [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{arn}/{every_key}"]},
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [arn],
            "Condition": {"StringLike": {"s3:prefix": [every_key]}},
        },
    ]


@pytest.mark.parametrize(
    "changed", [{"size": "serverless-2048"}, {"modelStore": "gs://models-of-tests"}], ids=["serverless", "googles"]
)
def test_what_sagemaker_cannot_mount_is_in_its_image(changed, tmp_path):
    checkout = make_checkout_with_store(tmp_path / "checkout")
    result = well(run(checkout, "aws_sagemaker", **changed))
    assert result.single("Model").inputs["primaryContainer"].get("modelDataSource") is None
    files = packed(checkout, "aws_sagemaker")
    assert files["models/net/weights.safetensors"] == b"first" and "models/models.txt" not in files
    assert "s3:" not in result.single("RolePolicy").unwrapped_inputs["policy"]


# Cloud Run


def test_cloud_run_mounts_the_bucket_read_only(runs):
    template = runs["gcp_cloudrun"].single(SERVICE).inputs["template"]
    (volume,), (container,) = template["volumes"], template["containers"]
    options = ["implicit-dirs", "only-dir=clouds"]
    assert volume["gcs"] == {"bucket": "models-of-tests", "readOnly": True, "mountOptions": options}
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/mnt/models"}]
    env = {variable["name"]: variable.get("value") for variable in container["envs"]}
    assert (env["MODEL_STORE"], env["MODEL"], env["MODEL_POLL_S"]) == ("/mnt/models", REFERENCE, "30")
    assert "MODEL_DIR" not in env
    assert template["executionEnvironment"].endswith("GEN2")


def test_cloud_runs_account_may_read_the_bucket_before_it_runs(runs):
    result = runs["gcp_cloudrun"]
    grant = result.single("BucketIAMMember")
    (settled,) = [each for each in result.of_type("Command") if each.name == "grants-settled"]
    assert (grant.inputs["bucket"], grant.inputs["role"]) == ("models-of-tests", "roles/storage.objectViewer")
    assert grant.inputs["member"] == result.single("Account").outputs["member"]
    assert grant.urn in settled.dependencies and settled.urn in result.single(SERVICE).dependencies


def test_the_image_without_a_model_says_where_it_is(runs):
    models = {name: text for name, text in shipped(runs, "gcp_cloudrun").items() if name.startswith("models/")}
    assert list(models) == ["models/models.txt"] and b"MODEL_STORE" in models["models/models.txt"]


def test_a_store_at_its_buckets_root_needs_no_folder_of_it(tmp_path):
    checkout = make_checkout_with_store(tmp_path / "checkout")
    template = well(run(checkout, "gcp_cloudrun", modelStore="gs://root")).single(SERVICE).inputs["template"]
    assert template["volumes"][0]["gcs"]["mountOptions"] == ["implicit-dirs"]
    policy = well(run(checkout, "aws_ec2", modelStore="s3://root")).single("RolePolicy").unwrapped_inputs["policy"]
    assert '"arn:aws:s3:::root/net/*"' in policy and '"net/*"' in policy


# What is refused


@pytest.mark.parametrize(
    ("stack", "changed", "says"),
    [
        pytest.param("heroku", {"model": "net@gamma"}, "no alias 'gamma'", id="no-such-alias"),
        pytest.param("heroku", {"model": "nest@prod"}, "no model is called 'nest'", id="no-such-model"),
        pytest.param("heroku", {"model": "net@0123456789ab"}, "no version 0123456789ab", id="no-such-version"),
        pytest.param("heroku", {"model": "net"}, "use NAME@ALIAS or NAME@VERSION", id="no-alias"),
        pytest.param("heroku", {"model": ""}, "cloudtrial:modelStore needs cloudtrial:model", id="no-model"),
        pytest.param("heroku", {"modelStore": ""}, "set cloudtrial:modelStore", id="no-store"),
        pytest.param("aws_ec2", {"modelStore": "gs://a-bucket"}, "s3://BUCKET/PREFIX by itself", id="vm-of-google"),
        pytest.param("aws_ec2", {"modelStore": "/srv/models"}, "s3://BUCKET/PREFIX by itself", id="vm-of-a-folder"),
        pytest.param("aws_ec2", {"modelStore": "s3://a b"}, "s3://BUCKET/PREFIX by itself", id="no-bucket"),
        pytest.param(
            "gcp_cloudrun", {"modelStore": "s3://a-bucket"}, "gs://BUCKET/PREFIX by itself", id="mount-of-aws"
        ),
        pytest.param(
            "gcp_cloudrun", {"vcpus": "0.5", "concurrency": "1"}, "mounted with 1 or more", id="first-generation"
        ),
    ],
)
def test_store_or_alias_that_cannot_be_had_is_one_line(stack, changed, says, checkout):
    message = refused(run(checkout, stack, **changed))
    assert says in message and "\n" not in message.strip()
    assert message.startswith("cloudtrial:")


@pytest.mark.parametrize("stack", STACKS)
def test_without_a_store_nothing_of_it_is_there(stack):
    result = well(rehearse(stack))
    assert "store_version" not in result.outputs
    text = json.dumps([each.unwrapped_inputs for each in result.resources.values()])
    assert not any(word in text for word in ("MODEL_STORE", "STORE_URL=", "volumes", "BucketIAMMember"))
    assert "classifier-model" not in json.dumps(list(vm_files(https=True)))


def test_the_store_may_be_a_folder_where_the_model_is_shipped(tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    version = push(tmp_path / "models of mine", b"first")
    config = {"cloudtrial:modelStore": str(tmp_path / "models of mine"), "cloudtrial:model": REFERENCE}
    result = well(run_program(checkout, "gcp_function", REQUIRED["gcp_function"] | config))
    assert result.outputs["store_version"] == version
