"""The twins: started from the clouds' own files, measured, ended for certain; and the readers of those files."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest

from infra.artifact import REPOSITORY, ROOT_FILES, deployment_files
from infra.errors import PlatformFileError, TwinError
from infra.local.dockerfile import read_dockerfile
from infra.local.health import free_ports
from infra.local.nginx import SITE_FILE, local_site, nginx_process
from infra.local.process import Process, bare_environment
from infra.local.process_spec import ProcessSpec
from infra.local.procfile import read_procfile
from infra.local.running import starter
from infra.local.running import twin as running_twin
from infra.local.running.starter import available_cores, cores_for
from infra.local.running.twin import fits
from infra.local.staging import stage
from infra.local.start_commands import HOST, START_COMMANDS, read_vm_unit
from infra.local.systemd_unit import read_unit
from infra.local.twins import local_twins
from infra.targets import AWS_EC2, EC2_SIZES, HEROKU, TARGETS
from service.settings import ENGINES
from tests.conftest import descendants
from tests.helpers.twin_files import small_service

pytestmark = pytest.mark.integration

LIGHT = ["onnx"]  # the engine that starts in half a second: which one it is means nothing here
BROKEN = {"MODEL_DIR": "models/none-of-this-name"}


def has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition, seconds: float = 30) -> None:
    """Fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


@pytest.fixture
def twins_program(tmp_path):
    """`./cloudtrial twins NAME...`, once it prints `until`: its process, and all that it started."""
    program: list[subprocess.Popen] = []

    def start(*names: str, until: str = "Ctrl-C") -> tuple[subprocess.Popen, list[psutil.Process], str]:
        command = [sys.executable, "-m", "infra.local", *names, "--log-dir", str(tmp_path), "--engines", *LIGHT]
        env = os.environ | {"TMPDIR": str(tmp_path)}  # a killed program cannot clear its folder away
        popen = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True)
        program.append(popen)
        output = ""
        for line in popen.stdout:
            output += line
            if until in line:
                break
        return popen, psutil.Process(popen.pid).children(recursive=True), output

    yield start
    for popen in program:
        popen.kill()
        popen.wait()
        popen.stdout.close()


def test_an_empty_variable_of_this_shell_is_not_inherited(monkeypatch):
    for name in ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR"):  # an empty library path is the current folder
        monkeypatch.setenv(name, "")
    environment = bare_environment()
    assert set(environment) == {"PATH"} and environment["PATH"].endswith(os.defpath)


# The readers


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("worker: gunicorn x", id="no-web"),
        pytest.param("web gunicorn x", id="no-colon"),
        pytest.param("web: gunicorn x && rm y", id="two-commands"),
        pytest.param("web: gunicorn `id`", id="backticks"),
        pytest.param("web: gunicorn --bind :$NOT_SET", id="unset-variable"),
        pytest.param("web: gunicorn --bind ${PORT:-80}", id="shell-default"),
        pytest.param("web: cat < x", id="redirection"),
    ],
)
def test_procfile_reader_refuses(text):
    with pytest.raises(PlatformFileError, match="Procfile"):
        read_procfile(text, {"PORT": "1"})


def test_procfile_reader_takes_env_for_the_environment():
    launch = read_procfile("web: env ENGINE=onnx PORT=$PORT DIR='a b' python -m x=1\n", {"PORT": "81"})
    assert launch == ProcessSpec(("python", "-m", "x=1"), {"PORT": "81", "ENGINE": "onnx", "DIR": "a b"})


def test_procfile_reader_sets_variables():
    launch = read_procfile("release: x\nweb: gunicorn --bind ':$PORT' ${APP}\n", {"PORT": "81", "APP": "a:b"})
    assert launch == ProcessSpec(("gunicorn", "--bind", ":81", "a:b"), {"PORT": "81", "APP": "a:b"})


