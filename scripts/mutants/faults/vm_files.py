"""Faults in what the VM on AWS is given at its first boot, and in what puts it together."""

from __future__ import annotations

from scripts.mutants.fault import Fault

TARGET = "vm_files"
FOLDER = "infra/aws_ec2"

FAULTS: tuple[Fault, ...] = (
    Fault(
        TARGET,
        "a key that cloud-init passes over in silence: nothing is run",
        f"{FOLDER}/cloud-config.yaml",
        "runcmd:",
        "runcmdd:",
    ),
    Fault(
        TARGET,
        "a fact may be a command: root runs it",
        f"{FOLDER}/user_data.py",
        'PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")',
        'PLAIN = re.compile(r".*")',
    ),
    Fault(
        TARGET,
        "with a domain, nothing of HTTPS reaches the VM",
        "infra/aws_ec2/__main__.py",
        "https=bool(domain)",
        "https=False",
    ),
    Fault(
        TARGET,
        "the bundle's checksum is not checked",
        f"{FOLDER}/bootstrap",
        'sha256sum --check <<<"$BUNDLE_SHA256  $BUNDLE"\n',
        "",
    ),
    Fault(
        TARGET,
        "every user of the VM may read the token",
        f"{FOLDER}/bootstrap",
        "(umask 077 && printf",
        "(umask 022 && printf",
    ),
    Fault(
        TARGET,
        "the service is not there after a reboot",
        f"{FOLDER}/bootstrap",
        "systemctl enable --now classifier.service",
        "systemctl start classifier.service",
    ),
    Fault(
        TARGET,
        "the service can reach the role's keys",
        f"{FOLDER}/classifier.service",
        "IPAddressDeny=any\n",
        "",
    ),
    Fault(
        TARGET,
        "a hardening key that systemd passes over",
        f"{FOLDER}/classifier.service",
        "NoNewPrivileges=yes",
        "NoNewPrivileges=on-please",
    ),
    Fault(
        TARGET, "the service runs as root", f"{FOLDER}/classifier.service", "User=classifier\nGroup=classifier\n", ""
    ),
    Fault(
        TARGET,
        "the service is not started again when it dies",
        f"{FOLDER}/classifier.service",
        "Restart=always",
        "Restart=no",
    ),
    Fault(
        TARGET,
        "nginx refuses bodies above 1 MB in its own words",
        f"{FOLDER}/nginx-proxy.conf",
        "client_max_body_size 0;\n",
        "",
    ),
    Fault(
        TARGET,
        "a redirect that turns a POST into a GET",
        f"{FOLDER}/nginx-redirect.conf",
        "return 308 ",
        "return 301 ",
    ),
    Fault(
        TARGET,
        "the certificate is not kept: every new VM asks for another, and gets five a week",
        f"{FOLDER}/certificate",
        'tar -czC /etc letsencrypt | aws s3 cp --only-show-errors - "$CERTIFICATE_URI" ||',
        "false ||",
    ),
    Fault(
        TARGET,
        "up is ended by one answer, perhaps of the old VM",
        f"{FOLDER}/wait_ready.py",
        "ANSWERS_NEEDED = 3",
        "ANSWERS_NEEDED = 1",
    ),
)
