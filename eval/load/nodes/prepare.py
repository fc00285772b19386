"""Makes machines ready to send: over ssh, their code and libraries are put where they are missing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from eval.errors import EvalError
from eval.load.nodes import setup_on_node
from eval.load.nodes.code import LOCK, SENDER_MODULE, archive, code_sha256, lock_sha256
from eval.load.nodes.destinations import Node
from eval.load.nodes.ssh import MISSING, explain_end, ssh_argv, ssh_program
from eval.validation import MAX_SHOWN_CHARS, printable

SENDER_PYTHON = "CLOUDTRIAL_SENDER_PYTHON"  # environment variable: a Python of the nodes that has the libraries
SAY_INTERVAL_S = 10.0  # so often people are told of an installation
SILENCE_S = 8.0  # in which a node says something, even while it installs
OLDEST_PYTHON = (3, 11)
NOT_OURS = (
    "before anything else its shell prints {!r}, which would be read as a message: let its start-up files (.bashrc and"
    " others) print nothing where there is no terminal"
)

Say = Callable[[str], None]


def prepare_nodes(nodes: Sequence[Node], say: Say) -> dict[Node, list[str]]:
    """Make them ready, all at once. Returns what starts a sender on each: an argv that speaks on stdin and stdout.

    say: is told how far an installation is. Raises EvalError, in one line, as soon as one of them can't be used.
    """
    return asyncio.run(_prepare_all(nodes, say))


async def _prepare_all(nodes: Sequence[Node], say: Say) -> dict[Node, list[str]]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {node: group.create_task(_prepare(node, say)) for node in nodes}
    except* EvalError as errors:
        raise errors.exceptions[0] from None
    return {node: task.result() for node, task in tasks.items()}


async def _prepare(node: Node, say: Say) -> list[str]:
    with tempfile.TemporaryFile() as order, tempfile.TemporaryFile() as errors:
        program = Path(setup_on_node.__file__).read_bytes()
        order.write(program + json.dumps(_order()).encode() + b"\n" + archive())
        order.seek(0)
        try:
            process = await asyncio.create_subprocess_exec(
                *ssh_argv(node, f"/bin/sh -c {shlex.quote(_start_python(len(program)))}"),
                stdin=order, stdout=asyncio.subprocess.PIPE, stderr=errors,
                start_new_session=True,  # Ctrl-C is for the run, which ends it
            )  # fmt: skip
        except OSError as error:
            raise EvalError(
                f"--cluster needs ssh, and {ssh_program()[0]} cannot be started: {error.strerror}; on Debian and "
                "Ubuntu: apt-get install openssh-client"
            ) from None
        try:
            ready = await _listen(node, process, say)
            if ready is None:
                code = await asyncio.wait_for(process.wait(), SILENCE_S)
                raise EvalError(f"{node.name}: {explain_end(node, code, _text(errors))}")
        except TimeoutError:
            raise EvalError(f"{node.name}: it has not answered for {SILENCE_S:.0f} s") from None
        finally:
            await _end(process)
    return ssh_argv(node, _start_sender(*ready))


async def _listen(node: Node, process: asyncio.subprocess.Process, say: Say) -> tuple[str, str] | None:
    """Where the node's Python and code are; None if it ends without saying so."""
    assert process.stdout
    said_at = -SAY_INTERVAL_S
    while line := await asyncio.wait_for(_line_of(process.stdout), SILENCE_S):
        message = _read(line)
        if message is None:
            text = printable(line.decode(errors="replace").strip())[:MAX_SHOWN_CHARS]
            raise EvalError(f"{node.name}: {NOT_OURS.format(text)}")
        if error := message.get("error"):
            raise EvalError(f"{node.name}: {error}")
        if message.get("python") and message.get("code"):
            return message["python"], message["code"]
        progress, now = message.get("progress"), time.monotonic()
        if progress and now - said_at >= SAY_INTERVAL_S:
            said_at = now
            say(f"{node.name}: {progress}")
    return None


async def _line_of(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:  # longer than any of ours
        return b"a line of more than 64 KiB"


def _read(line: bytes) -> dict[str, str] | None:
    """The printable strings of a message; None for what is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not all(isinstance(value, str) for value in message.values()):
        return None
    return {key: printable(value)[: 10 * MAX_SHOWN_CHARS] for key, value in message.items()}


def _order() -> setup_on_node.Order:
    libraries = None if os.environ.get(SENDER_PYTHON) else f"libraries-{lock_sha256()[:16]}"
    return {"code_sha256": code_sha256(), "archive_bytes": len(archive()), "lock": LOCK, "libraries": libraries}


def _start_python(program_bytes: int) -> str:
    """The shell's part: find a Python, and let it read the program from stdin. It has no quotes of the outer kind."""
    own = os.environ.get(SENDER_PYTHON)
    names = [own] if own else [f"python3.{sys.version_info.minor}", "python3"]
    oldest = ".".join(map(str, OLDEST_PYTHON))
    advice = f"correct {SENDER_PYTHON}" if own else "on Debian and Ubuntu: apt-get install python3 python3-venv"
    return (
        f"for p in {shlex.join(names)}; do"
        f' "$p" -c "import sys; sys.exit(sys.version_info < {OLDEST_PYTHON})" 2>/dev/null &&'
        f' exec "$p" -c "import sys; exec(sys.stdin.buffer.read({program_bytes}))"; done;'
        f' echo "it needs Python {oldest} or later, and $p says: $("$p" -V 2>&1); {advice}" >&2; exit {MISSING}'
    )


def _start_sender(python: str, code: str) -> str:
    """Not by exec: a shell that stays says which signal has ended the sender."""
    script = f'cd {shlex.quote(code)} && {shlex.quote(python)} -m {SENDER_MODULE} "$@"; exit $?'
    return f"/bin/sh -c {shlex.quote(script)} sender"


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it, and what it has started, such as a ProxyCommand."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and the loop has not heard of it yet
            os.killpg(process.pid, signal.SIGKILL)
    await process.communicate()  # which closes the pipe, too


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
