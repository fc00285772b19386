"""The VM's user data, as the EC2 program registers it, really booted: only its bundle comes from a file, not from S3.

Few tests, for a boot is long and each step needs the one before. Not shown here: EC2 itself, its Debian image, a kernel
of the VM's own, the role, Session Manager, and Let's Encrypt, for which its own test server stands.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import time

import pytest
import yaml

from infra.artifact import REPOSITORY
from infra.aws_ec2.user_data import HOST_FILE, HTTPS_PACKAGES, SETTINGS_FILE, VM_FOLDER, vm_files
from store.model_store import ModelStore
from tests.helpers.infra.booted_vm import (
    ACME_PORT,
    BUNDLE,
    HTTP_PORT,
    HTTPS_PORT,
    REBOOT_STATUS,
    Vm,
    is_ready,
    readiness,
    taken_ports,
    vm_of,
    wait_for,
)
from tests.helpers.infra.debian_trees import (
    ACME_SERVER,
    LOG_TAIL,
    TOLERANCES,
    assert_answers_as_reference,
    from_index,
    prepare,
    workplace,
)
from tests.helpers.infra.program_runs import REQUIRED, make_checkout, well
from tests.helpers.infra.stored_models import make_checkout_with_store
from tests.helpers.infra.stored_models import settings as stored_settings
from tests.helpers.infra.vm_files import DOMAIN, HTTPS_SETTINGS
from tests.helpers.model_stores import perturbed_copy
from tests.helpers.running_service import Server
from tests.offline_engine.engine import run_program
from tests.offline_engine.fake_provider import PUBLIC_IP

pytestmark = pytest.mark.root

PEBBLE = {  # the settings of Let's Encrypt's test server
    "listenAddress": f"127.0.0.1:{ACME_PORT}",
    "managementListenAddress": "",
    "certificate": "/etc/pebble.pem",
    "privateKey": "/etc/pebble.key",
    "httpPort": HTTP_PORT,
    "tlsPort": HTTPS_PORT,
}


@pytest.fixture(scope="module")
def ground(complain, needs_tool, say):
    """The Debian trees, on a machine that has the VM's ports free."""
    trees = prepare(complain, needs_tool)
    if ports := taken_ports():
        complain(f"port {ports[0]} is taken by another program; the VM shares this machine's network and needs it")
    return trees


@pytest.fixture(scope="module")
def engine(say) -> str:
    """torch where PyTorch's index can be reached; no other is for the VM's Python, and onnx is of PyPI alone."""
    torch = from_index()
    say(torch.said if torch else "the VM has the engine onnx: PyTorch's CPU index cannot be reached")
    return "torch" if torch else "onnx"


@pytest.fixture(scope="module")
def shipped(engine, tmp_path_factory):
    """The user data, and the file that the program puts into its bucket."""
    root = make_checkout(tmp_path_factory.mktemp("boot") / "checkout", with_weights=True)
    run = well(run_program(root, "aws_ec2", REQUIRED["aws_ec2"] | {"cloudtrial:engine": engine}))
    (vm,) = [each for each in run.resources.values() if each.type == "aws:ec2/instance:Instance"]
    (bundle,) = [each for each in run.resources.values() if each.type == "aws:s3/bucketObjectv2:BucketObjectv2"]
    return vm.unwrapped_inputs["userData"], root / bundle.unwrapped_inputs["source"]["path"]


def test_the_user_data_boots_serves_and_survives(ground, shipped, needs_tool, say):
    user_data, bundle = shipped
    with (
        workplace("boot") as folder,
        vm_of(needs_tool("systemd-nspawn"), ground / "vm", folder, from_file(user_data), bundle) as vm,
    ):
        for step in (first_boot, kill, reboot, get_certificate, power_off):
            start = time.monotonic()
            step(vm)
            say(f"{step.__doc__} {time.monotonic() - start:.0f} s")
    assert taken_ports() == []


MODEL = "resnet18-cifar10"
STORE = "opt/classifier/app/.store"  # in the VM's tree: what stands for the bucket (stored_models.py)


