"""The code that a sender needs: its module, what that imports of this repository, and the lock of its libraries.

The same function finds it in a checkout and in what was shipped to a node, so the two checksums can be compared.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SENDER_MODULE = "eval.load.workers"
STARTS = (f"{SENDER_MODULE}.__main__", "eval.load.nodes.code")
LOCK = "eval/load/nodes/requirements-sender.txt"


@functools.cache
def sender_files(root: Path = ROOT) -> dict[str, bytes]:
    """Path below the root -> content, sorted by path."""
    found, waiting = {LOCK: (root / LOCK).read_bytes()}, list(STARTS)
    while waiting:
        name = waiting.pop()
        path = _path_of(name, root)
        if path is None or path in found:
            continue
        found[path] = (root / path).read_bytes()
        waiting += [name.rpartition(".")[0], *imported_modules(ast.parse(found[path]))]
    return dict(sorted(found.items()))


def code_sha256() -> str:
    """The checksum of names and contents, by which a node's code is the run's."""
    digest = hashlib.sha256()
    for path, content in sender_files().items():
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def lock_sha256() -> str:
    """The checksum of the libraries' lock: the environment of one is not that of another."""
    return hashlib.sha256(sender_files()[LOCK]).hexdigest()


@functools.cache
def archive() -> bytes:
    """The code as a zip file, the same for the same code."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for path, content in sender_files().items():
            packed.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _path_of(module: str, root: Path) -> str | None:
    """Where a module of this repository is; None for any other."""
    base = module.replace(".", "/")
    return next((path for path in (f"{base}/__init__.py", f"{base}.py") if (root / path).is_file()), None)


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Every name that may be a module, wherever it is imported, but for what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imported_modules(node)
