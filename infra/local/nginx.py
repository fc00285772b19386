"""nginx in front of the VM's twin: the VM's own site in a folder of its own, with only the two addresses changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from infra.artifact import REPOSITORY
from infra.errors import PlatformFileError
from infra.local.process_spec import ProcessSpec
from infra.local.start_commands import HOST, read_vm_unit

SITE_FILE = REPOSITORY / "infra" / "aws_ec2" / "nginx.conf"
PROXY_FILE = SITE_FILE.with_name("nginx-proxy.conf")
PROXY_PATH = Path("snippets/classifier-http.conf")  # where the site includes it from, on the VM and here
SEARCH_PATH = os.pathsep.join(
    (os.environ.get("PATH") or os.defpath, "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")
)
HOST_PATH = Path("snippets/classifier-host.conf")  # the names that the site answers to; any other host is refused
LISTEN = "listen 80"
HOST_NAMES = "server_name 127.0.0.1 localhost;\n"
# worker_connections as in Debian's nginx.conf, which the VM has
MAIN_CONF = """{user}
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 768; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include site.conf;
}}
"""


def find_nginx() -> str | None:
    """nginx's path, or None where it is not installed."""
    return shutil.which("nginx", path=SEARCH_PATH)


def nginx_process(nginx: str, folder: Path, port: int, upstream_port: int) -> ProcessSpec:
    """nginx with the VM's site, its files in `folder`, listening on `port`."""
    (folder / PROXY_PATH).parent.mkdir(parents=True, exist_ok=True)
    (folder / PROXY_PATH).write_text(PROXY_FILE.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / HOST_PATH).write_text(HOST_NAMES, encoding="utf-8")
    as_root = os.geteuid() == 0  # its workers would become another user, who may not enter the folder
    (folder / "nginx.conf").write_text(MAIN_CONF.format(user="user root;" if as_root else ""), encoding="utf-8")
    (folder / "site.conf").write_text(
        local_site(SITE_FILE.read_text(encoding="utf-8"), port, upstream_port), encoding="utf-8"
    )
    return ProcessSpec((nginx, "-p", f"{folder}/", "-c", "nginx.conf", "-e", "stderr"))


def local_site(site: str, port: int, upstream_port: int) -> str:
    """The site with only its address and its upstream's changed. Raises PlatformFileError when one is missing."""
    env = read_vm_unit().env
    upstream = f"server {env['HOST']}:{env['PORT']};"
    changes = {
        f"{LISTEN} default_server;": f"listen {HOST}:{port} default_server;",  # for other hosts, which it refuses
        f"{LISTEN};": f"listen {HOST}:{port};",
        upstream: f"server {HOST}:{upstream_port};",
    }
    for old, new in changes.items():
        if site.count(old) != 1:
            raise PlatformFileError(f"nginx.conf: exactly one `{old}` is needed, as the unit and the VM have it")
        site = site.replace(old, new)
    return site