def test_a_vm_follows_its_models_alias_without_a_restart(ground, needs_tool, say, tmp_path):
    checkout = make_checkout_with_store(tmp_path / "checkout")
    store = ModelStore.open(checkout / ".store")
    first = store.push(REPOSITORY / "models" / MODEL).version
    second = store.push(perturbed_copy(REPOSITORY / "models" / MODEL, tmp_path / "second", seed=1)).version
    store.move_alias(MODEL, "prod", first, reason="a test")
    config = stored_settings("aws_ec2", f"{MODEL}@prod") | {"cloudtrial:engine": "onnx"}
    run = well(run_program(checkout, "aws_ec2", REQUIRED["aws_ec2"] | config))
    user_data = from_file(run.single("Instance").unwrapped_inputs["userData"])
    bundle = checkout / run.single("BucketObjectv2").unwrapped_inputs["source"]["path"]
    with (
        workplace("boot") as folder,
        vm_of(needs_tool("systemd-nspawn"), ground / "vm", folder, user_data, bundle) as vm,
    ):
        shutil.copytree(checkout / ".store", vm.tree / STORE)
        first_boot(vm)
        before = version()
        assert before["store"]["version"] == first
        ModelStore.open(vm.tree / STORE).move_alias(MODEL, "prod", second, reason="a test")
        wait_for("the second version", lambda: version()["store"]["version"] == second, vm)
        assert (version()["instance_id"], version()["switches"]) == (before["instance_id"], 1)
        (vm.tree / STORE).rename(vm.tree / f"{STORE}-gone")
        journal = ("journalctl", "--no-pager", "--unit=classifier-model.service")
        wait_for("a failed pull in the journal", lambda: "no model is called" in vm.do(*journal), vm)
        assert is_ready() and version()["store"]["version"] == second
        power_off(vm)
    assert taken_ports() == []


def version() -> dict:
    return json.loads(Server(HTTP_PORT, None, None).ask("GET", "/version").body)


def from_file(user_data: str) -> str:
    """The user data with BUNDLE_URI changed, and the host to this machine's own address, and nothing else."""
    facts = next(each["content"] for each in yaml.safe_load(user_data)["write_files"] if each["path"] == SETTINGS_FILE)
    (uri,) = [line for line in facts.splitlines() if line.startswith("BUNDLE_URI=s3://")]
    assert user_data.count(uri) == 1
    assert user_data.count(f"server_name {PUBLIC_IP};") == 1
    user_data = user_data.replace(f"server_name {PUBLIC_IP};", "server_name 127.0.0.1;")
    return user_data.replace(uri, f"BUNDLE_URI=file://{BUNDLE}")


def first_boot(vm: Vm) -> None:
    """cloud-init does all that the user data says; nginx passes pictures on to the service, which knows them."""
    vm.start()
    status = vm.wait_until_booted()
    assert (status["status"], status["errors"]) == ("done", []), f"{status}\n{vm.boot_log()[-LOG_TAIL:]}"
    assert "bootstrap: FAILED" not in vm.boot_log()
    assert vm.boot_log().count("bootstrap: done") == 1
    wait_for("an answer on port 80", is_ready, vm)
    assert_right_answers(vm)
    pid = vm.unit("MainPID")
    assert vm.do("ps", "-o", "user=", "-p", pid) == "classifier"
    assert vm.do("find", "/opt/classifier", "!", "-user", "root") == ""  # the service may change nothing of its own
    assert Server(HTTP_PORT, None, None).ask("GET", "/readyz", headers={"Host": "example.org"}).status == 421


def assert_right_answers(vm: Vm) -> None:
    """As the reference has them, with the tolerance of the VM's engine."""
    settings = dict(line.split("=", 1) for line in vm.do("cat", SETTINGS_FILE).splitlines())
    assert_answers_as_reference(HTTP_PORT, TOLERANCES[settings["ENGINE"]])


