"""How ssh is called, and what its ends are called."""

from __future__ import annotations

from itertools import pairwise

import pytest

from eval.load.nodes.destinations import Node
from eval.load.nodes.ssh import SSH_COMMAND, explain_end, ssh_argv

NODE = Node("ada@10.0.0.2")


def test_connection_is_strict_and_ends_in_silence(monkeypatch):
    monkeypatch.delenv(SSH_COMMAND, raising=False)
    argv = ssh_argv(NODE, "true")
    options = dict(word.split("=") for flag, word in pairwise(argv) if flag == "-o")
    assert argv[0] == "ssh" and argv[-2:] == ["ada@10.0.0.2", "true"] and "-T" in argv
    assert (options["BatchMode"], options["StrictHostKeyChecking"], options["ControlPath"]) == ("yes", "yes", "none")
    assert (
        int(options["ConnectTimeout"]) + int(options["ServerAliveInterval"]) * int(options["ServerAliveCountMax"]) < 10
    )
    assert options["ForwardAgent"] == options["ForwardX11"] == "no"


def test_another_command_can_stand_in_for_ssh(monkeypatch):
    monkeypatch.setenv(SSH_COMMAND, "ssh -F 'my config' -i key")
    assert ssh_argv(NODE, "true")[:5] == ["ssh", "-F", "my config", "-i", "key"]


@pytest.mark.parametrize(
    ("code", "stderr", "said"),
    [
        (
            255,
            "Host key for h has changed and you have requested strict checking.\r\nHost key verification failed.",
            "not the one that",
        ),
        (255, "No ED25519 host key is known for h\r\nHost key verification failed.", "connect by hand once (`ssh ada@"),
        (255, "ada@10.0.0.2: Permission denied (publickey).", "`ssh -o BatchMode=yes ada@10.0.0.2 true` has to work"),
        (255, "ssh: Could not resolve hostname h: Name or service not known", "no machine of this name"),
        (255, "ssh: connect to host h port 22: Connection refused", "the connection is refused"),
        (255, "ssh: connect to host h port 22: Connection timed out", "no answer within 5 s"),
        (255, "Connection timed out during banner exchange", "does not speak ssh"),
        (255, "ssh: connect to host h port 22: No route to host", "no route leads to it"),
        (255, "Timeout, server h not responding.\r\n", "nothing was heard for 4 s"),
        (255, "Connection to h closed by remote host.\r\n", "it closed the connection"),
        (255, "client_loop: send disconnect: Broken pipe", "it closed the connection"),
        (255, "some news\n", "ssh failed: some news"),
        (255, "", "ssh failed, and said nothing"),
        (255, "OSError: Connection refused\nTimeout, server h not responding.\r", "nothing was heard for 4 s"),
        (69, "it needs Python 3.11 or later\n", "it needs Python 3.11 or later"),
        (137, "", "was ended by SIGKILL"),
        (-15, "", "the ssh of it was ended by SIGTERM"),
        (1, "ConnectionError: Connection refused", "ended with exit code 1: ConnectionError: Connection refused"),
        (250, "", "was ended by signal 122"),
        (1, "\x1b[2J\n" + "x" * 10_000, "exit code 1: xxx"),
    ],
)
def test_each_end_is_one_line_with_what_to_do(code, stderr, said):
    text = explain_end(NODE, code, stderr)
    assert said in text and text.isprintable() and len(text) < 300
