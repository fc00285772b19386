"""Settings for a run of each program on the miniature engine: what it requires, with made-up values."""

from __future__ import annotations

from collections.abc import Mapping

REQUIRED_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "aws_ec2": {"aws:region": "us-east-1"},
    "gcp_cloudrun": {"gcp:project": "example-project"},
    "gcp_function": {"gcp:project": "example-project"},
    "heroku": {"cloudtrial:appName": "cloudtrial-example"},
}
