"""Serves the rules to the pulumi program until that ends. Tests run them without it, on the offline engine."""

import sys
from pathlib import Path

from pulumi_policy import PolicyPack

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from infra.policy.rules import POLICIES

PolicyPack("cloudtrial", POLICIES)
