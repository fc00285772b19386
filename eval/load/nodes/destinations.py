"""The machines that `--cluster` names, as ssh takes them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from eval.errors import EvalError

USER = r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?"
HOST = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}"  # or an alias of ssh's configuration; no option begins so
IPV6 = r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9._-]+)?"
PLAIN = re.compile(f"{USER}(?:{HOST}|{IPV6})")
URI = re.compile(rf"ssh://{USER}(?:{HOST}|\[{IPV6}\])(?::[0-9]{{1,5}})?/?")
WITH_PORT = re.compile(f"{USER}{HOST}:[0-9]{{1,5}}")
EXPECTED = "expected HOST, USER@HOST, ssh://USER@HOST:PORT, or a Host of ~/.ssh/config; several with commas between"
MAX_NODES = 100


@dataclass(frozen=True)
class Node:
    """A machine that sends."""

    name: str  # as typed, for ssh, for people, and for a sample's sender


def parse_nodes(text: str) -> tuple[Node, ...]:
    """The machines of a list with commas. Raises EvalError."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if WITH_PORT.fullmatch(name):
            raise EvalError(f"--cluster {name}: write the port as ssh://{name}")
        if not (PLAIN.fullmatch(name) or URI.fullmatch(name)):
            raise EvalError(f"--cluster {ascii(name)[:100]}: {EXPECTED}")
        if names.count(name) > 1:
            raise EvalError(f"--cluster names {name} twice: --workers N starts N senders on each machine")
    if len(names) > MAX_NODES:
        raise EvalError(f"--cluster names {len(names)} machines; {MAX_NODES} at most")
    return tuple(Node(name) for name in names)
