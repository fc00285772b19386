"""The dashboard of traffic, errors, latency, queue, predictions, versions and cost."""

from __future__ import annotations

from scripts.dashboards.panels import Dashboard, Panel, Query, Row

CHOSEN = '{job=~"$job"}'
MODEL = '{job=~"$job",version=~"$version"}'
ANSWERS = '{job=~"$job",route!~"/metrics|/healthz|/readyz|/version"}'  # what people ask for


def rate(series: str, selector: str = CHOSEN) -> str:
    """Of a counter, a second."""
    return f"rate({series}{selector}[$__rate_interval])"


def quantile(fraction: float, histogram: str, selector: str = CHOSEN) -> Query:
    """Of a histogram, by deployment."""
    series = rate(f"{histogram}_bucket", selector)
    return Query(f"histogram_quantile({fraction}, sum by (job, le) ({series}))", f"{{{{job}}}} p{fraction * 100:g}")


def quantiles(histogram: str, selector: str = CHOSEN) -> tuple[Query, ...]:
    """The middle and the tail."""
    return tuple(quantile(fraction, histogram, selector) for fraction in (0.5, 0.95, 0.99))


def mean(histogram: str) -> str:
    """Of a histogram, by deployment."""
    return f"sum by (job) ({rate(f'{histogram}_sum')}) / sum by (job) ({rate(f'{histogram}_count')})"


TRAFFIC = Row("Traffic and errors", (
    Panel("Requests", "Responses a second by route, without those of probes and of Prometheus itself.",
          (Query(f"sum by (job, route) ({rate('classifier_requests_total', ANSWERS)})", "{{job}} {{route}}"),),
          "reqps"),
    Panel("Share of failed requests", "Responses with a status of 500 or more, of all. The service refuses with 503 "
          "while its queue is full: see Queue.",
          (Query(f"""sum by (job) ({rate('classifier_requests_total', '{job=~"$job",status=~"5.."}')})"""
                 f" / sum by (job) ({rate('classifier_requests_total')}) or"
                 f" 0 * sum by (job) ({rate('classifier_requests_total')})", "{{job}}"),),
          "percentunit", max=1, threshold=0.01),
    Panel("Refused or failed, by kind", "What was wrong: the kinds are the service's own, none comes from a client.",
          (Query(f"sum by (job, kind) ({rate('classifier_errors_total')})", "{{job}} {{kind}}"),), "reqps"),
))  # fmt: skip

LATENCY = Row("Latency", (
    Panel("Latency of requests", "Within the service, from a request to its response: the network and a cold start are "
          "not in it. ./cloudtrial run measures those.", quantiles("classifier_request_seconds", ANSWERS), "s"),
    Panel("Forward passes", "Time of one pass of the network, whatever its batch.",
          quantiles("classifier_pass_seconds"), "s"),
    Panel("Images in a pass", "Mean size of a batch: it grows with the load.",
          (Query(mean("classifier_batch_images"), "{{job}}"),), "short"),
))  # fmt: skip

QUEUE = Row("Queue and process", (
    Panel("Wait in the queue", "From queueing to the first pass. As it nears the latency objective, add an instance.",
          quantiles("classifier_queue_seconds"), "s"),
    Panel("Queued images, requests in progress", "At the moment of a scrape.",
          (Query(f"sum by (job) (classifier_queue_images{CHOSEN})", "{{job}} queued"),
           Query(f"sum by (job) (classifier_requests_in_flight{CHOSEN})", "{{job}} in progress")), "short"),
    Panel("Memory", "Resident memory of the largest process of each deployment.",
          (Query(f"max by (job) (process_resident_memory_bytes{CHOSEN})", "{{job}}"),), "bytes"),
))  # fmt: skip

PREDICTIONS = Row("Predictions and versions", (
    Panel("Predictions by label", "Images a second by predicted class. Their shares beside the reference: see Drift.",
          (Query(f"sum by (job, label) ({rate('classifier_predictions_total', MODEL)})", "{{job}} {{label}}"),), "ops"),
    Panel("Instances by version", "How many instances serve which version of the model; two during a switch.",
          (Query(f"count by (job, name, version, engine) (classifier_model_info{MODEL})",
                 "{{job}} {{name}} {{version}} {{engine}}"),), "short"),
    Panel("Switches of the model", "By outcome, in the time range shown; `refused`: see the service's log.",
          (Query(f"sum by (job, outcome) (increase(classifier_model_switches_total{CHOSEN}[$__range]))",
                 "{{job}} {{outcome}}"),), "short", kind="number"),
))  # fmt: skip


def cost_row(prices: str) -> Row:
    """What ops/prometheus/rules/prices.yml computes. `prices`: which list, and of what date."""
    basis = f"At list price ({prices}), without free allowances, egress and starts."
    return Row("Cost", (
        Panel("Cost an hour", f"{basis} VMs and dynos: instances by their price. Cloud Run and Functions: at most, "
              "each request rounded up to 0.1 s and none at the same time as another.",
              (Query(f"sum by (job) (classifier:cost_usd_per_hour{CHOSEN})", "{{job}}"),), "currencyUSD", columns=12),
        Panel("Cost of a million predictions", f"{basis} At the present traffic: an idle VM makes it dear.",
              (Query(f"sum by (job) (classifier:cost_usd_per_million_predictions{CHOSEN})", "{{job}}"),), "currencyUSD",
              columns=12),
    ))  # fmt: skip


def service_dashboard(prices: str) -> Dashboard:
    """All of it."""
    return Dashboard(
        "cloudtrial-service",
        "Service",
        "Traffic, errors, latency, queue, predictions, versions and cost of every deployment.",
        (TRAFFIC, LATENCY, QUEUE, PREDICTIONS, cost_row(prices)),
    )
