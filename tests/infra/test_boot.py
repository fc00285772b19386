"""The VM's user data, as the EC2 program registers it, really booted: only its bundle comes from a file, not from S3.

One test, for a boot is long and each step needs the one before. Not shown here: EC2 itself, its Debian image, a kernel
of the VM's own, the role, Session Manager, and HTTPS.
"""

from __future__ import annotations

import time

import pytest
import yaml

from infra.aws_ec2.user_data import SETTINGS_FILE
from tests.helpers.infra.booted_vm import (
    BUNDLE,
    HTTP_PORT,
    REBOOT_STATUS,
    Vm,
    is_ready,
    readiness,
    taken_ports,
    vm_of,
    wait_for,
)
from tests.helpers.infra.debian_trees import LOG_TAIL, assert_answers_as_reference, prepare, workplace
from tests.helpers.infra.program_runs import REQUIRED, make_checkout, well
from tests.offline_engine.engine import run_program

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def ground(complain, needs_tool, say):
    """The Debian trees and their torch, on a machine that has the VM's ports free."""
    ready = prepare(complain, needs_tool, say)
    if ports := taken_ports():
        complain(f"port {ports[0]} is taken by another program; the VM shares this machine's network and needs it")
    return ready


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The user data, and the file that the program puts into its bucket."""
    root = make_checkout(tmp_path_factory.mktemp("boot") / "checkout")
    run = well(run_program(root, "aws_ec2", REQUIRED["aws_ec2"]))
    (vm,) = [each for each in run.resources.values() if each.type == "aws:ec2/instance:Instance"]
    (bundle,) = [each for each in run.resources.values() if each.type == "aws:s3/bucketObjectv2:BucketObjectv2"]
    return vm.unwrapped_inputs["userData"], root / bundle.unwrapped_inputs["source"]["path"]


def test_the_user_data_boots_serves_and_survives(ground, shipped, needs_tool, say):
    trees, torch = ground
    user_data, bundle = shipped
    with (
        workplace("boot") as folder,
        vm_of(needs_tool("systemd-nspawn"), trees / "vm", folder, torch, from_file(user_data), bundle) as vm,
    ):
        for step in (first_boot, kill, reboot, power_off):
            start = time.monotonic()
            step(vm)
            say(f"{step.__doc__} {time.monotonic() - start:.0f} s")
    assert taken_ports() == []


def from_file(user_data: str) -> str:
    """The user data with BUNDLE_URI changed, and nothing else."""
    facts = next(each["content"] for each in yaml.safe_load(user_data)["write_files"] if each["path"] == SETTINGS_FILE)
    (uri,) = [line for line in facts.splitlines() if line.startswith("BUNDLE_URI=s3://")]
    assert user_data.count(uri) == 1
    return user_data.replace(uri, f"BUNDLE_URI=file://{BUNDLE}")


def first_boot(vm: Vm) -> None:
    """cloud-init does all that the user data says; nginx passes pictures on to the service, which knows them."""
    vm.start()
    status = vm.wait_until_booted()
    assert (status["status"], status["errors"]) == ("done", []), f"{status}\n{vm.boot_log()[-LOG_TAIL:]}"
    assert "bootstrap: FAILED" not in vm.boot_log()
    assert vm.boot_log().count("bootstrap: done") == 1
    wait_for("an answer on port 80", is_ready, vm)
    assert_answers_as_reference(HTTP_PORT)
    pid = vm.unit("MainPID")
    assert vm.do("ps", "-o", "user=", "-p", pid) == "classifier"


def kill(vm: Vm) -> None:
    """The service is killed with SIGKILL, and systemd starts another."""
    before = readiness().headers["X-Instance-Id"]
    vm.do("systemctl", "kill", "--signal=SIGKILL", "classifier.service")
    wait_for("another instance", lambda: is_ready() and readiness().headers["X-Instance-Id"] != before, vm)
    assert vm.unit("NRestarts") == "1"
    assert_answers_as_reference(HTTP_PORT)


def reboot(vm: Vm) -> None:
    """After a reboot it serves by itself: nothing is set up again."""
    vm.do("systemctl", "reboot")
    assert vm.ended() == REBOOT_STATUS and not is_ready()
    vm.start()
    wait_for("an answer after the reboot", is_ready, vm)
    assert vm.wait_until_booted()["status"] == "done"
    assert vm.boot_log().count("bootstrap: done") == 1
    assert_answers_as_reference(HTTP_PORT)


def power_off(vm: Vm) -> None:
    """It powers off by itself."""
    vm.do("systemctl", "poweroff")
    assert vm.ended() == 0