@pytest.mark.parametrize(
    ("line", "named"),
    [
        pytest.param('ENTRYPOINT ["sh"]', "ENTRYPOINT", id="unknown-instruction"),
        pytest.param("HEALTHCHECK CMD x", "HEALTHCHECK", id="healthcheck"),
        pytest.param("FROM other", "no CMD", id="last-stage-without-command"),
        pytest.param("FROM --platform=x y", "FROM --platform=x y", id="from-with-options"),
        pytest.param("FROM $LATER", "no ARG LATER", id="unknown-argument-in-from"),
        pytest.param("CMD gunicorn x", "CMD gunicorn x", id="shell-form"),
        pytest.param('CMD {"a": 1}', "CMD", id="not-a-list"),
        pytest.param("ENV A B", "ENV A B", id="old-env"),
        pytest.param("ENV A=$B", "ENV A=", id="variable-in-env"),
        pytest.param("COPY missing ./", "no missing", id="copy-of-nothing"),
        pytest.param("COPY --from=x a b", "COPY --from", id="copy-from-stage"),
        pytest.param("RUN a \\", "backslash", id="dangling-backslash"),
    ],
)
def test_dockerfile_reader_refuses_and_names(line, named, tmp_path):
    with pytest.raises(PlatformFileError, match=re.escape(named)):
        read_dockerfile(f'FROM x\nCMD ["a"]\n{line}\n', tmp_path, {})


def test_dockerfile_reader_follows_the_stage_that_is_named(tmp_path):
    text = 'FROM x AS base\nENV A=1\nFROM base AS first\nCMD ["first"]\nFROM base AS last\nCMD ["last"]\n'
    assert read_dockerfile(text, tmp_path, {}, target="first") == ProcessSpec(("first",), {"A": "1"})
    assert read_dockerfile(text, tmp_path, {}).command == ("last",)
    with pytest.raises(PlatformFileError, match="no stage is called 'frist', only base, first, last"):
        read_dockerfile(text, tmp_path, {}, target="frist")


def test_dockerfile_reader_joins_lines_and_accepts_overrides(tmp_path):
    text = 'FROM x\n# a comment\nENV PORT=8080 \\\n    NAME="two words"\nRUN a \\\n  && b\nCMD ["gunicorn", "x"]\n'
    launch = read_dockerfile(text, tmp_path, {"PORT": "81"})
    assert launch == ProcessSpec(("gunicorn", "x"), {"PORT": "81", "NAME": "two words"})


@pytest.mark.parametrize(("build_args", "env"), [({}, {"A": "1", "B": "red"}), ({"KIND": "blue"}, {"A": "2"})])
def test_dockerfile_reader_follows_a_build_arg_to_its_base(build_args, env, tmp_path):
    text = """
    ARG KIND=red
    FROM x AS base
    ENV A=1
    FROM base AS red
    ENV B=red
    COPY %s ./
    FROM base AS blue
    ENV A=2
    FROM ${KIND}
    CMD ["a"]
    """
    (tmp_path / "there").touch()
    assert read_dockerfile(text % "there", tmp_path, {}, build_args) == ProcessSpec(("a",), env)
    if build_args:  # what only another stage copies may be missing
        assert read_dockerfile(text % "missing", tmp_path, {}, build_args).env == env
    else:
        with pytest.raises(PlatformFileError, match="no missing"):
            read_dockerfile(text % "missing", tmp_path, {}, build_args)


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_images_differ_in_environment_not_in_command(engine, tmp_path):
    text = (REPOSITORY / "service" / "Dockerfile").read_text()
    launch = read_dockerfile(text, stage(tmp_path / "app", engine), {}, {"ENGINE": engine})
    assert launch.env["ENGINE"] == engine
    assert launch.command == ("python", "-m", "service.server")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("DynamicUser=yes", "DynamicUser", id="unknown-setting"),
        pytest.param("EnvironmentFile=/etc/x", "EnvironmentFile", id="environment-file"),
        pytest.param("[Slice]", "[Slice]", id="unknown-section"),
        pytest.param("ExecStart=/bin/b", "exactly one", id="second-command"),
        pytest.param("nonsense", "nonsense", id="no-equals-sign"),
        pytest.param("Environment=A=%n", "%n", id="specifier"),
        pytest.param("Description=a \\", "whole", id="continued-line"),
    ],
)
def test_unit_reader_refuses_and_names(text, named):
    with pytest.raises(PlatformFileError, match=re.escape(named)):
        read_unit(f"[Service]\nExecStart=/bin/a\nWorkingDirectory=/\n{text}\n")


