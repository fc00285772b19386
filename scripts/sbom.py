"""Writes a software bill of materials per target and engine, beside the artifacts: .build/<target>-<engine>.cdx.json.

Usage: python -m scripts.sbom [FOLDER]

cyclonedx-py lists the packages of the lock that is shipped, with the sha256 of their files. The model, and for a
container its base image, are added here. What the platforms add themselves (Debian's packages on the VM and in the base
image, the systems of Heroku and of Cloud Functions) is not listed.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.artifact import BUILD_DIR, REPOSITORY, deployment_files
from infra.targets import TARGETS
from service.model import MODEL_JSON, WEIGHTS_OF
from service.settings import ENGINES

CONTAINERS = ("gcp_cloudrun", "heroku")  # Heroku's where its stack has `build: container`
BASE_IMAGE = re.compile(r"^FROM (?P<name>\w+):(?P<tag>\S+)@sha256:(?P<sha256>[0-9a-f]{64}) ", re.MULTILINE)

Component = dict[str, Any]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for target in TARGETS:
        for engine in ENGINES:
            path = folder / f"{target}-{engine}.cdx.json"
            path.write_text(json.dumps(bill_of_materials(target, engine), indent=1) + "\n", encoding="utf-8")
            print(path)


def bill_of_materials(target: str, engine: str) -> dict[str, Any]:
    """What a target is shipped for an engine, as a document of CycloneDX."""
    files = deployment_files(engine=engine, target=target)
    document = json.loads(_packages(files["requirements.txt"]))
    document["metadata"]["component"] = {"type": "application", "name": f"cloudtrial-{target}-{engine}"}
    document["components"] += [*_models(files, engine), *(_base_images() if target in CONTAINERS else ())]
    return document


@functools.cache
def _packages(lock: Path) -> str:
    """The lock's packages. Unvalidated: that takes seconds, and the whole is validated in a test."""
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "--no-validate", lock]
    return subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout


def _models(files: dict[str, Path], engine: str) -> Iterator[Component]:
    for member, path in files.items():
        if Path(member).name == MODEL_JSON:
            model = json.loads(path.read_text(encoding="utf-8"))
            sha256 = model["files"][WEIGHTS_OF[engine]]
            yield _component("machine-learning-model", model["name"], sha256[:12], sha256)


def _base_images() -> Iterator[Component]:
    for image in BASE_IMAGE.finditer((REPOSITORY / "service" / "Dockerfile").read_text(encoding="utf-8")):
        yield _component("container", image["name"], image["tag"], image["sha256"])


def _component(kind: str, name: str, version: str, sha256: str) -> Component:
    return {
        "bom-ref": f"{kind}:{name}",
        "type": kind,
        "name": name,
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / BUILD_DIR)
