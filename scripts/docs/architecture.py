"""Draw each target's architecture from what the miniature engine records: docs/architecture.md, as Mermaid diagrams.

python -m scripts.docs.architecture            writes docs/architecture.md
python -m scripts.docs.architecture --check    exits with 1 when the page is not what the programs create now
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

from infra.artifact import REPOSITORY
from infra.targets import TARGETS
from tests.helpers.infra.program_runs import REQUIRED
from tests.offline_engine.engine import ProgramResult, Resource, run_program

PAGE = REPOSITORY / "docs" / "architecture.md"
HEAD = """# What each stack creates

Drawn by `.venv/bin/python -m scripts.docs.architecture` from what the miniature engine records of each program, with
the settings at their defaults. An arrow points from a resource to one that needs it; boxes group a provider's modules.
The APIs that a Google program enables are one node.
"""
API = "gcp:projects/service:Service"


def mermaid(run: ProgramResult) -> str:
    """The run's resources as a Mermaid flowchart, grouped by the provider's module."""
    resources = [r for r in run.resources.values() if r.id]  # the stack itself has no identifier
    groups: dict[str, list[Resource]] = {}
    for resource in resources:
        groups.setdefault(_module(resource), []).append(resource)
    lines = ["flowchart LR"]
    for module in sorted(groups):
        lines.append(f'  subgraph {_identifier(module)}["{module}"]')
        members = sorted(groups[module], key=lambda r: (r.type, r.name))
        lines += dict.fromkeys(f'    {_node(r)}["{_label(r, resources)}"]' for r in members)
        lines.append("  end")
    known = {r.urn: r for r in resources}
    arrows = {(_node(known[urn]), _node(r)) for r in resources for urn in _direct(r, known)}
    return "\n".join([*lines, *(f"  {a} --> {b}" for a, b in sorted(arrows))])


def _direct(resource: Resource, known: Mapping[str, Resource]) -> set[str]:
    """The direct dependencies of a resource: those that it does not have through another one as well."""
    needs = {urn for urn in resource.dependencies if urn in known}
    indirect = {deeper for urn in needs for deeper in _all_needs(known[urn], known)}
    return needs - indirect


def _all_needs(resource: Resource, known: Mapping[str, Resource]) -> set[str]:
    needs = {urn for urn in resource.dependencies if urn in known}
    return needs.union(*(_all_needs(known[urn], known) for urn in needs))


def _module(resource: Resource) -> str:
    """ "aws:ec2/instance:Instance" -> "aws ec2"."""
    if resource.type == API:
        return "gcp"
    provider, module, _ = resource.type.split(":")
    module = module.replace("vpc", "ec2")  # the rules of a security group
    return " ".join(dict.fromkeys((provider, module.partition("/")[0].replace("index", provider))))


def _kind(resource: Resource) -> str:
    return resource.type.rpartition(":")[2]


def _label(resource: Resource, resources: Sequence[Resource]) -> str:
    if resource.type == API:
        return "APIs<br/><i>" + "<br/>".join(sorted(r.name for r in resources if r.type == API)) + "</i>"
    return f"{_kind(resource)}<br/><i>{resource.name}</i>"


def _node(resource: Resource) -> str:
    if resource.type == API:
        return "gcp_apis"
    return _identifier(f"{_module(resource)} {_kind(resource)} {resource.name}")


def _identifier(text: str) -> str:
    return re.sub(r"\W+", "_", text)


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, target in TARGETS.items():
        run = run_program(REPOSITORY, name, REQUIRED[name])
        if run.exit_code:
            raise SystemExit(f"architecture: the program of {name} failed: {' '.join(run.errors)}")
        count = sum(bool(r.id) for r in run.resources.values())
        parts.append(f"## {target.title}: {count} resources\n\n```mermaid\n{mermaid(run)}\n```\n")
    return "\n".join(parts)


def main() -> None:
    new = page()
    if "--check" not in sys.argv[1:]:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(new, encoding="utf-8")
    elif not PAGE.exists() or new != PAGE.read_text(encoding="utf-8"):
        raise SystemExit("architecture: docs/architecture.md is out of date; run: python -m scripts.docs.architecture")


if __name__ == "__main__":
    main()
