"""What is shipped to a node: what a sender imports, and nothing else; the same archive for the same code."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from eval.load.nodes import code
from tests.conftest import ROOT

# Modules whose package has another name
PACKAGES = {"PIL": "pillow", "pydantic_core": "pydantic-core"}


def imported_libraries() -> set[str]:
    """The packages outside of this repository and the standard library that the shipped code imports anywhere."""
    names = set()
    for path, content in code.sender_files().items():
        for node in ast.walk(ast.parse(content)) if path.endswith(".py") else ():
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return {PACKAGES.get(name, name) for name in names - sys.stdlib_module_names - {"eval", "infra", "service"}}


def test_every_library_of_the_shipped_code_is_locked():
    locked = re.findall(r"^([a-z0-9-]+)==", (ROOT / code.LOCK).read_text(), re.MULTILINE)
    assert imported_libraries() <= set(locked)


def test_senders_have_the_versions_of_the_machine_that_runs():
    pin = re.compile(r"^([a-z-]+==[\w.]+)", re.MULTILINE)
    asked = pin.findall((ROOT / code.LOCK).with_suffix(".in").read_text())
    here = pin.findall((ROOT / "requirements-demo.txt").read_text())
    locked = pin.findall((ROOT / code.LOCK).read_text())
    assert asked and set(asked) <= set(here) and set(asked) <= set(locked)


def test_code_of_programs_engines_and_reports_is_not_shipped():
    shipped = code.sender_files()
    assert "eval/load/client.py" in shipped and "eval/load/workers/__main__.py" in shipped
    others = re.compile(r"infra/(aws|gcp|heroku)|service/engines|eval/(report|cli|run)/")
    assert not [path for path in shipped if others.match(path)]
    assert sum(map(len, shipped.values())) < 500_000


@pytest.mark.integration
def test_a_sender_finds_in_the_archive_all_that_it_imports(tmp_path):
    with zipfile.ZipFile(io.BytesIO(code.archive())) as packed:
        packed.extractall(tmp_path)
        modules = [path[:-3].replace("/", ".") for path in packed.namelist() if path.endswith(".py")]
    modules = [module.removesuffix(".__init__") for module in modules if not module.endswith("__main__")]
    script = f"import importlib; [importlib.import_module(name) for name in {modules}]"
    script += "; from eval.load.nodes.code import code_sha256; print(code_sha256())"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == code.code_sha256()


def test_archive_is_the_same_for_the_same_code():
    first = code.archive()
    code.archive.cache_clear()
    assert code.archive() == first


@pytest.mark.parametrize("change", ["content", "name"])
def test_checksum_is_of_names_and_contents(change, monkeypatch):
    before, files = code.code_sha256(), dict(code.sender_files())
    content = files.pop("eval/load/client.py")
    files |= {"eval/load/client.py": content + b"\n"} if change == "content" else {"eval/load/client2.py": content}
    monkeypatch.setattr(code, "sender_files", lambda: files)
    assert code.code_sha256() != before


def test_what_type_checkers_alone_read_is_not_shipped(tmp_path):
    for path, text in {
        "eval/__init__.py": "",
        "eval/load/__init__.py": "",
        "eval/load/workers/__init__.py": "",
        "eval/load/workers/__main__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import eval.a\n"
        "def f():\n    from eval import b\n",
        "eval/a.py": "",
        "eval/b.py": "",
        code.LOCK: "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = code.sender_files(Path(tmp_path))
    assert "eval/b.py" in found and "eval/a.py" not in found
