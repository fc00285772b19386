"""Mutants of what the VM on AWS is given at its first boot, and in what puts it together."""

FOLDER = "infra/aws_ec2"

MUTANTS = {
    f"{FOLDER}/cloud-config.yaml": {
        "a key that cloud-init passes over in silence: nothing is run": ("runcmd:", "runcmdd:"),
    },
    f"{FOLDER}/user_data.py": {
        "a fact may be a command: root runs it": (
            'PLAIN = re.compile(r"[]A-Za-z0-9_./:@%+,=*[-]*")',
            'PLAIN = re.compile(r".*")',
        ),
    },
    "infra/aws_ec2/__main__.py": {
        "with a domain, nothing of HTTPS reaches the VM": ("https = domain is not None", "https = False"),
    },
    f"{FOLDER}/bootstrap": {
        "an agent that Amazon did not sign is installed": ("gpgv --keyring", "true --keyring"),
        "an agent for another processor": ("debian_$(dpkg --print-architecture)", "debian_amd64"),
        "pip installs what no lock has a hash of": (" --require-hashes", ""),
        "the bundle's checksum is not checked": ('sha256sum --check <<<"$BUNDLE_SHA256  $BUNDLE"\n', ""),
        "every user of the VM may read the token": ("(umask 077 && printf", "(umask 022 && printf"),
        "the service starts before it has a model": ("    retry 12 systemctl start classifier-model.service\n", ""),
        "no new version comes after a reboot": (
            "systemctl enable --now classifier-model.timer",
            "systemctl start classifier-model.timer",
        ),
        "the service is not there after a reboot": (
            "systemctl enable --now classifier.service",
            "systemctl start classifier.service",
        ),
    },
    f"{FOLDER}/classifier.service": {
        "the service can reach the role's keys": ("IPAddressDeny=any\n", ""),
        "a hardening key that systemd passes over": ("NoNewPrivileges=yes", "NoNewPrivileges=on-please"),
        "the service runs as root": ("User=classifier\nGroup=classifier\n", ""),
        "the service is not started again when it dies": ("Restart=always", "Restart=no"),
    },
    f"{FOLDER}/classifier-model.service": {
        "what pulls models runs as root": ("User=classifier-model\nGroup=classifier-model\n", ""),
        "models are pulled as the service's user, which could then change them": (
            "User=classifier-model\nGroup=classifier-model\n",
            "User=classifier\nGroup=classifier\n",
        ),
        "models are pulled to a folder that may not be written": (
            "StateDirectory=classifier/models",
            "StateDirectory=classifier/model",
        ),
    },
    f"{FOLDER}/classifier-model.timer": {
        "systemd may look a minute late": ("AccuracySec=1s\n", ""),
    },
    f"{FOLDER}/nginx-proxy.conf": {
        "nginx refuses bodies above 1 MB in its own words": ("client_max_body_size 17m;\n", ""),
    },
    f"{FOLDER}/nginx.conf": {
        "every host is answered": ("    return 421;\n", "    include snippets/classifier-http.conf;\n"),
    },
    f"{FOLDER}/nginx-https.conf": {
        "old ciphers are accepted": ("ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL;", "ssl_ciphers DEFAULT;"),
    },
    f"{FOLDER}/classifier-certificate.service": {
        "the certificate's unit may do all that root may": ("CapabilityBoundingSet=\n", ""),
    },
    f"{FOLDER}/nginx-redirect.conf": {
        "a redirect that turns a POST into a GET": ("return 308 ", "return 301 "),
        "a VM without a certificate cannot show that it is ready": ("location = /readyz", "location = /ready"),
        "port 80 passes on what clients send": ("    proxy_pass_request_headers off;\n", ""),
    },
    f"{FOLDER}/certificate": {
        "the certificate is not kept: every new VM asks for another, and gets five a week": (
            'aws s3 cp --only-show-errors "$PEM" "$CERTIFICATE_URI" ||',
            "true ||",
        ),
        "a kept certificate of another domain is served": (' | grep -q "does match"', ""),
    },
}
