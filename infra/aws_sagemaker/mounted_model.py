"""A version in a store on S3, as SageMaker mounts it at /opt/ml/model: where it lies, and who may read it. Pure."""

from __future__ import annotations

from typing import Any

from infra.artifact import REPOSITORY
from infra.stored_model import StoredModel
from service.store_layout import version_dir

IN_PLACE_OF_MODELS = {"models/models.txt": REPOSITORY / "infra" / "aws_sagemaker" / "models.txt"}  # the image copies it


def mounted_version(stored: StoredModel | None, *, serverless: bool) -> StoredModel | None:
    """The store's model where SageMaker mounts it; None where the image has it: AWS mounts no folder of S3 into a
    serverless endpoint, and none of another place."""
    return stored if stored and stored.url.startswith("s3://") and not serverless else None


def version_uri(stored: StoredModel) -> str:
    """The version's folder in the bucket."""
    folder = version_dir(stored.reference.name, stored.version)
    return f"s3://{'/'.join(filter(None, (stored.bucket, stored.prefix, folder)))}/"


def read_statements(stored: StoredModel) -> list[dict[str, Any]]:
    """Of a role's policy: it reads the versions of that one model."""
    every_key, bucket = f"{stored.key_prefix}versions/*", f"arn:aws:s3:::{stored.bucket}"
    listed = {"StringLike": {"s3:prefix": [every_key]}}
    return [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{bucket}/{every_key}"]},
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [bucket], "Condition": listed},
    ]
