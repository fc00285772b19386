"""Where prices can be read by a program, and how what is found there is understood. Pure: nothing is fetched here.

Shapes of the sources:

    AWS price list   CSV: five lines of facts, a header, a row for each rate. Seen: header, rows of instances and
                     of egress. From documentation alone: rows of surplus credits, gp3 and addresses
    SkyPilot         CSV with a header; seen. A copy of the AWS price list for instances
    Heroku           the table COST_MONTHLY in the source of its command line; seen
    Google           JSON of the Cloud Billing Catalog; seen. Wants an API key, which is free
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

from eval.cost.price_list import Price, plain
from eval.errors import SourceError

AWS_REGION, AWS_PREFIX = "us-east-1", "USE1-"  # the prefix is left out of some usage types of this oldest region
GOOGLE_REGIONS = ("us-central1", "global")
PREAMBLE = 20  # lines in which an AWS price list must have its header


@dataclass(frozen=True)
class Quote:
    """What a source says of one entry of the list."""

    price_id: str
    amount: float  # dollars per the entry's unit
    source: str  # where it stands, for the list


@dataclass
class Reading:
    """All that a source says, and what it leaves open."""

    quotes: list[Quote] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def settle(self, price_id: str, amounts: Iterable[float], source: str) -> None:
        """Take the amount that was found for an entry, where it is one alone."""
        found = sorted(set(amounts))
        if len(found) == 1 and found[0] > 0:
            self.quotes.append(Quote(price_id, found[0], source))
        else:
            several = ", ".join(plain(amount) for amount in found)
            self.notes.append(f"{price_id}: " + (f"one price was expected, found {several}" if found else "not there"))


Reader = Callable[[Iterable[str], Sequence[Price]], Reading]  # lines of the source, entries of the list


@dataclass(frozen=True)
class Source:
    """A place where prices are stated. Of two that state the same price, the first in SOURCES counts."""

    name: str
    url: str
    read: Reader
    key: str | None = None  # environment variable with the key that it wants


@dataclass(frozen=True)
class Rate:
    """How a row of the AWS price list is known."""

    usage: str  # type, without the region's prefix
    unit: str
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # column -> what it may hold


LINUX = {
    "operatingsystem": ("Linux",),
    "tenancy": ("Shared",),
    "preinstalleds/w": ("NA",),
    "capacitystatus": ("Used",),
    "operation": ("RunInstances",),
}
EC2_HOUR = re.compile(r"aws_ec2_([a-z0-9]+)_([a-z0-9]+)_hour")
EC2_SURPLUS = re.compile(r"aws_ec2_([a-z0-9]+)_surplus_vcpu_hour")
AWS_RATES: dict[str, dict[str, Rate]] = {  # offer -> id -> row; EC2's instances and credits follow from their ids
    "AmazonEC2": {"aws_ebs_gp3_gb_month": Rate("EBS:VolumeUsage.gp3", "GB-Mo")},
    "AmazonVPC": {"aws_public_ipv4_hour": Rate("PublicIPv4:InUseAddress", "Hrs")},
    "AWSDataTransfer": {
        "aws_egress_gb": Rate("DataTransfer-Out-Bytes", "GB", {"transfertype": ("AWS Outbound",)}),
    },
}
# id -> stock-keeping unit, or its description where the unit is not known; unit; how many of them the price is for
GOOGLE_UNITS: dict[str, dict[str, tuple[str, str, float]]] = {
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


def read_aws(offer: str, lines: Iterable[str], entries: Sequence[Price]) -> Reading:
    """A regional offer file of the AWS price list. Of a price in tiers, the first that is not free."""
    rates = {p.id: rate for p in entries if p.region == AWS_REGION and (rate := _aws_rate(offer, p.id))}
    rows = csv.reader(lines)
    columns, published = _aws_header(rows, rates.values())
    by_usage = {usage: i for i, rate in rates.items() for usage in (rate.usage, AWS_PREFIX + rate.usage)}
    tiers: dict[str, dict[float, set[float]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        price_id = by_usage.get(row[columns["usagetype"]]) if len(row) == len(columns) else None
        if price_id and _is_of(row, columns, rates[price_id]):
            amount = float(row[columns["priceperunit"]])
            if amount > 0:
                tiers[price_id][float(row[columns["startingrange"]] or 0)].add(amount)
    found = Reading()
    for price_id in rates:
        starts = tiers.get(price_id)
        found.settle(
            price_id, starts[min(starts)] if starts else (), f"AWS Price List, {offer}, {AWS_REGION}{published}"
        )
    return found


def _aws_rate(offer: str, price_id: str) -> Rate | None:
    if offer == "AmazonEC2":
        if of := EC2_SURPLUS.fullmatch(price_id):
            return Rate(f"CPUCredits:{of[1]}", "vCPU-Hours", {"operatingsystem": ("Linux", "")})
        if of := EC2_HOUR.fullmatch(price_id):
            return Rate(f"BoxUsage:{of[1]}.{of[2]}", "Hrs", LINUX)
    return AWS_RATES[offer].get(price_id)


def _aws_header(rows: Iterable[list[str]], rates: Iterable[Rate]) -> tuple[dict[str, int], str]:
    """Column -> its place, and the day of publication in words."""
    published = ""
    for row in islice(rows, PREAMBLE):
        if row[:1] == ["Publication Date"] and len(row) > 1:
            published = f", published {row[1][:10]}"
        if row[:1] == ["SKU"]:
            columns = {name.replace(" ", "").lower(): place for place, name in enumerate(row)}
            needed = {"termtype", "unit", "priceperunit", "currency", "startingrange", "usagetype"}
            if missing := sorted((needed | {name for rate in rates for name in rate.where}) - columns.keys()):
                raise SourceError(f"its header has no {', '.join(missing)}")
            return columns, published
    raise SourceError(f"no header that begins with SKU in the first {PREAMBLE} lines")


def _is_of(row: Sequence[str], columns: Mapping[str, int], rate: Rate) -> bool:
    wanted = {"termtype": ("OnDemand",), "unit": (rate.unit,), "currency": ("USD",), **rate.where}
    return all(row[columns[name]] in values for name, values in wanted.items())


def read_skypilot(lines: Iterable[str], entries: Sequence[Price]) -> Reading:
    """SkyPilot's catalog of AWS machines, a row for each availability zone."""
    sizes = {f"{of[1]}.{of[2]}": p.id for p in entries if p.region == AWS_REGION and (of := EC2_HOUR.fullmatch(p.id))}
    rows = csv.DictReader(lines)
    if missing := sorted({"InstanceType", "Region", "Price"} - set(rows.fieldnames or ())):
        raise SourceError(f"its header has no {', '.join(missing)}")
    amounts: dict[str, set[float]] = {price_id: set() for price_id in sizes.values()}
    for row in rows:
        if row["Region"] == AWS_REGION and row["InstanceType"] in sizes and row["Price"]:
            amounts[sizes[row["InstanceType"]]].add(float(row["Price"]))
    found = Reading()
    for price_id, of in amounts.items():
        found.settle(price_id, of, "SkyPilot catalog v9, aws/vms.csv, a copy of the AWS price list")
    return found


