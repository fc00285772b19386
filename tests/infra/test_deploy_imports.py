"""What deploying imports, it installs: `pulumi up` and `make up` have the packages of infra/requirements.txt alone."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from eval.load.nodes.code import imported_modules
from infra.targets import TARGETS
from tests.conftest import ROOT

OWN = {"eval", "infra", "service", "store"}
ENTRIES = (
    "__main__.py",
    *(f"infra/{target}/__main__.py" for target in TARGETS),
    "infra/policy/__main__.py",
    "infra/leftovers/__main__.py",
    "infra/logs/__main__.py",
    "infra/preflight/prerequisites.py",
)
BY_NAME = {"infra/leftovers/__main__.py": ("aws", "google", "heroku")}  # imported where the cloud is known


def distribution(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def closure(requirements: Path) -> set[str]:
    """Every distribution to which the requirements lead, of those that are installed."""
    found, waiting = set(), [line for line in requirements.read_text().splitlines() if line and line[0] != "#"]
    while waiting:
        if (name := distribution(waiting.pop())) not in found:
            try:
                needs = metadata.requires(name) or []
            except metadata.PackageNotFoundError:  # of another system, or Python
                continue
            found.add(name)
            waiting += [need for need in needs if "extra ==" not in need]
    return found


def third_party(entry: str) -> dict[str, str]:
    """Module of another project -> the file of ours that imports it, from the entry on."""
    found, seen = {}, set()
    waiting = [ROOT / entry, *((ROOT / entry).parent / f"{name}.py" for name in BY_NAME.get(entry, ()))]
    while waiting:
        if (path := waiting.pop()) in seen:
            continue
        seen.add(path)
        for module in imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
            top = module.partition(".")[0]
            file = ROOT.joinpath(*module.split("."))
            if top in OWN:
                waiting += [place for place in (file.with_suffix(".py"), file / "__init__.py") if place.is_file()]
            elif top not in sys.stdlib_module_names:
                found[module] = str(path.relative_to(ROOT))
    return found


@pytest.mark.parametrize("entry", ENTRIES)
def test_deploying_imports_only_what_it_installs(entry):
    installed, owners = closure(ROOT / "infra" / "requirements.txt"), metadata.packages_distributions()
    assert "pulumi-aws" in installed and "numpy" not in installed and "flask" not in installed
    modules = third_party(entry)
    for module, file in modules.items():
        top = module.partition(".")[0]
        assert {name.lower().replace("_", "-") for name in owners.get(top, [])} & installed, f"{file}: {module}"
    assert modules or entry == "infra/logs/__main__.py"
