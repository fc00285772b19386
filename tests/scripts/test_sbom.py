"""The bills of materials of what is shipped: complete by the locks, and valid by CycloneDX's own schema."""

from __future__ import annotations

import json
import re

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from infra.artifact import REPOSITORY, deployment_files
from infra.targets import TARGETS
from scripts import sbom
from service.settings import ENGINES


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """(target, engine) -> the text of its document."""
    folder = tmp_path_factory.mktemp("sbom")
    sbom.main(folder)
    written = {path.name: path.read_text() for path in folder.iterdir()}
    return {(target, engine): written.pop(f"{target}-{engine}.cdx.json") for target in TARGETS for engine in ENGINES}


def test_each_document_lists_its_locks_packages_and_hashes(documents):
    for (target, engine), text in documents.items():
        lock = deployment_files(engine=engine, target=target)["requirements.txt"].read_text()
        packages = [each for each in json.loads(text)["components"] if each["type"] == "library"]
        listed = {(each["name"], each["version"]) for each in packages}
        assert listed == set(re.findall(r"^([\w-]+)==([\w.+]+)", lock, re.MULTILINE))
        urls = [url for each in packages for url in each["externalReferences"]]
        hashes = {found["content"] for url in urls for found in url["hashes"]}
        assert hashes == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))


def test_each_document_names_its_model_and_containers_their_base(documents):
    dockerfile = (REPOSITORY / "service" / "Dockerfile").read_text()
    model = json.loads((REPOSITORY / "models" / "resnet18-cifar10" / "model.json").read_text())
    for (target, engine), text in documents.items():
        document = json.loads(text)
        assert document["metadata"]["component"]["name"] == f"cloudtrial-{target}-{engine}"
        others = {each["type"]: each for each in document["components"] if each["type"] != "library"}
        assert others["machine-learning-model"]["hashes"][0]["content"] in model["files"].values()
        assert ("container" in others) == (target in ("gcp_cloudrun", "heroku"))
        if base := others.get("container"):
            assert f"FROM python:{base['version']}@sha256:{base['hashes'][0]['content']} " in dockerfile


def test_document_is_valid_by_cyclonedxs_schema(documents):
    text = documents["gcp_cloudrun", "onnx"]  # it has every kind of component; others would take seconds each
    assert json.loads(text)["specVersion"] == "1.6"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
