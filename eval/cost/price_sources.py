"""Public price lists that a program can read, and a parser for each. Pure: nothing is fetched here.

AWS price list   CSV: five lines of metadata, a header, a row for each rate. Checked on the real file: header, rows
                 of instances and of egress. From documentation only: surplus credits, gp3, addresses, and of
                 SageMaker the hours of hosting, whose usage type is as bills have it. Not read: its serverless seconds
                 and data processed
SkyPilot         CSV with a header; a copy of the AWS price list for instances. Checked on the real file
Heroku           the table COST_MONTHLY in the source of its command line. Checked on the real file
Google           JSON of the Cloud Billing Catalog; needs a free API key. Checked on the real file
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from eval.cost.price_list import Price, format_amount
from eval.errors import SourceError

AWS_REGION, AWS_USAGE_PREFIX = "us-east-1", "USE1-"  # the prefix is left out of some usage types of this oldest region
GOOGLE_REGIONS = ("us-central1", "global")
SOURCE_REGIONS = (AWS_REGION, "us", "us-central1")  # of the entries that the sources state
MAX_PREAMBLE_LINES = 20  # lines in which an AWS price list must have its header


@dataclass(frozen=True)
class Quote:
    """The price that a source states for one entry of the list."""

    price_id: str
    amount: float  # dollars per the entry's unit
    source: str  # as the entry will name it


@dataclass
class SourceQuotes:
    """All quotes of a source, and notes on the entries that it has no usable price for."""

    quotes: list[Quote] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_unique(self, price_id: str, amounts: Iterable[float], source: str) -> None:
        """Add a quote if exactly one amount was found for the entry, else a note."""
        unique_amounts = sorted(set(amounts))
        if len(unique_amounts) == 1 and unique_amounts[0] > 0:
            self.quotes.append(Quote(price_id, unique_amounts[0], source))
        else:
            amounts_text = ", ".join(format_amount(amount) for amount in unique_amounts)
            self.notes.append(
                f"{price_id}: " + (f"expected one price, found {amounts_text}" if unique_amounts else "not found")
            )


SourceParser = Callable[[Iterable[str], Sequence[Price]], SourceQuotes]  # lines of the source, entries of the list


@dataclass(frozen=True)
class Source:
    """A public price list. If two state the same price, the first in SOURCES is used."""

    name: str
    url: str
    parse: SourceParser
    api_key_variable: str | None = None  # environment variable that holds the API key it needs


@dataclass(frozen=True)
class AwsRowFilter:
    """Which row of the AWS price list belongs to an entry."""

    usage_type: str  # type, without the region's prefix
    unit: str
    column_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # column -> accepted values


LINUX_ON_DEMAND = {
    "operatingsystem": ("Linux",),
    "tenancy": ("Shared",),
    "preinstalleds/w": ("NA",),
    "capacitystatus": ("Used",),
    "operation": ("RunInstances",),
}
EC2_HOUR_ID = re.compile(r"aws_ec2_([a-z0-9]+)_([a-z0-9]+)_hour")
EC2_SURPLUS_ID = re.compile(r"aws_ec2_([a-z0-9]+)_surplus_vcpu_hour")
SAGEMAKER_HOUR_ID = re.compile(r"aws_sagemaker_ml_([a-z0-9]+)_([a-z0-9]+)_hour")
# offer -> id -> row; the filters of instances and credits follow from their ids
AWS_FILTERS: dict[str, dict[str, AwsRowFilter]] = {
    "AmazonEC2": {"aws_ebs_gp3_gb_month": AwsRowFilter("EBS:VolumeUsage.gp3", "GB-Mo")},
    "AmazonSageMaker": {},
    "AmazonVPC": {"aws_public_ipv4_hour": AwsRowFilter("PublicIPv4:InUseAddress", "Hrs")},
    "AWSDataTransfer": {
        "aws_egress_gb": AwsRowFilter("DataTransfer-Out-Bytes", "GB", {"transfertype": ("AWS Outbound",)}),
    },
}
# id -> SKU, or its description if the SKU is not known; usage unit; units that the price is for
GOOGLE_SKUS: dict[str, dict[str, tuple[str, str, float]]] = {
    "Cloud Run": {
        "gcp_cloudrun_vcpu_second": ("4856-B847-F1EB", "s", 1),
        "gcp_cloudrun_gib_second": ("02A2-9231-36A6", "GiBy.s", 1),
        "gcp_cloudrun_million_requests": ("2DA5-55D3-E679", "count", 1e6),
    },
    "Cloud Run Functions": {
        "gcp_function_vcpu_second": ("Cloud Run functions CPU (Request-based billing) in us-central1", "s", 1),
        "gcp_function_gib_second": ("Cloud Run functions Memory (Request-based billing) in us-central1", "GiBy.s", 1),
        "gcp_function_million_requests": ("92DF-0F0E-630F", "count", 1e6),
    },
}
HEROKU_TABLE = re.compile(r"COST_MONTHLY\b[^=]*=\s*\{(.*?)\}", re.DOTALL)
HEROKU_ROW = re.compile(r"^\s*'?([\w.-]+)'?\s*:\s*([\d.]+)\s*,?\s*$", re.MULTILINE)
HEROKU_ECO = re.compile(r"\$(\d+(?:\.\d+)?) \(flat monthly fee, shared across all Eco dynos\)")


def parse_aws(offer: str, lines: Iterable[str], entries: Sequence[Price]) -> SourceQuotes:
    """Parse a regional offer file of the AWS price list. Of a tiered price, the first tier that is not free."""
    filters = {p.id: row_filter for p in entries if p.region == AWS_REGION and (row_filter := _aws_filter(offer, p.id))}
    rows = csv.reader(lines)
    columns, published = _aws_header(rows, filters.values())
    by_usage = {
        usage: i
        for i, row_filter in filters.items()
        for usage in (row_filter.usage_type, AWS_USAGE_PREFIX + row_filter.usage_type)
    }
    tiers: dict[str, dict[float, set[float]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        price_id = by_usage.get(row[columns["usagetype"]]) if len(row) == len(columns) else None
        if price_id and _matches(row, columns, filters[price_id]):
            amount = float(row[columns["priceperunit"]])
            if amount > 0:
                tiers[price_id][float(row[columns["startingrange"]] or 0)].add(amount)
    result = SourceQuotes()
    for price_id in filters:
        amounts_by_tier = tiers.get(price_id)
        result.add_unique(
            price_id,
            amounts_by_tier[min(amounts_by_tier)] if amounts_by_tier else (),
            f"AWS Price List, {offer}, {AWS_REGION}{published}",
        )
    return result


def _aws_filter(offer: str, price_id: str) -> AwsRowFilter | None:
    if offer == "AmazonEC2":
        if match := EC2_SURPLUS_ID.fullmatch(price_id):
            return AwsRowFilter(f"CPUCredits:{match[1]}", "vCPU-Hours", {"operatingsystem": ("Linux", "")})
        if match := EC2_HOUR_ID.fullmatch(price_id):
            return AwsRowFilter(f"BoxUsage:{match[1]}.{match[2]}", "Hrs", LINUX_ON_DEMAND)
    if offer == "AmazonSageMaker" and (match := SAGEMAKER_HOUR_ID.fullmatch(price_id)):
        return AwsRowFilter(f"Host:ml.{match[1]}.{match[2]}", "Hrs")  # Train: and Notebk: cost as much, or less
    return AWS_FILTERS[offer].get(price_id)


def _aws_header(rows: Iterable[list[str]], filters: Iterable[AwsRowFilter]) -> tuple[dict[str, int], str]:
    """Column name -> index, and the publication date as text."""
    published = ""
    for row in islice(rows, MAX_PREAMBLE_LINES):
        if row[:1] == ["Publication Date"] and len(row) > 1:
            published = f", published {row[1][:10]}"
        if row[:1] == ["SKU"]:
            columns = {name.replace(" ", "").lower(): index for index, name in enumerate(row)}
            needed = {"termtype", "unit", "priceperunit", "currency", "startingrange", "usagetype"}
            if missing := sorted(
                (needed | {name for row_filter in filters for name in row_filter.column_values}) - columns.keys()
            ):
                raise SourceError(f"its header has no {', '.join(missing)}")
            return columns, published
    raise SourceError(f"no header that starts with SKU in the first {MAX_PREAMBLE_LINES} lines")


def _matches(row: Sequence[str], columns: Mapping[str, int], row_filter: AwsRowFilter) -> bool:
    accepted = {"termtype": ("OnDemand",), "unit": (row_filter.unit,), "currency": ("USD",), **row_filter.column_values}
    return all(row[columns[name]] in values for name, values in accepted.items())


def parse_skypilot(lines: Iterable[str], entries: Sequence[Price]) -> SourceQuotes:
    """Parse SkyPilot's catalog of AWS instances, which has a row for each availability zone."""
    price_id_by_type = {
        f"{match[1]}.{match[2]}": p.id
        for p in entries
        if p.region == AWS_REGION and (match := EC2_HOUR_ID.fullmatch(p.id))
    }
    rows = csv.DictReader(lines)
    if missing := sorted({"InstanceType", "Region", "Price"} - set(rows.fieldnames or ())):
        raise SourceError(f"its header has no {', '.join(missing)}")
    amounts: dict[str, set[float]] = {price_id: set() for price_id in price_id_by_type.values()}
    for row in rows:
        if row["Region"] == AWS_REGION and row["InstanceType"] in price_id_by_type and row["Price"]:
            amounts[price_id_by_type[row["InstanceType"]]].add(float(row["Price"]))
    result = SourceQuotes()
    for price_id, zone_amounts in amounts.items():
        result.add_unique(price_id, zone_amounts, "SkyPilot catalog v9, aws/vms.csv, a copy of the AWS price list")
    return result


