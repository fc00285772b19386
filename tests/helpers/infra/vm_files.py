"""What a VM of each form is given: its user data and the files of its bundle, as the tests name them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from infra.aws_ec2.user_data import MODELS_FOLDER, VM_FOLDER, render, vm_files

SETTINGS = {
    "AWS_DEFAULT_REGION": "eu-central-1",
    "ENGINE": "torch",
    "BUNDLE_URI": "s3://cloudtrial-bundle-0123456/bundle-0123456789abcdef.tar.gz",
    "BUNDLE_SHA256": "0" * 64,
}
ADDRESS, DOMAIN = "192.0.2.7", "classifier.example.com"
HTTPS_SETTINGS = SETTINGS | {
    "TOKEN_PARAMETER": "/cloudtrial-api-token",
    "TOKEN_VERSION": "1",
    "DOMAIN": DOMAIN,
    "CERTIFICATE_EMAIL": "you+trial@example.com",
    "CERTIFICATE_URI": f"s3://cloudtrial-bundle-0123456/certificate-{DOMAIN}.pem",
}
STORE_SETTINGS = SETTINGS | {
    "MODEL_STORE": MODELS_FOLDER,
    "MODEL": "resnet18-cifar10@prod",
    "STORE_URL": "s3://models-of-mine/clouds",
}
RENDERED = {
    "http": render(SETTINGS, host=ADDRESS, https=False),
    "https": render(HTTPS_SETTINGS, host=DOMAIN, https=True),
    "store": render(STORE_SETTINGS, host=ADDRESS, https=False),
}


def files_of(form: str) -> dict[str, str]:
    """What is written on the VM: path -> contents."""
    written = {entry["path"]: entry["content"] for entry in yaml.safe_load(RENDERED[form])["write_files"]}
    copied = f"{VM_FOLDER}/etc/"
    for name, path in vm_files(https=form == "https", follows_store=form == "store").items():
        on_vm = name.removeprefix(VM_FOLDER) if name.startswith(copied) else f"/opt/classifier/app/{name}"
        assert on_vm not in written
        written[on_vm] = path.read_text()
    return written


def make_certificate(openssl: str, folder: Path, days: int = 90, domain: str = DOMAIN, key: str = "ec") -> str:
    """A key, its certificate and the intermediate authority's, as PEM; `root.pem` in the folder is who made that."""
    kind = {"ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["-newkey", "rsa:2048"]}[key]

    def make(name: str, issuer: str, *options: str) -> None:
        signed = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"] if issuer else []
        command = [openssl, "req", "-x509", *kind, "-nodes", "-days", str(days), *signed, *options]
        command += ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    authority = ("-addext", "basicConstraints=critical,CA:TRUE")
    make("root", "", "-subj", "/CN=root", *authority)
    make("intermediate", "root", "-subj", "/CN=intermediate", *authority)
    name = ("-subj", f"/CN={domain}", "-addext", f"subjectAltName=DNS:{domain}")
    make("leaf", "intermediate", *name, "-addext", "basicConstraints=critical,CA:FALSE")
    return "".join((folder / file).read_text() for file in ("leaf.key", "leaf.pem", "intermediate.pem"))
