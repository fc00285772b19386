"""What Prometheus is told: which deployments to scrape, by which rules to judge them, whom to alert. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

METRICS_PATH = "/metrics"


@dataclass(frozen=True)
class Deployment:
    """One address that is scraped: a twin, a stack, or another instance of the service."""

    name: str  # the job: its target's name, and after a dash its engine or stage
    url: str  # without a trailing slash
    token_file: Path | None = None  # a bearer token, where /metrics needs one

    @property
    def metrics_url(self) -> str:
        return self.url + METRICS_PATH


def prometheus_config(
    deployments: Sequence[Deployment], rules: Sequence[str], interval_s: float, alertmanager: str | None = None
) -> str:
    """The text of prometheus.yml. rules: paths or patterns; alertmanager: HOST:PORT, or None without one."""
    import yaml  # here, as help needs none of it

    interval = f"{round(interval_s * 1000)}ms"  # Prometheus takes no fraction of a unit
    config: dict[str, Any] = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval, "scrape_timeout": interval},
        "rule_files": list(rules),
        "scrape_configs": [_scrape(deployment) for deployment in deployments],
    }
    if alertmanager:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    return yaml.safe_dump(config, sort_keys=False, width=120)


def _scrape(deployment: Deployment) -> dict[str, Any]:
    address = urlsplit(deployment.url)
    scrape: dict[str, Any] = {
        "job_name": deployment.name,
        "honor_labels": True,  # `instance` is the service's own: behind a router each scrape may meet another one
        "scheme": address.scheme,
        "metrics_path": address.path + METRICS_PATH,
        "static_configs": [{"targets": [address.netloc]}],
    }
    if deployment.token_file:
        scrape["authorization"] = {"credentials_file": str(deployment.token_file)}
        scrape["follow_redirects"] = False  # Prometheus takes the token along, to any host
    return scrape