def kill(vm: Vm) -> None:
    """The service is killed with SIGKILL, and systemd starts another."""
    before = readiness().headers["X-Instance-Id"]
    vm.do("systemctl", "kill", "--signal=SIGKILL", "classifier.service")
    wait_for("another instance", lambda: is_ready() and readiness().headers["X-Instance-Id"] != before, vm)
    assert vm.unit("NRestarts") == "1"
    assert_right_answers(vm)


def reboot(vm: Vm) -> None:
    """After a reboot it serves by itself: nothing is set up again."""
    vm.do("systemctl", "reboot")
    assert vm.ended() == REBOOT_STATUS and not is_ready()
    vm.start()
    wait_for("an answer after the reboot", is_ready, vm)
    assert vm.wait_until_booted()["status"] == "done"
    assert vm.boot_log().count("bootstrap: done") == 1
    assert_right_answers(vm)


def get_certificate(vm: Vm) -> None:
    """With a domain, certbot gets a certificate in its unit's sandbox, and nginx serves it."""
    vm.do("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qq", "-y", *HTTPS_PACKAGES, ACME_SERVER)
    for name, path in vm_files(https=True).items():
        on_vm = name.removeprefix(VM_FOLDER) if "/etc/" in name else f"/opt/classifier/app/{name}"
        vm.write(on_vm, path.read_text())
    vm.write(HOST_FILE, f"server_name {DOMAIN};\n")
    certificate = {key: HTTPS_SETTINGS[key] for key in ("DOMAIN", "CERTIFICATE_EMAIL", "CERTIFICATE_URI")}
    settings = certificate | {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    vm.write(SETTINGS_FILE, "".join(f"{key}={value}\n" for key, value in settings.items()))
    vm.write("/etc/letsencrypt/cli.ini", f"server = https://localhost:{ACME_PORT}/dir\nno-verify-ssl = true\n")
    vm.write("/etc/hosts", f"127.0.0.1 localhost {DOMAIN}\n")
    vm.write("/etc/pebble.json", json.dumps({"pebble": PEBBLE}))
    own = ["-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", PEBBLE["privateKey"]]
    vm.do("openssl", "req", "-x509", *own, "-out", PEBBLE["certificate"])
    acme = ["systemd-run", "--unit=acme", "--setenv=PEBBLE_VA_NOSLEEP=1", "--setenv=PEBBLE_WFE_NONCEREJECT=0"]
    vm.do(*acme, "pebble", "-config", "/etc/pebble.json")
    vm.do("systemctl", "disable", "--now", "certbot.timer")
    vm.do("systemctl", "daemon-reload")
    vm.do("systemctl", "reload", "nginx.service")
    vm.do("systemctl", "enable", "--now", "classifier-certificate.timer")
    unit = "classifier-certificate.service"
    wait_for("the certificate's unit", lambda: vm.unit("ExecMainExitTimestamp", unit), vm)
    log = vm.do("journalctl", "--no-pager", f"--unit={unit}")
    assert (vm.unit("Result", unit), vm.unit("NRestarts", unit)) == ("success", "0"), log
    assert "no copy could be kept" in log  # aws runs in the sandbox too, and has no bucket here
    assert vm.do("stat", "--format=%a %U", "/etc/classifier/certificate.pem") == "600 root"
    wait_for("HTTPS", lambda: is_served_over_https(vm), vm)


def is_served_over_https(vm: Vm) -> bool:
    """Whether the service answers over TLS with the certificate that certbot got."""
    trusting = ssl.create_default_context(cadata=vm.do("cat", "/etc/letsencrypt/live/classifier/chain.pem"))
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        with (
            socket.create_connection(("127.0.0.1", HTTPS_PORT), timeout=5) as plain,
            trusting.wrap_socket(plain, server_hostname=DOMAIN) as secure,
        ):
            secure.sendall(f"GET /readyz HTTP/1.0\r\nHost: {DOMAIN}\r\n\r\n".encode())
            return secure.recv(100).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def power_off(vm: Vm) -> None:
    """It powers off by itself."""
    vm.do("systemctl", "poweroff")
    assert vm.ended() == 0