def parse_heroku(lines: Iterable[str], entries: Sequence[Price]) -> SourceQuotes:
    """Parse the table in the source of Heroku's command line. The price of Eco is in a sentence beside it."""
    text = "".join(lines)
    table = HEROKU_TABLE.search(text)
    if table is None:
        raise SourceError("it has no table COST_MONTHLY")
    amounts = {name.lower().replace("-", "_"): float(usd) for name, usd in HEROKU_ROW.findall(table[1])}
    if eco_match := HEROKU_ECO.search(text):
        amounts["eco"] = float(eco_match[1])
    result = SourceQuotes()
    for price in entries:
        if match := re.fullmatch(r"heroku_(\w+)_month", price.id):
            amount = amounts.get(match[1], 0.0)
            result.add_unique(price.id, [amount] if amount else [], "heroku/cli, src/commands/ps/type.ts, COST_MONTHLY")
    return result


def parse_google(service: str, lines: Iterable[str], entries: Sequence[Price]) -> SourceQuotes:
    """Parse a service's SKUs in the Cloud Billing Catalog. Of a tiered price, the last tier: the first may be free."""
    catalog = json.loads("".join(lines))
    if not isinstance(catalog, dict) or not isinstance(catalog.get("skus"), list):
        raise SourceError("it has no list called skus")
    if catalog.get("nextPageToken"):
        raise SourceError("it has a second page, which is not read")
    result = SourceQuotes()
    known_ids = {price.id for price in entries}
    for price_id, (name, unit, multiplier) in GOOGLE_SKUS[service].items():
        if price_id in known_ids:
            skus = [sku for sku in catalog["skus"] if name in (sku.get("skuId"), sku.get("description"))]
            amounts = [round(_google_amount(s, unit) * multiplier, 12) for s in skus if _is_sold_in_region(s)]
            ids = ", ".join(sorted({sku["skuId"] for sku in skus}))
            result.add_unique(price_id, amounts, f"Cloud Billing Catalog, {service}, SKU {ids}")
    return result


