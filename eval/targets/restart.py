"""Restart methods of endpoints: of a twin's process, or by a command that deploys again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

from eval.errors import EndpointError
from infra.targets import Target

if TYPE_CHECKING:
    from infra.local.running.twin import Twin
from eval.errors import RestartFailed

ROOT = Path(__file__).resolve().parents[2]  # where the commands run, and Pulumi's project is
REMOTE_READY_TIMEOUT_S = 600.0  # from the end of a command until /readyz succeeds
COMMAND_TIMEOUT_S = 1800.0  # a command may create a virtual machine or build a function
INTERRUPT_GRACE_S = 60.0  # after an interrupt, before the command is killed
MAX_LAST_LINE_BYTES = 4096  # of the end of a command's output that are looked at
REVISION_PLACEHOLDER = "{revision}"  # in a command: replaced by a new value each time


@dataclass(frozen=True)
class RestartMethod:
    """How one endpoint is restarted."""

    restart: Callable[[], Awaitable[float]]  # returns time.perf_counter() of the start command; raises RestartFailed
    failure_reason: Callable[[], str | None]  # why it will not become ready any more; None while it may
    ready_timeout_s: float | None  # until /readyz succeeds; None: /readyz is not polled
    shares_clock: bool  # whether its wall clock is this machine's


def twin_restart(twin: Twin, restart_proxy: bool = False) -> RestartMethod:
    """Restart a twin's process, and with `restart_proxy` what is in front of it, as when a VM is created."""
    from infra.local.running.twin import ready_timeout_s

    async def restart() -> float:
        try:
            await asyncio.to_thread(twin.stop, restart_proxy)
            return twin.start()  # in this thread: the process dies with the thread that started it
        except OSError as error:
            raise RestartFailed(f"could not be restarted: {error}") from None

    def failure_reason() -> str | None:
        last_lines = twin.log_tail().splitlines()[-1:] or ["it is empty"]
        return None if twin.alive() else f"ended before it was ready; its log's last line: {last_lines[0]}"

    return RestartMethod(restart, failure_reason, ready_timeout_s(twin.target), shares_clock=True)


def command_restart(command: Sequence[str], target: Target | None) -> RestartMethod:
    """Restart by a command that creates a new revision or instance. `target` is None for a custom endpoint."""

    async def restart() -> float:
        restart_at = time.perf_counter()
        await run_restart_command(fill_revision(command, datetime.now(UTC).strftime("r%Y%m%d%H%M%S%f")))
        return restart_at

    has_ready_check = target is None or not target.scales_to_zero
    return RestartMethod(restart, lambda: None, REMOTE_READY_TIMEOUT_S if has_ready_check else None, shares_clock=False)


def parse_restart_commands(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Parse `--cold-command NAME=COMMAND`: endpoint -> argv. Raises EndpointError."""
    commands: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, separator, command_line = text.partition("=")
        try:
            argv = tuple(shlex.split(command_line))
        except ValueError as error:
            raise EndpointError(f"--cold-command {text}: {error}") from None
        if not (name and separator and argv):
            raise EndpointError(
                f"--cold-command {text}: expected NAME=COMMAND, such as heroku='heroku ps:restart --app my-app'"
            )
        if name in commands:
            raise EndpointError(f"--cold-command: {name} has two commands; give it one")
        commands[name] = argv
    return commands


def check_restart_targets(commands: Mapping[str, Sequence[str]], names: Sequence[str]) -> None:
    """Raises EndpointError if a command is for an endpoint that is not in the run."""
    if unknown := sorted(set(commands) - set(names)):
        raise EndpointError(f"--cold-command {unknown[0]}: the run has no such endpoint, only {', '.join(names)}")


def fill_revision(command: Sequence[str], revision: str) -> list[str]:
    """The command with its placeholder replaced, if it has one."""
    return [argument.replace(REVISION_PLACEHOLDER, revision) for argument in command]


async def run_restart_command(command: Sequence[str]) -> None:
    """Run it without a shell, in the project's folder. Raises RestartFailed with the last line of its output.

    It has ended when its own process has: what it leaves in the background may hold its output open. On cancellation
    it and all that it started are interrupted once, and it may end: Pulumi has to save its state.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise RestartFailed(f"{command[0]}: {error.strerror}") from None
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            raise RestartFailed(f"{command[0]} did not end within {COMMAND_TIMEOUT_S:.0f} s") from None
        finally:
            await _terminate(process)
        if process.returncode:
            raise RestartFailed(f"{command[0]} ended with status {process.returncode}: {_last_line(output)}")


def _last_line(output: IO[bytes]) -> str:
    output.seek(max(output.seek(0, os.SEEK_END) - MAX_LAST_LINE_BYTES, 0))
    lines = output.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
    return lines[-1]


async def _terminate(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    _signal_group(process, signal.SIGINT)
    try:
        async with asyncio.timeout(INTERRUPT_GRACE_S):
            await process.wait()
    except TimeoutError:
        _signal_group(process, signal.SIGKILL)
        await process.wait()


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To the command and all that it started: a shell or make passes no signal on."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