@pytest.mark.parametrize("command", ["-/bin/a", "gunicorn", "/bin/a $PORT", "/bin/a %i"])
def test_unit_reader_refuses_the_command(command):
    with pytest.raises(PlatformFileError, match="ExecStart"):
        read_unit(f"[Service]\nExecStart={command}\nWorkingDirectory=/\n")


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_can_be_launched_from_its_own_file(name, tmp_path):
    launch = START_COMMANDS[name](stage(tmp_path / "app", target=name), 4711)
    assert launch.env["SAGEMAKER_BIND_TO_PORT" if name == "aws_sagemaker" else "PORT"] == "4711"
    assert launch.env["HOST"] == HOST
    assert set(START_COMMANDS) == set(TARGETS)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_shipped_has_the_clouds_layout(engine, tmp_path):
    root = stage(tmp_path / "app", engine)
    assert {path.name for path in root.iterdir()} == {"service", "models", *ROOT_FILES}
    assert (root / "service" / "server.py").is_file()
    shipped = deployment_files(engine=engine)
    models = {str(path.relative_to(root)) for path in (root / "models").rglob("*") if path.is_file()}
    assert models == {name for name in shipped if name.startswith("models/")}
    assert (root / "requirements.txt").read_bytes() == shipped["requirements.txt"].read_bytes()


# nginx and systemd on the VM's files


