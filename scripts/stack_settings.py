"""The required settings of each program, with made-up values, for runs on the miniature engine."""

from __future__ import annotations

from collections.abc import Mapping

REQUIRED_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "aws_ec2": {"aws:region": "us-east-1"},
    "aws_sagemaker": {"aws:region": "us-east-1"},
    "gcp_cloudrun": {"gcp:project": "example-project"},
    "gcp_function": {"gcp:project": "example-project"},
    "heroku": {"cloudtrial:appName": "cloudtrial-example"},
}