def read_heroku(lines: Iterable[str], entries: Sequence[Price]) -> Reading:
    """The table in the source of Heroku's command line. It has no price for Eco, but a sentence."""
    text = "".join(lines)
    table = HEROKU_TABLE.search(text)
    if table is None:
        raise SourceError("it has no table COST_MONTHLY")
    amounts = {name.lower().replace("-", "_"): float(usd) for name, usd in HEROKU_ROW.findall(table[1])}
    if flat := HEROKU_ECO.search(text):
        amounts["eco"] = float(flat[1])
    found = Reading()
    for price in entries:
        if of := re.fullmatch(r"heroku_(\w+)_month", price.id):
            amount = amounts.get(of[1], 0.0)
            found.settle(price.id, [amount] if amount else [], "heroku/cli, src/commands/ps/type.ts, COST_MONTHLY")
    return found


def read_google(service: str, lines: Iterable[str], entries: Sequence[Price]) -> Reading:
    """A service's units in the Cloud Billing Catalog. Of a price in tiers, the last: the first may be free."""
    page = json.loads("".join(lines))
    if not isinstance(page, dict) or not isinstance(page.get("skus"), list):
        raise SourceError("it has no list called skus")
    if page.get("nextPageToken"):
        raise SourceError("it goes on on a second page, which is not read")
    found = Reading()
    known = {price.id for price in entries}
    for price_id, (name, unit, times) in GOOGLE_UNITS[service].items():
        if price_id in known:
            units = [sku for sku in page["skus"] if name in (sku.get("skuId"), sku.get("description"))]
            amounts = [round(_google_amount(s, unit) * times, 12) for s in units if _is_sold(s)]
            ids = ", ".join(sorted({sku["skuId"] for sku in units}))
            found.settle(price_id, amounts, f"Cloud Billing Catalog, {service}, SKU {ids}")
    return found


def _is_sold(sku: Mapping[str, Any]) -> bool:
    return any(region in GOOGLE_REGIONS for region in sku["serviceRegions"])


def _google_amount(sku: Mapping[str, Any], unit: str) -> float:
    expression = sku["pricingInfo"][-1]["pricingExpression"]
    if expression["usageUnit"] != unit:
        raise SourceError(f"SKU {sku['skuId']} is sold by {expression['usageUnit']!r}, expected {unit!r}")
    price = expression["tieredRates"][-1]["unitPrice"]
    if price.get("currencyCode", "USD") != "USD":
        raise SourceError(f"SKU {sku['skuId']} is priced in {price['currencyCode']}")
    return int(price.get("units", 0)) + price.get("nanos", 0) / 1e9


AWS = "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws"
GITHUB = "https://raw.githubusercontent.com"
GOOGLE = "https://cloudbilling.googleapis.com/v1/services"

SOURCES = (
    Source("AWS addresses", f"{AWS}/AmazonVPC/current/us-east-1/index.csv", partial(read_aws, "AmazonVPC")),
    Source("AWS egress", f"{AWS}/AWSDataTransfer/current/us-east-1/index.csv", partial(read_aws, "AWSDataTransfer")),
    Source("AWS machines", f"{AWS}/AmazonEC2/current/us-east-1/index.csv", partial(read_aws, "AmazonEC2")),
    Source("SkyPilot", f"{GITHUB}/skypilot-org/skypilot-catalog/master/catalogs/v9/aws/vms.csv", read_skypilot),
    Source("Heroku", f"{GITHUB}/heroku/cli/main/src/commands/ps/type.ts", read_heroku),
    Source("Google Cloud Run", f"{GOOGLE}/152E-C115-5142/skus?pageSize=5000", partial(read_google, "Cloud Run"),
           "GOOGLE_API_KEY"),
    Source("Google functions", f"{GOOGLE}/29E7-DA93-CA13/skus?pageSize=5000",
           partial(read_google, "Cloud Run Functions"), "GOOGLE_API_KEY"),
)  # fmt: skip
