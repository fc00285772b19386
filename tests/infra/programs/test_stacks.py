"""What the programs have in common: outputs, refusals, secrets, and that only real changes are changes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.artifact import REPOSITORY
from infra.models import read_model
from infra.targets import TARGETS
from service.settings import ENGINES
from tests.helpers.infra.program_runs import (
    REQUIRED,
    STACKS,
    TOKEN,
    WEB_STACKS,
    make_checkout,
    packed,
    refused,
    rehearse,
    well,
)
from tests.helpers.infra.small_bundles import write_bundle
from tests.offline_engine.engine import UNKNOWN, ProgramResult, diff, run_program

pytestmark = pytest.mark.integration

# What changes when one byte of the service does, and nothing else.
AFTER_ONE_BYTE = {
    "aws_ec2": {
        "BucketObjectv2 bundle": "replace",
        "RolePolicy vm": "update",  # it names the one object
        "Instance vm": "replace",
        "Command boots": "replace",
        "EipAssociation address": "replace",
        "Command ready": "replace",
    },
    "aws_sagemaker": {
        "Image image": "update",
        "Model cloudtrial-endpoint-ml-m5-large": "replace",
        "EndpointConfiguration cloudtrial-endpoint-ml-m5-large": "replace",
        "Endpoint endpoint-ml.m5.large": "update",
        "Command ready": "replace",
    },
    "gcp_cloudrun": {"Image image": "update", "Service service": "update", "Command ready": "replace"},
    "gcp_function": {
        "BucketObject source": "replace",
        "Function function": "update",
        "Command ready": "replace",
    },
    "heroku": {"Build build": "replace", "Command ready": "replace"},
}
NAMES = ("name", "bucket", "accountId", "repositoryId", "secretId")  # inputs that name a thing in the cloud
NAMED_WITHIN_ANOTHER = ("gcp:storage/bucketObject:BucketObject",)
NAMED_BY_THE_USER = ("heroku",)

every_stack = pytest.mark.parametrize("stack", STACKS)
every_web_stack = pytest.mark.parametrize("stack", WEB_STACKS)


def inputs_of(run: ProgramResult) -> dict[str, dict[str, Any]]:
    return {urn: resource.inputs for urn, resource in run.resources.items()}


def run_in(checkout: Path, stack: str) -> ProgramResult:
    return well(run_program(checkout, stack, REQUIRED[stack]))


@pytest.fixture(scope="module")
def moved(tmp_path_factory) -> Path:
    """The project in another folder, its files of another time, with litter of an earlier run."""
    checkout = make_checkout(tmp_path_factory.mktemp("moved") / "a folder" / "elsewhere")
    for path in checkout.rglob("*"):
        os.utime(path, (1, 1))
    litter = checkout / "service" / "__pycache__"
    litter.mkdir()
    (litter / "app.cpython-311.pyc").write_bytes(b"x")
    (checkout / ".build").mkdir()
    (checkout / ".build" / "leftover").write_text("x")
    return checkout


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Path:
    """The project with one byte more in a file of the service."""
    checkout = make_checkout(tmp_path_factory.mktemp("changed") / "checkout")
    with (checkout / "service" / "schema.py").open("a") as file:
        file.write("\n")
    return checkout


@pytest.mark.parametrize("engine", ENGINES)
@every_stack
def test_the_outputs_are_the_contract(stack, engine):
    run = well(rehearse(stack, {"engine": engine}))
    outputs = run.outputs
    bundle = read_model("resnet18-cifar10")
    contract = {
        "target": stack,
        "region": TARGETS[stack].region,
        "size": TARGETS[stack].size,
        "model": "resnet18-cifar10",
        "model_version": bundle.files[bundle.engine(engine).file][:12],
    }
    assert {key: outputs[key] for key in contract} == contract
    assert re.fullmatch(r"https?://[^/]+", outputs["url"])
    proven = [r.inputs["environment"]["MODEL_SHA256"] for r in run.of_type("Command") if "environment" in r.inputs]
    assert proven and set(proven) == {bundle.files[bundle.engine(engine).file]}  # what `up` ends with


@pytest.mark.parametrize("stack", ["aws_ec2", "aws_sagemaker", "heroku"])
def test_the_default_size_is_one_that_is_sold(stack):
    size = TARGETS[stack].size
    assert well(rehearse(stack, {"size": size})).outputs["size"] == size


@every_stack
@pytest.mark.slow
def test_preview_succeeds_with_unknown_cloud_values(stack):
    preview, up = well(rehearse(stack, preview=True)), well(rehearse(stack))
    assert preview.outputs.keys() == up.outputs.keys()
    assert {key: value for key, value in preview.outputs.items() if value != UNKNOWN}.items() <= up.outputs.items()
    assert UNKNOWN not in (preview.outputs["target"], preview.outputs["size"], preview.outputs["model_version"])
    assert set(preview.resources) == set(up.resources)
    assert UNKNOWN in json.dumps(inputs_of(preview))
    assert UNKNOWN not in json.dumps(inputs_of(up))


@every_stack
def test_every_resource_has_a_pinned_provider_and_is_destroyed(stack):
    resources = well(rehearse(stack, token=stack in WEB_STACKS)).resources.values()
    emptied = {each.urn for each in resources if each.inputs.get("forceDestroy")}  # buckets: they go with their objects
    for resource in resources:
        in_bucket = not emptied.isdisjoint(resource.dependencies) and "ucketObject" in resource.type
        assert not resource.protect and (in_bucket or not resource.retain_on_delete), resource.urn
        if not resource.type.startswith("pulumi:"):
            assert re.fullmatch(r"\d+\.\d+\.\d+", resource.provider_version), resource.urn


@every_stack
def test_commands_name_no_python_of_this_machine(stack):
    commands = well(rehearse(stack, token=stack in WEB_STACKS)).of_type("Command")
    assert commands and all(command.inputs["interpreter"] == ["python3", "-c"] for command in commands)


@pytest.mark.parametrize("preview", [False, True], ids=["up", "preview"])
@every_web_stack
def test_the_token_is_a_secret_all_the_way(stack, preview):
    run = well(rehearse(stack, token=True, preview=preview))
    holders = [r.name for r in run.resources.values() if TOKEN in json.dumps(r.unwrapped_inputs)]
    assert holders
    for resource in run.resources.values():
        assert TOKEN not in resource.cleartext, resource.urn
    assert TOKEN not in json.dumps(run.outputs) + json.dumps(run.invokes) + run.output


def test_the_token_is_a_secret_wherever_a_program_puts_it(tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    program = "import pulumi\nfrom infra.common import StackConfig\npulumi.export('token', StackConfig().api_token())"
    (checkout / "__main__.py").write_text(f"import sys\nsys.path.insert(0, '.')\n{program}\n")
    run = well(run_program(checkout, "heroku", secrets={"cloudtrial:apiToken": TOKEN}))
    assert TOKEN in json.dumps(run.outputs["token"]) and run.outputs["token"] != TOKEN


@every_stack
def test_a_stage_has_names_of_its_own(stack):
    def names(run: ProgramResult) -> set[tuple[str, str, str]]:
        named = [r for r in run.resources.values() if r.type not in NAMED_WITHIN_ANOTHER]
        return {(r.type, key, r.unwrapped_inputs[key]) for r in named for key in NAMES if key in r.unwrapped_inputs}

    plain, stage = (well(rehearse(name, token=stack in WEB_STACKS)) for name in (stack, f"{stack}-prod"))
    assert stage.outputs["target"] == stack
    assert names(plain)
    if stack not in NAMED_BY_THE_USER:
        assert names(plain) & names(stage) == set()


def test_an_unknown_stack_is_one_line_that_lists_the_valid_ones():
    message = refused(rehearse("azure"))
    assert "\n" not in message
    assert all(name in message for name in ("azure", *STACKS))


@pytest.mark.parametrize("stack", ["aws_ec2-Prod", "heroku-", "gcp_cloudrun-2nd"])
def test_a_stage_that_cannot_be_part_of_a_name_is_refused(stack):
    assert "1 to 10 of a-z" in refused(rehearse(stack))


def test_an_empty_setting_counts_as_unset():
    empty = {f"cloudtrial:{key}": "" for key in ("engine", "apiToken", "protectStatus", "allowedOrigins")}
    assert inputs_of(well(rehearse("heroku", empty))) == inputs_of(well(rehearse("heroku")))


@every_stack
def test_unread_setting_is_refused(stack):
    message = refused(rehearse(stack, {"engin": "torch"}))
    assert "cloudtrial:engin is not a setting of this stack" in message
    assert "engine" in message


@every_web_stack
def test_a_token_in_clear_is_refused_and_not_repeated(stack):
    message = refused(rehearse(stack, {"apiToken": "written-in-clear"}))
    assert "--secret" in message
    assert "written-in-clear" not in message


@pytest.mark.parametrize(
    ("token", "says"),
    [("short-token-15c", "has 15 characters and can be guessed"), ("two words, and more", "does not fit a header")],
    ids=["short", "spaces"],
)
def test_a_token_that_is_unusable_is_not_deployed(token, says):
    message = refused(rehearse("heroku", token=token))
    assert message.startswith("cloudtrial:apiToken ") and says in message and token not in message


@every_web_stack
def test_status_can_be_closed_with_the_token(stack):
    run = well(rehearse(stack, {"protectStatus": "true"}, token=True))
    (holder,) = [r.name for r in run.resources.values() if "PROTECT_STATUS" in json.dumps(r.unwrapped_inputs)]
    assert holder in ("vm", "app", "service", "function")


@every_web_stack
@pytest.mark.parametrize("origins", ["https://a.example,https://b.example:8443", "http://[::1]:3000,*"])
def test_pages_of_other_origins_are_allowed_by_a_setting(stack, origins):
    run = well(rehearse(stack, {"allowedOrigins": origins.replace(",", " ")}))
    (holder,) = [r.name for r in run.resources.values() if origins in json.dumps(r.unwrapped_inputs)]
    assert holder in ("vm", "app", "service", "function")


def test_an_origin_that_no_browser_sends_is_refused():
    message = refused(rehearse("heroku", {"allowedOrigins": "example.org/page"}))
    assert message.startswith("cloudtrial:allowedOrigins is refused by the service: ALLOWED_ORIGINS has")
    assert "'example.org/page'" in message


def test_closing_status_without_a_token_is_refused():
    assert "cloudtrial:protectStatus needs a token" in refused(rehearse("heroku", {"protectStatus": "true"}))


@every_stack
def test_an_unknown_engine_is_refused_with_those_of_the_model(stack):
    message = refused(rehearse(stack, {"engine": "abacus"}))
    assert message == "cloudtrial:engine: resnet18-cifar10 has no engine 'abacus'; it has torch, onnx"


@every_stack
def test_a_model_that_models_does_not_have_is_refused(stack):
    message = refused(rehearse(stack, {"model": "vgg61"}))
    assert message.startswith("cloudtrial:model: no model is called 'vgg61'; models/ has ")
    assert "resnet18-cifar10" in message


@pytest.fixture(scope="module")
def with_rows(tmp_path_factory) -> Path:
    """The project with one more model, which runs on ONNX Runtime alone."""
    checkout = make_checkout(tmp_path_factory.mktemp("rows") / "checkout")
    write_bundle(checkout / "models", "rows", {"onnx": b"small"}, tabular=True)
    return checkout


@every_stack
def test_the_model_of_the_setting_is_shipped_alone_and_named(stack, with_rows):
    run = well(run_program(with_rows, stack, REQUIRED[stack] | {"cloudtrial:model": "rows"}))
    assert {name for name in packed(with_rows, stack) if name.startswith("models/")} == {
        f"models/rows/{name}" for name in ("model.json", "network.onnx", "self_test.json")
    }
    version = hashlib.sha256(b"small").hexdigest()[:12]
    assert (run.outputs["model"], run.outputs["model_version"]) == ("rows", version)
    holders = [r.name for r in run.resources.values() if "models/rows" in json.dumps(r.unwrapped_inputs)]
    assert holders == {
        "aws_ec2": ["vm"],
        "aws_sagemaker": ["cloudtrial-endpoint-ml-m5-large"],
        "gcp_cloudrun": ["service"],
        "gcp_function": ["function"],
    }.get(stack, [])


def test_an_engine_that_the_model_lacks_is_refused_with_its_own(with_rows):
    config = REQUIRED["heroku"] | {"cloudtrial:model": "rows", "cloudtrial:engine": "torch"}
    message = refused(run_program(with_rows, "heroku", config))
    assert message == "cloudtrial:engine: rows has no engine 'torch'; it has onnx"


def test_engine_without_its_model_file_is_refused_at_once(tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    (checkout / "models" / "resnet18-cifar10" / "int8.onnx").unlink()
    assert well(run_in(checkout, "heroku"))
    config = REQUIRED["heroku"] | {"cloudtrial:engine": "onnx"}
    assert "resnet18-cifar10 lacks int8.onnx of its engine 'onnx'" in refused(run_program(checkout, "heroku", config))


@every_stack
def test_another_folder_another_time_and_litter_change_no_input(stack, moved):
    run = run_in(moved, stack)
    assert inputs_of(run) == inputs_of(well(rehearse(stack)))
    text = json.dumps(inputs_of(run))
    assert str(moved.parent) not in text and str(REPOSITORY) not in text
    assert f"{datetime.now(UTC):%Y-%m-%d}" not in text


@every_stack
def test_changed_service_byte_changes_only_what_carries_it(stack, changed):
    assert diff(well(rehearse(stack)), run_in(changed, stack)) == AFTER_ONE_BYTE[stack]
