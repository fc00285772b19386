"""How ssh is called for a node, and why it ended, in words.

The connection is strict (a known host key, a key for login, nothing asked), shared with nothing else, and ends some
seconds after the other side falls silent.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Mapping, Sequence

from eval.load.nodes.destinations import Node
from eval.validation import MAX_SHOWN_CHARS, printable

SSH_COMMAND = "CLOUDTRIAL_SSH_COMMAND"  # environment variable: what to call for ssh, such as "ssh -F FILE -i KEY"
CONNECT_TIMEOUT_S = 5
ALIVE_INTERVAL_S, ALIVE_COUNT = 2, 2  # unanswered so often, the connection is lost
SSH_FAILED = 255
LAST_WORDS = 3  # lines
MISSING = 69  # the exit code of a program whose last line says what it lacks (EX_UNAVAILABLE of sysexits.h)
OPTIONS: Mapping[str, str | int] = {
    "BatchMode": "yes",
    "ConnectTimeout": CONNECT_TIMEOUT_S,
    "ServerAliveInterval": ALIVE_INTERVAL_S,
    "ServerAliveCountMax": ALIVE_COUNT,
    "StrictHostKeyChecking": "yes",
    "ControlPath": "none",  # a connection that others share would end with them
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "LogLevel": "INFO",  # at QUIET it would not say why it ends
}
# Texts of OpenSSH, or of the C library through it; of several in its last words the first here counts
FAILURES = (
    ("Timeout, server", f"the connection was lost: nothing was heard for {ALIVE_INTERVAL_S * ALIVE_COUNT} s"),
    ("has changed and you have requested strict checking", "its host key is not the one that known_hosts has: it is"
     " another machine, or was installed anew; if that is so, `ssh-keygen -R` its name, and connect by hand once"),
    ("Host key verification failed", "its host key is not known here: connect by hand once (`ssh {0}`), and compare the"
     " fingerprint that ssh shows with the machine's own"),
    ("Permission denied", "it permits no login without a password: `ssh -o BatchMode=yes {0} true` has to work, which"
     " ssh-copy-id sees to"),
    ("Could not resolve hostname", "no machine of this name is known: correct the name"),
    ("Connection refused", "the connection is refused: no ssh server runs there, or on another port"
     " (ssh://USER@HOST:PORT)"),
    ("banner exchange", "what listens on that port does not speak ssh: correct the port (ssh://USER@HOST:PORT)"),
    ("kex_exchange_identification", "what listens on that port does not speak ssh, or refuses this machine: correct the"
     " port (ssh://USER@HOST:PORT), or ask its administrator"),
    ("Connection timed out", f"no answer within {CONNECT_TIMEOUT_S} s: it is off, or a firewall drops the packets"),
    ("Operation timed out", f"no answer within {CONNECT_TIMEOUT_S} s: it is off, or a firewall drops the packets"),
    ("No route to host", "no route leads to it: it is off, or on another network"),
    ("Network is unreachable", "no route leads to it: it is off, or on another network"),
    ("closed by remote host", "it closed the connection: its ssh server, or the machine, was ended"),
    ("Connection closed by", "it closed the connection: its ssh server, or the machine, was ended"),
    ("Broken pipe", "it closed the connection: its ssh server, or the machine, was ended"),
    ("Connection reset", "it closed the connection: its ssh server, or the machine, was ended"),
)  # fmt: skip


def ssh_argv(node: Node, command: str) -> list[str]:
    """What runs a command line of its login shell on the node."""
    options = [word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}")]
    return [*ssh_program(), "-T", *options, node.name, command]


def ssh_program() -> list[str]:
    """ssh, or what the environment says in its place."""
    return shlex.split(os.environ.get(SSH_COMMAND, "")) or ["ssh"]


def explain_end(node: Node, exit_code: int, last_stderr: str) -> str:
    """Why the ssh of a node has ended, in one line that goes on after the node's name.

    last_stderr: what it and the program on the node have written to stderr, or the end of it.
    """
    lines = [printable(text)[:MAX_SHOWN_CHARS] for line in last_stderr.splitlines() if (text := line.strip())]
    last = f": {lines[-1]}" if lines else ""
    if exit_code == SSH_FAILED:
        meaning = _meaning(lines)
        return meaning.format(node.name) if meaning else f"ssh failed{last or ', and said nothing'}"
    if exit_code == MISSING and lines:
        return lines[-1]
    if exit_code < 0:
        return f"the ssh of it was ended by {signal_name(-exit_code)}"
    if exit_code > 128:  # as a shell says it
        return f"the program on it was ended by {signal_name(exit_code - 128)}"
    return f"the program on it ended with exit code {exit_code}{last}"


def _meaning(lines: Sequence[str]) -> str | None:
    """What ssh's last words mean, as far as they are known: the program on the node may have said others before."""
    last_words = "\n".join(lines[-LAST_WORDS:])
    return next((meaning for text, meaning in FAILURES if text in last_words), None)


def signal_name(number: int) -> str:
    """As "SIGKILL"; a real-time signal has none."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