def test_nginx_accepts_the_site(needs_tool, tmp_path):
    launch = nginx_process(needs_tool("nginx"), tmp_path / "nginx", *free_ports(2))
    checked = subprocess.run([*launch.command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr


def test_local_site_changes_only_the_addresses():
    before = SITE_FILE.read_text().splitlines()
    after = local_site(SITE_FILE.read_text(), 81, 82).splitlines()
    changed = [new.strip() for old, new in zip(before, after, strict=True) if old != new]
    assert changed == ["server 127.0.0.1:82;", "listen 127.0.0.1:81 default_server;", "listen 127.0.0.1:81;"]


def test_local_site_refuses_a_site_that_does_not_reach_the_unit():
    with pytest.raises(PlatformFileError, match=r"server 127\.0\.0\.1:8080;"):
        local_site(SITE_FILE.read_text().replace("8080", "8081"), 81, 82)


def test_systemd_accepts_the_unit(needs_tool, tmp_path):
    analyze = needs_tool("systemd-analyze")
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "classifier.service"
    source = (REPOSITORY / "infra" / "aws_ec2" / "classifier.service").read_text()
    unit.write_text(source.replace(read_vm_unit().exec_start[0], str(program)))
    checked = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    ours = [line for line in (checked.stdout + checked.stderr).splitlines() if "classifier" in line]
    assert ours == []


# Memory and cores


@pytest.mark.parametrize(
    ("available", "cores"),
    [
        pytest.param([0], [0], id="one-core"),
        pytest.param([0, 1], [1], id="two-cores"),
        pytest.param([0, 1, 2, 5], [5], id="some-cores"),
    ],
)
def test_one_vcpu_is_the_highest_core(available, cores):
    assert cores_for(HEROKU, available) == cores


def test_a_small_machine_gives_what_it_has():
    assert cores_for(AWS_EC2, [3]) == [3]


@pytest.mark.parametrize(("peak_mib", "fit"), [(341.0, True), (512.0, True), (512.1, False)])
def test_fits_compares_with_the_targets_memory(peak_mib, fit):
    assert fits(HEROKU, peak_mib) is fit


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps high-water marks")
def test_peak_memory_counts_what_was_given_back_and_children(tmp_path):
    script = (
        "import subprocess, sys; x = bytearray(90 << 20); del x; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    )
    child = "import signal; x = bytearray(50 << 20); del x; print('done', flush=True); signal.pause()"
    log = tmp_path / "log"
    process = Process([sys.executable, "-c", script, child], {}, tmp_path, available_cores(), log)
    try:
        wait_until(lambda: "done" in log.read_text())
        peak = process.peak_memory_mib()
    finally:
        process.terminate()
        process.reap()
    assert 140 < peak < 220
    assert process.peak_memory_mib() >= peak  # still known after the end


def test_a_log_replaces_a_link_of_its_name(tmp_path):
    log, victim = tmp_path / "a.log", tmp_path / "victim"
    victim.write_text("untouched")
    log.symlink_to(victim)
    process = Process([sys.executable, "-c", "print('done')"], {}, tmp_path, available_cores(), log)
    wait_until(lambda: process.exit_status() is not None)
    process.reap()
    assert (log.read_text(), victim.read_text()) == ("done\n", "untouched")


# Starting and ending


def test_a_twin_is_pinned_measured_and_ended_after_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), local_twins(["aws_ec2"], tmp_path, engines=LIGHT) as twins:
        (twin,) = twins.running
        started = descendants()
        assert twin.alive()
        assert twin.startup_ms > 0
        assert twin.cpus == min(2, len(available_cores()))
        if sys.platform == "linux":
            assert psutil.Process(twin.pid).cpu_affinity() == cores_for(AWS_EC2, available_cores())
        assert (twin.proxy == "nginx") == any(process.name() == "nginx" for process in started)
        assert 50 < twin.peak_memory_mib() < 4096
        _ = 1 / 0
    assert len(started) >= 2
    assert all(map(has_ended, started))
    assert not twin.alive()
    assert twin.peak_memory_mib() > 50  # known after the end
    assert "has ended" in twin.log_tail()


def test_vm_twin_without_nginx_is_reached_directly_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(starter, "find_nginx", lambda: None)
    with local_twins(["aws_ec2"], tmp_path, engines=LIGHT) as twins:
        assert twins.running[0].proxy is None
        assert len(twins.running[0].processes) == 1


def test_twin_with_a_broken_model_fails_and_the_others_run(tmp_path):
    events: list[str] = []
    env = {"gcp_cloudrun-onnx": BROKEN, "gcp_function-onnx": BROKEN}
    with local_twins(["heroku", "gcp_function", "gcp_cloudrun"], tmp_path, env, events.append, LIGHT) as twins:
        assert [twin.name for twin in twins.running] == ["heroku-onnx"]
        assert set(twins.failures) == set(env)
        for reason in twins.failures.values():
            assert "ended with status" in reason
            assert "model.json is missing" in reason
        started = descendants()
        assert all("heroku" in twin.name for twin in twins.running)
    assert all(map(has_ended, started))
    assert len([event for event in events if "not started" in event]) == 2


def test_a_killed_twin_is_noticed_and_leaves_nothing(tmp_path):
    with local_twins(["heroku"], tmp_path, engines=LIGHT) as twins:
        (twin,) = twins.running
        started = descendants()
        os.kill(twin.pid, signal.SIGKILL)
        wait_until(lambda: not twin.alive())
    assert all(map(has_ended, started))


def test_port_in_use_is_retried_with_another(tmp_path, monkeypatch):
    with socket.socket() as busy:
        busy.bind((HOST, 0))
        ports = [[busy.getsockname()[1], 1], free_ports(2)]
        monkeypatch.setattr(starter, "free_ports", lambda count: ports.pop(0))
        with local_twins(["gcp_function"], tmp_path, engines=LIGHT) as twins:
            assert [twin.name for twin in twins.running] == ["gcp_function-onnx"]
    assert ports == []


def identity(url: str) -> str:
    with urllib.request.urlopen(f"{url}/readyz", timeout=10) as response:
        return response.headers["X-Instance-Id"]


def test_a_restarted_twin_is_another_process_at_the_same_address(tmp_path, monkeypatch):
    small_service(monkeypatch, tmp_path)
    (tmp_path / "child").touch()
    (tmp_path / "large").touch()
    with local_twins(["heroku"], tmp_path) as twins:
        (twin,) = twins.running
        before, first, large = descendants(), identity(twin.url), twin.peak_memory_mib()
        (tmp_path / "large").unlink()
        restart = twin.restart()
        after = descendants()
        assert all(map(has_ended, before))  # the child too, which does not care for SIGTERM
        assert restart.started_at < restart.ready_at
        assert identity(twin.url) != first
        assert twin.alive()
        assert twin.pid in {process.pid for process in after}
        assert (tmp_path / "heroku.log").read_text().count("a life begins") == 2
    assert all(map(has_ended, after))
    if sys.platform == "linux":
        assert twin.peak_memory_mib() >= large > 80  # the first life's, which no later one has reached


def test_nginx_stays_up_while_the_service_behind_it_is_restarted(needs_tool, tmp_path, monkeypatch):
    needs_tool("nginx")
    small_service(monkeypatch, tmp_path, "aws_ec2")
    with local_twins(["aws_ec2"], tmp_path) as twins:
        (twin,) = twins.running
        service, nginx = (process.pid for process in twin.processes)
        twin.restart()
        assert (twin.pid == service, twin.processes[1].pid == nginx) == (False, True)
        first = identity(twin.url)
        twin.restart(everything=True)
        assert twin.processes[1].pid != nginx
        assert identity(twin.url) != first
        ours = descendants()
    assert all(map(has_ended, ours))


def test_twin_has_no_vector_unit_that_its_target_lacks(tmp_path, monkeypatch):
    small_service(monkeypatch, tmp_path)
    with local_twins(["heroku"], tmp_path) as twins:
        environment = psutil.Process(twins.running[0].pid).environ()
    assert environment["ONEDNN_MAX_CPU_ISA"] == TARGETS["heroku"].cpu_isa
    ec2 = TARGETS["aws_ec2"]
    assert ec2.cpu_isa == EC2_SIZES[ec2.size].cpu_isa == "AVX512_CORE"  # without bfloat16


def test_failed_restart_leaves_nothing_and_can_be_retried(tmp_path, monkeypatch):
    small_service(monkeypatch, tmp_path)
    with local_twins(["heroku"], tmp_path) as twins:
        (twin,) = twins.running
        (tmp_path / "broken").touch()
        with pytest.raises(TwinError, match=r"ended with status 1[^$]*broken as it was told"):
            twin.restart()
        assert descendants() == []
        (tmp_path / "broken").unlink()
        twin.restart()
        assert twin.alive()


def test_an_interrupted_restart_leaves_nothing(tmp_path, monkeypatch):
    small_service(monkeypatch, tmp_path)
    with local_twins(["heroku"], tmp_path) as twins:
        (twin,) = twins.running
        monkeypatch.setattr(running_twin, "wait_until_ready", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            twin.restart()
        assert descendants() == []
        assert (twin.alive(), twin.crashed()) == (False, False)


def test_a_killed_twin_is_brought_back(tmp_path, monkeypatch):
    small_service(monkeypatch, tmp_path)
    (tmp_path / "child").touch()
    with local_twins(["heroku"], tmp_path) as twins:
        (twin,) = twins.running
        left_over = descendants()
        os.kill(twin.pid, signal.SIGKILL)
        wait_until(lambda: not twin.alive())
        assert twin.crashed()
        twin.restart()
        assert identity(twin.url)
        assert not twin.crashed()
        assert all(map(has_ended, left_over))


def test_an_unknown_name_is_refused_before_anything_starts():
    with pytest.raises(TwinError, match=r"azure.*aws_ec2"), local_twins(["azure"]):
        pytest.fail("started")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["ctrl-c", "sigterm", "sighup"])
def test_the_program_ends_its_twins_on(number, twins_program):
    program, started, output = twins_program("aws_ec2")
    assert re.search(r"AWS EC2 \(ONNX int8\): ready after \d+\.\d s at http://127\.0\.0\.1:\d+", output)
    program.send_signal(number)
    assert program.wait(30) == 0
    assert len(started) >= 2
    assert all(map(has_ended, started))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent was killed")
def test_twins_end_when_the_program_is_killed(twins_program):
    program, started, _ = twins_program("aws_ec2")
    program.kill()
    wait_until(lambda: all(map(has_ended, started)))


def test_the_program_refuses_an_unknown_name_in_one_line():
    ran = subprocess.run([sys.executable, "-m", "infra.local", "azure"], cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_while_twins_start_leaves_nothing_running(twins_program, number):
    program, started, _ = twins_program("heroku", until="starting")
    program.send_signal(number)
    assert program.wait(30) == 128 + number
    wait_until(lambda: all(map(has_ended, started)))  # one that it had only just started ends with it
