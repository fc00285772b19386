"""Machines are made ready over ssh, on real sshds where that counts; each error is one line that says what to do."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import socket
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from eval.errors import EvalError
from eval.load.nodes import code, prepare
from eval.load.nodes.destinations import parse_nodes
from eval.load.nodes.prepare import SENDER_PYTHON, prepare_nodes
from eval.load.nodes.ssh import SSH_COMMAND
from scripts.simulations.ssh_nodes import Cluster, ssh_nodes
from tests.helpers.fake_endpoint import closed_port
from tests.helpers.http_server import http_server, send

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sshd(needs_tool) -> str:
    needs_tool("ssh")
    return needs_tool("sshd")


@pytest.fixture(scope="module")
def running(sshd, tmp_path_factory) -> Iterator[Cluster]:
    with ssh_nodes(tmp_path_factory.mktemp("cluster"), sshd) as cluster:
        yield cluster


@pytest.fixture
def cluster(running, monkeypatch) -> Cluster:
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return running


def prepared(names: str) -> tuple[list[list[str]], list[str]]:
    """What starts a sender on each node, and what was said meanwhile."""
    said: list[str] = []
    return list(prepare_nodes(parse_nodes(names), said.append).values()), said


def refusal(names: str) -> str:
    with pytest.raises(EvalError) as caught:
        prepared(names)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{names}: ")
    return text


def on_node(argv: list[str], script: str) -> str:
    """What a script prints where a sender would run."""
    command = argv[-1].replace("-m eval.load.workers", f"-c {shlex.quote(script)}".replace("'", "'\"'\"'"))
    return subprocess.run([*argv[:-1], command], capture_output=True, text=True, check=True).stdout


def test_code_is_on_each_node_with_the_same_checksum(cluster):
    argvs, said = prepared(cluster.names)
    script = "from eval.load.nodes.code import code_sha256 as c; import os; print(c(), os.getcwd())"
    for argv, node in zip(argvs, cluster.nodes, strict=True):
        sha256, folder = on_node(argv, script).split()
        assert sha256 == code.code_sha256() and folder == str(node.senders / sha256)
        assert node.senders.stat().st_mode & 0o077 == 0
    assert said == []


def test_what_is_on_a_node_already_is_used_again(cluster):
    node = cluster.nodes[0]
    prepared(node.address)
    before = {path: path.stat().st_mtime_ns for path in node.senders.rglob("*.py")}
    prepared(node.address)
    assert before == {path: path.stat().st_mtime_ns for path in node.senders.rglob("*.py")}


def test_two_runs_may_prepare_a_node_at_once(sshd, tmp_path, monkeypatch):
    with ssh_nodes(tmp_path, sshd, ["127.0.0.2"]) as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        threads = [threading.Thread(target=prepared, args=("127.0.0.2",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [path.name for path in cluster.nodes[0].senders.iterdir()] == [code.code_sha256()]


@pytest.fixture
def tiny_lock(tmp_path, monkeypatch) -> Iterator[Path]:
    """A lock of one library, and the folder of its wheel."""
    wheel = tmp_path / "wheels" / "tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("tiny.py", "value = 7\n")
        packed.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        packed.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr("tiny-1.0.dist-info/RECORD", "")
    lock = f"tiny==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    files = code.sender_files() | {code.LOCK: lock.encode()}
    monkeypatch.setattr(code, "sender_files", lambda: files)
    code.archive.cache_clear()
    yield wheel.parent
    code.archive.cache_clear()


@pytest.mark.slow
def test_libraries_are_installed_once_by_their_hashes(sshd, tmp_path, tiny_lock, monkeypatch):
    settings = {
        "PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tiny_lock),
        "PIP_CONFIG_FILE": "/dev/null",
    }
    with ssh_nodes(tmp_path / "cluster", sshd, ["127.0.0.2"], **settings) as cluster:
        monkeypatch.setenv(SSH_COMMAND, cluster.environment[SSH_COMMAND])
        monkeypatch.delenv(SENDER_PYTHON, raising=False)
        for attempt in range(2):
            (argv,), said = prepared("127.0.0.2")
            assert on_node(argv, "import tiny; print(tiny.value)") == "7\n"
            assert bool(said) == (attempt == 0)
            assert all(line.startswith("127.0.0.2: installing, ") for line in said)
        (tiny_lock / "tiny-1.0-py3-none-any.whl").unlink()
        (libraries,) = cluster.nodes[0].senders.glob("libraries-*")
        libraries.rename(tmp_path / "gone")
        text = refusal("127.0.0.2")
        assert "pip cannot install the senders' libraries (" in text and SENDER_PYTHON in text


def test_node_without_python_is_told_what_to_install(sshd, tmp_path, monkeypatch):
    with ssh_nodes(tmp_path, sshd, ["127.0.0.2"], PATH="/nonexistent") as cluster:
        monkeypatch.setenv(SSH_COMMAND, cluster.environment[SSH_COMMAND])
        monkeypatch.delenv(SENDER_PYTHON, raising=False)
        text = refusal("127.0.0.2")
        assert "it needs Python 3.11 or later" in text and "apt-get install python3 python3-venv" in text
        monkeypatch.setenv(SENDER_PYTHON, "/nonexistent/python")
        assert f"/nonexistent/python: not found; correct {SENDER_PYTHON}" in refusal("127.0.0.2")


def test_old_python_is_told_to_be_old(sshd, tmp_path, monkeypatch):
    old = tmp_path / "bin" / "python3"
    old.parent.mkdir()
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    with ssh_nodes(tmp_path / "cluster", sshd, ["127.0.0.2"], PATH=str(old.parent)) as cluster:
        monkeypatch.setenv(SSH_COMMAND, cluster.environment[SSH_COMMAND])
        monkeypatch.delenv(SENDER_PYTHON, raising=False)
        assert "and python3 says: Python 3.9.2;" in refusal("127.0.0.2")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"UserKnownHostsFile": "/dev/null"}, "connect by hand once (`ssh 127.0.0.2`)"),
        ({"UserKnownHostsFile": "{0}/other_hosts"}, "its host key is not the one that known_hosts has"),
        ({"IdentityFile": "{0}/127.0.0.2/host_key"}, "it permits no login without a password"),
    ],
    ids=["unknown host", "another host", "another key"],
)
def test_login_that_ssh_refuses_is_one_line(cluster, changes, said, monkeypatch):
    folder = cluster.config.parent
    own, other = ((folder / address / "host_key.pub").read_text() for address in ("127.0.0.2", "127.0.0.3"))
    hosts = (folder / "known_hosts").read_text()
    (folder / "other_hosts").write_text(hosts.replace(own.split()[1], other.split()[1]))
    options = [word for key, value in changes.items() for word in ("-o", f"{key}={value.format(folder)}")]
    config = folder / "without_key"
    config.write_text(cluster.config.read_text().replace(f"    IdentityFile {folder}/user_key\n", "") if "IdentityFile"
                      in changes else cluster.config.read_text())  # fmt: skip
    monkeypatch.setenv(SSH_COMMAND, shlex.join(["ssh", *options, "-F", str(config)]))
    assert said in refusal("127.0.0.2")


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """A port whose queue is full: as a firewall, the kernel drops what comes."""
    with socket.socket() as server, contextlib.ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(2):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def http_port():
    return http_server(lambda request, _: send(request, 400))


@pytest.mark.parametrize(
    ("port", "said"),
    [
        (lambda: contextlib.nullcontext(closed_port()), "the connection is refused"),
        (http_port, "does not speak ssh"),
        (silent_port, "does not speak ssh"),
        (deaf_port, "no answer within 5 s"),
    ],
    ids=["closed", "HTTP", "silent", "drops packets"],
)
def test_wrong_port_is_one_line(cluster, port, said):
    with port() as number:
        assert said in refusal(f"ssh://127.0.0.1:{number}")


# With a program in place of ssh


def test_program_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv(SSH_COMMAND, "/nonexistent/ssh -v")
    with pytest.raises(EvalError, match="--cluster needs ssh, and /nonexistent/ssh cannot be started: No such file"):
        prepared("a")


@pytest.mark.parametrize(
    ("prints", "said"),
    [
        ("print('Welcome to a')", "before anything else its shell prints 'Welcome to a'"),
        ("print('x' * 10**6)", "before anything else its shell prints 'a line of more than 64 KiB'"),
        ("print('[' * 10**4)", "before anything else its shell prints '[["),
        ("print('[1]')", "before anything else its shell prints '[1]'"),
        ("print('{\"code\": 1}')", "before anything else its shell prints"),
        ('print(\'{"error": "a\\\\u001b[2Jb"}\')', "a\ufffd[2Jb"),
        ("import sys; sys.exit('broken')", "ended with exit code 1: broken"),
        ("", "ended with exit code 0"),
    ],
    ids=["greeting", "long", "deep", "list", "number", "controls", "failed", "nothing"],
)
def test_what_no_node_should_say_is_refused(prints, said, monkeypatch):
    monkeypatch.setenv(SSH_COMMAND, shlex.join([sys.executable, "-c", prints]))
    assert said in refusal("a")


def test_node_that_falls_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(prepare, "SILENCE_S", 0.1)
    monkeypatch.setenv(SSH_COMMAND, "sh -c 'sleep 1000'")
    assert "it has not answered for" in refusal("a")
    assert not [child for child in psutil.Process().children() if "sleep" in child.cmdline()]


def test_first_node_that_fails_ends_the_preparation_of_all(tmp_path, monkeypatch):
    fake = tmp_path / "ssh.py"
    fake.write_text(
        textwrap.dedent("""
        import sys, time, pathlib
        started = pathlib.Path(__file__).with_name("started")
        if "slow" in sys.argv:
            started.touch()
            while True:
                print('{"progress": "installing, 2 s"}', flush=True)
                time.sleep(0.1)
        while not started.exists():
            time.sleep(0.01)
        sys.exit("no")
        """)
    )
    monkeypatch.setenv(SSH_COMMAND, shlex.join([sys.executable, str(fake)]))
    with pytest.raises(EvalError, match=r"^quick: "):
        prepared("slow,quick")
    assert not [child for child in psutil.Process().children() if str(fake) in child.cmdline()]
