"""Prometheus' rules of what the deployments cost, from the price list: ops/prometheus/rules/prices.yml.

Of a target's default size. A job is one deployment, and begins with its target's name, as a stack and a twin do.
"""

from __future__ import annotations

from eval.cost.billing import BILLING_INCREMENT_S, HOURS_PER_MONTH, prices_for
from eval.cost.price_list import PriceList
from infra.targets import AWS_SAGEMAKER, TARGETS, Target

SCRAPED = tuple(
    target for target in TARGETS.values() if target is not AWS_SAGEMAKER
)  # SageMaker lets no GET through: see docs/watch.md
WINDOW = "5m"
HEADER = """\
# Written by `python -m scripts.dashboards` from eval/cost/prices.yaml of {date}: do not edit.
# List prices of the targets' default sizes, without free allowances, egress, surplus CPU credits and starts.
groups:
  - name: cost
    rules:
"""
TARGET_OF_JOB = f'"target", "$1", "job", "({"|".join(target.name for target in SCRAPED)})(-.+)?"'
INSTANCES = f"count by (job) (count by (job, instance) (last_over_time(classifier_model_info[{WINDOW}])))"
SECONDS, REQUESTS = (f"sum by (job) (rate(classifier_request_seconds_{part}[{WINDOW}]))" for part in ("sum", "count"))
PREDICTIONS = f"sum by (job) (rate(classifier_predictions_total[{WINDOW}]))"


def price_rules(prices: PriceList) -> str:
    """The file: each target's prices as series of their own, then what a job costs by them."""
    lines = [HEADER.format(date=prices.date)]
    for target in SCRAPED:
        for unit, usd in unit_prices(target, prices).items():
            lines.append(rule(f"list_price_usd_per_{unit}", f"vector({usd:.6g})", target.name))
    # Each request is rounded up by less than one increment; those in one instance at once share their seconds.
    billed = f"{SECONDS} + {BILLING_INCREMENT_S} * {REQUESTS}"
    for name, by_job in {"instances": INSTANCES, "billed_seconds_at_most": billed, "billed_requests": REQUESTS}.items():
        lines.append(rule(name, f"label_replace({by_job}, {TARGET_OF_JOB})"))
    by_use = f"{priced('billed_seconds_at_most', 'second')} + ({priced('billed_requests', 'request')})"
    lines.append(rule("cost_usd_per_hour", f"{priced('instances', 'instance_hour')} or 3600 * ({by_use})"))
    per_million = f"classifier:cost_usd_per_hour / on (job) group_left () (3600e-6 * {PREDICTIONS} > 0)"
    lines.append(rule("cost_usd_per_million_predictions", per_million))
    return "".join(lines)


def unit_prices(target: Target, prices: PriceList) -> dict[str, float]:
    """Dollars by what a target is billed for."""
    usd = {role: price.amount for role, price in prices_for(target, prices).items()}
    if target.billing == "hourly":
        return {"instance_hour": usd["hour"] + usd["ipv4"] + target.disk_gb * usd["disk"] / HOURS_PER_MONTH}
    if target.billing == "dyno":
        return {"instance_hour": usd["month"] / HOURS_PER_MONTH}
    second = target.vcpus * usd["vcpu_s"] + target.memory_mib / 1024 * usd["gib_s"]
    return {"second": second, "request": usd["million"] / 1e6}


def priced(series: str, unit: str) -> str:
    """An expression: a series by job and target, at its target's price."""
    return f"classifier:{series} * on (target) group_left () classifier:list_price_usd_per_{unit}"


def rule(name: str, expr: str, target: str | None = None) -> str:
    """One recording rule."""
    labels = f"        labels: {{target: {target}}}\n" if target else ""
    return f"      - record: classifier:{name}\n        expr: |-\n          {expr}\n{labels}"