def _is_sold_in_region(sku: Mapping[str, Any]) -> bool:
    return any(region in GOOGLE_REGIONS for region in sku["serviceRegions"])


def _google_amount(sku: Mapping[str, Any], unit: str) -> float:
    expression = sku["pricingInfo"][-1]["pricingExpression"]
    if expression["usageUnit"] != unit:
        raise SourceError(f"SKU {sku['skuId']} is sold by {expression['usageUnit']!r}, expected {unit!r}")
    price = expression["tieredRates"][-1]["unitPrice"]
    if price.get("currencyCode", "USD") != "USD":
        raise SourceError(f"SKU {sku['skuId']} is priced in {price['currencyCode']}")
    return int(price.get("units", 0)) + price.get("nanos", 0) / 1e9


AWS_URL = "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws"
GITHUB_URL = "https://raw.githubusercontent.com"
GOOGLE_URL = "https://cloudbilling.googleapis.com/v1/services"

SOURCES = (
    Source("AWS addresses", f"{AWS_URL}/AmazonVPC/current/us-east-1/index.csv", partial(parse_aws, "AmazonVPC")),
    Source(
        "AWS egress", f"{AWS_URL}/AWSDataTransfer/current/us-east-1/index.csv", partial(parse_aws, "AWSDataTransfer")
    ),
    Source("AWS machines", f"{AWS_URL}/AmazonEC2/current/us-east-1/index.csv", partial(parse_aws, "AmazonEC2")),
    Source(
        "AWS SageMaker",
        f"{AWS_URL}/AmazonSageMaker/current/us-east-1/index.csv",
        partial(parse_aws, "AmazonSageMaker"),
    ),
    Source("SkyPilot", f"{GITHUB_URL}/skypilot-org/skypilot-catalog/master/catalogs/v9/aws/vms.csv", parse_skypilot),
    Source("Heroku", f"{GITHUB_URL}/heroku/cli/main/src/commands/ps/type.ts", parse_heroku),
    Source(
        "Google Cloud Run",
        f"{GOOGLE_URL}/152E-C115-5142/skus?pageSize=5000",
        partial(parse_google, "Cloud Run"),
        "GOOGLE_API_KEY",
    ),
    Source(
        "Google functions",
        f"{GOOGLE_URL}/29E7-DA93-CA13/skus?pageSize=5000",
        partial(parse_google, "Cloud Run Functions"),
        "GOOGLE_API_KEY",
    ),
)
