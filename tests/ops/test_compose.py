"""ops/compose.yaml, as far as it can be checked without an engine: files, ports, images, rights, secrets."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml

from infra.artifact import BUILD_DIR, REPOSITORY
from infra.local.dockerfile import read_dockerfile
from infra.local.nginx import HOST_PATH, PROXY_FILE, PROXY_PATH, SITE_FILE
from scripts.setup.compose_context import ENGINE, main
from tests.conftest import ROOT

OPS = ROOT / "ops"
COMPOSE = yaml.safe_load((OPS / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
MOUNTS = [
    pytest.param(name, *volume.split(":")[:2], id=f"{name} {volume.split(':')[1]}")
    for name, service in SERVICES.items()
    for volume in service.get("volumes", ())
]


def mounted(path: str) -> str:
    """The file or folder of the repository that a container sees there."""
    ((source, target),) = [
        volume.split(":")[:2]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if path.startswith(volume.split(":")[1])
    ]
    return f"{source}{path.removeprefix(target)}"


def test_it_is_what_the_page_says():
    assert list(SERVICES) == ["classifier", "nginx", "prometheus", "alertmanager", "grafana"]


@pytest.mark.parametrize(("name", "source", "target"), MOUNTS)
def test_what_is_mounted_is_there(name, source, target):
    if "/" in source:
        assert (OPS / source).exists()
        assert f"{source}:{target}:ro" in SERVICES[name]["volumes"]
    else:
        assert source in COMPOSE["volumes"]


def test_every_port_is_this_machines_alone():
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 4 and all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_every_image_has_its_digest():
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert len(images) == 4 and all(re.fullmatch(r"[a-z/]+:v?[\d.]+@sha256:[0-9a-f]{64}", image) for image in images)


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_no_container_may_more_than_it_must(service):
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"] and not service.get("privileged")


def test_grafanas_password_has_no_default():
    assert SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")
    assert not re.search(r"(?i)(password|secret|token): *['\"]?\w", (OPS / "compose.yaml").read_text(encoding="utf-8"))


def test_nginx_has_the_vms_site_in_front_of_the_service(needs_tool, tmp_path):
    assert SERVICES["nginx"]["network_mode"] == "service:classifier"
    assert (OPS / mounted("/etc/nginx/conf.d/default.conf")).resolve() == SITE_FILE
    assert (OPS / mounted(f"/etc/nginx/{PROXY_PATH}")).resolve() == PROXY_FILE
    (tmp_path / "snippets").mkdir()
    for inside in ("conf.d/default.conf", str(PROXY_PATH), str(HOST_PATH)):
        text = (OPS / mounted(f"/etc/nginx/{inside}")).read_text(encoding="utf-8")
        copy = tmp_path / ("site.conf" if inside.startswith("conf.d") else inside)
        copy.write_text(text.replace("listen 80", "listen 127.0.0.1:18080"), encoding="utf-8")
    main_conf = "pid nginx.pid; events {} http { access_log off; include site.conf; }"
    (tmp_path / "nginx.conf").write_text(main_conf, encoding="utf-8")
    command = [needs_tool("nginx"), "-t", "-p", f"{tmp_path}/", "-c", "nginx.conf", "-e", "stderr"]
    subprocess.run(command, check=True, capture_output=True)


def test_the_image_is_built_from_what_the_clouds_get():
    main([])
    build = SERVICES["classifier"]["build"]
    context = (OPS / build["context"]).resolve()
    assert context == REPOSITORY / BUILD_DIR / "compose" and build["args"] == {"ENGINE": ENGINE}
    assert (context / build["dockerfile"]).is_file() and (context / "requirements.txt").is_file()
    text = (context / build["dockerfile"]).read_text(encoding="utf-8")
    image = read_dockerfile(text, context, {}, build["args"])
    assert image.command[-1] == "service.server"


def test_promtool_accepts_prometheus_configuration(needs_tool):
    file = OPS / "prometheus" / "prometheus.yml"
    subprocess.run([needs_tool("promtool"), "check", "config", file], check=True, capture_output=True)
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    (scrape,) = config["scrape_configs"]
    assert scrape["honor_labels"] and scrape["static_configs"] == [{"targets": ["classifier:8080"]}]
    (alerting,) = config["alerting"]["alertmanagers"]
    assert alerting["static_configs"] == [{"targets": ["alertmanager:9093"]}]


def test_grafana_finds_its_source_and_dashboards():
    provisioning = OPS / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text(encoding="utf-8"))["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/cloudtrial.yml").read_text(encoding="utf-8"))["providers"]
    assert source["url"] == "http://prometheus:9090"
    dashboards = sorted((OPS / mounted(provider["options"]["path"])).glob("*.json"))
    assert len(dashboards) == 2
    for path in dashboards:
        panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
        assert {panel["datasource"]["uid"] for panel in panels if "targets" in panel} == {source["uid"]}
