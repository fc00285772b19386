"""A model store in a folder, for programs on the miniature engine: an s3:// or gs:// URL is that folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from store.model_store import ModelStore
from tests.helpers.infra.program_runs import make_checkout
from tests.helpers.infra.small_bundles import write_bundle

NAME, ALIAS = "net", "prod"
REFERENCE = f"{NAME}@{ALIAS}"
S3, GS = "s3://models-of-tests/clouds", "gs://models-of-tests/clouds"
URLS = {"aws_ec2": S3, "aws_sagemaker": S3, "gcp_cloudrun": GS, "gcp_function": GS, "heroku": S3}
# The clients of buckets have tests of their own: here a bucket is the folder .store of the checkout.
BUCKETS_ARE_FOLDERS = """

def open_backend(url: str) -> Backend:
    return FolderBackend(Path(__file__).resolve().parents[1] / ".store")
"""


def make_checkout_with_store(folder: Path) -> Path:
    """A checkout as programs need it, with a store in which net@prod points to a version."""
    checkout = make_checkout(folder)
    with (checkout / "store" / "backend.py").open("a", encoding="utf-8") as module:
        module.write(BUCKETS_ARE_FOLDERS)
    push(checkout / ".store", b"first")
    return checkout


def push(store: Path, weights: bytes, alias: str = ALIAS) -> str:
    """Push a bundle whose weights are these bytes, and let the alias point to it. Returns the version."""
    opened = ModelStore.open(store)
    with tempfile.TemporaryDirectory() as models:
        bundle = write_bundle(Path(models), NAME, {"torch": weights, "onnx": weights + b" in 8 bits"})
        version = opened.push(bundle).version
    opened.move_alias(NAME, alias, version, reason="a test")
    return version


def settings(stack: str, reference: str = REFERENCE) -> dict[str, str]:
    """The settings by which a stack serves the store's model."""
    return {"cloudtrial:modelStore": URLS[stack], "cloudtrial:model": reference}
