"""Price sources in the shapes they have, served from this machine: what is taken from them, and what is not.

The header of the AWS price list, the rows of SkyPilot's catalog, the table in Heroku's command line and the units of
Google's catalog are as published; rows of addresses, disks and credits follow the documentation.
"""

import csv
import io
import json
import re
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import pytest

from eval.__main__ import main
from eval.cost.price_list import PRICE_LIST_PATH, load_price_list
from eval.cost.price_refresh import refresh, yaml_entry
from eval.cost.price_sources import SOURCES, Source, parse_aws, parse_google, parse_heroku, parse_skypilot
from eval.errors import PriceError
from tests.helpers.fake_endpoint import closed_port
from tests.helpers.http_server import http_server

DAY = date(2027, 3, 4)
HEADER = (
    "SKU", "OfferTermCode", "RateCode", "TermType", "PriceDescription", "EffectiveDate", "StartingRange",
    "EndingRange", "Unit", "PricePerUnit", "Currency", "Product Family", "serviceCode", "Location", "Instance Type",
    "Tenancy", "Operating System", "License Model", "Transfer Type", "usageType", "operation", "CapacityStatus",
    "Pre Installed S/W", "Region Code",
)  # fmt: skip
HEROKU = """
const COST_MONTHLY: Record<string, number> = {
  '1X': 36,
  Basic: 7,
  Eco: 0,
  'Performance-M': 250,
  'Standard-1X': 25,
  'Standard-2X': 50,
}

const calculateHourly =  (size: string) => COST_MONTHLY[size] / 720
    ux.stdout('\\n$5 (flat monthly fee, shared across all Eco dynos)')
"""


def aws(*rows, published="2027-03-01T20:59:55Z"):
    """An offer file. A row is what differs from an on-demand row in dollars."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    facts = ("FormatVersion", "v1.0"), ("Disclaimer", "For information, only."), ("Publication Date", published)
    writer.writerows([*facts, ("Version", "1"), ("OfferCode", "AmazonEC2"), HEADER])
    usual = {"SKU": "X", "TermType": "OnDemand", "StartingRange": "0", "EndingRange": "Inf", "Currency": "USD"}
    writer.writerows([(usual | row).get(column, "") for column in HEADER] for row in rows)
    return text.getvalue()


def box(size, usd, **changes):
    return {
        "usageType": f"BoxUsage:{size}", "Unit": "Hrs", "PricePerUnit": usd, "Operating System": "Linux",
        "Tenancy": "Shared", "Pre Installed S/W": "NA", "CapacityStatus": "Used", "operation": "RunInstances",
    } | changes  # fmt: skip


def catalog(*rows):
    return "InstanceType,AcceleratorName,vCPUs,Price,SpotPrice,Region,AvailabilityZone\n" + "".join(
        f"{size},,2.0,{usd},0.004,{region},use1-az{zone}\n" for zone, (size, usd, region) in enumerate(rows)
    )


def unit(sku_id, nanos, usage="s", region="us-central1", free=False, description=""):
    rates = [{"startUsageAmount": 0, "unitPrice": {"currencyCode": "USD", "units": "0", "nanos": 0}}] if free else []
    rates.append({"unitPrice": {"currencyCode": "USD", "units": "0", "nanos": nanos}})
    expression = {"usageUnit": usage, "tieredRates": rates}
    return {"skuId": sku_id, "description": description, "serviceRegions": [region],
            "pricingInfo": [{"pricingExpression": expression}]}  # fmt: skip


@pytest.fixture
def served():
    """Address of a file with that content; a whole answer may be given as (status, headers, body)."""
    pages, asked = {}, []

    def respond(request, _):
        asked.append((request.path, dict(request.headers)))
        status, headers, body = pages[request.path]
        request.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    with http_server(respond) as port:

        def serve(page):
            path = f"/{len(pages)}"
            pages[path] = page if isinstance(page, tuple) else (200, {}, page.encode())
            return f"http://127.0.0.1:{port}{path}"

        serve.asked = asked
        yield serve


@pytest.fixture
def shipped(tmp_path):
    """A copy of the shipped list."""
    path = tmp_path / "prices.yaml"
    path.write_bytes(PRICE_LIST_PATH.read_bytes())
    return path


def ec2(url):
    return Source("AWS machines", url, partial(parse_aws, "AmazonEC2"))


def refreshed(path, *sources, environment=None, today=DAY):
    """The result, and all that was printed."""
    lines = []
    result = refresh(path, sources, today=today, environment=environment or {}, write_line=lines.append)
    return result, "\n".join(lines)


def amounts(result):
    return {check.price.id: check.quote.amount for check in result.checks}


def test_the_difference_is_printed_and_nothing_is_written(shipped, served):
    before = shipped.read_bytes()
    url = served(aws(box("t3.micro", "0.0104000000"), box("t3.small", "0.0260000000")))
    result, printed = refreshed(shipped, ec2(url), today=date(2026, 12, 1))
    assert amounts(result) == {"aws_ec2_t3_micro_hour": 0.0104, "aws_ec2_t3_small_hour": 0.026}
    assert [check.price.id for check in result.updates] == ["aws_ec2_t3_small_hour"]
    assert "0.0208  0.026   +25.0%     AWS Price List, AmazonEC2, us-east-1, published 2027-03-01" in printed
    assert "0.0104  0.0104  as listed" in printed
    assert "1 as listed, 1 changed; nothing was written" in printed
    assert shipped.read_bytes() == before
    assert list(shipped.parent.iterdir()) == [shipped]


def test_an_entry_of_another_region_is_left_alone(shipped, served):
    entry = next(p for p in load_price_list(shipped).entries if p.id == "aws_ec2_t3_small_hour")
    elsewhere = replace(entry, region="eu-west-1", amount=0.03)
    shipped.write_text(shipped.read_text().replace("prices:\n", f"prices:\n{yaml_entry(elsewhere)}\n", 1))
    result, printed = refreshed(shipped, ec2(served(aws(box("t3.small", "0.0260000000")))))
    assert [(check.price.region, check.quote.amount) for check in result.checks] == [("us-east-1", 0.026)]
    assert "no source has aws_ec2_t3_small_hour" in printed


def test_the_printed_entries_can_be_pasted_over_the_old_ones(shipped, served):
    credits_row = {"usageType": "CPUCredits:t4g", "Unit": "vCPU-Hours", "PricePerUnit": "0.0000250000"}
    result, printed = refreshed(shipped, ec2(served(aws(box("t3.small", "0.026"), credits_row))))
    snippets = dict(re.findall(r"^(  - id: (?:\S+)\n)((?:    .*\n?)+)", printed, re.MULTILINE))
    old, text = load_price_list(shipped), shipped.read_text()
    for id_line, fields in snippets.items():
        text = re.sub(f"{re.escape(id_line)}(?:    .*\n)+", lambda _: id_line + fields.rstrip("\n") + "\n", text)  # noqa: B023
    shipped.write_text(text)
    new = {price.id: price for price in load_price_list(shipped).entries}
    small, surplus = new["aws_ec2_t3_small_hour"], new["aws_ec2_t4g_surplus_vcpu_hour"]
    assert (small.amount, small.date, small.confirmed) == (0.026, DAY, True)
    assert small.note.startswith("before: 0.0208, https://cloud-bench.com/blog/aws-t3-micro-vs-t3-small, 2026-11-20; ")
    assert (surplus.amount, surplus.date, surplus.confirmed) == (0.000025, DAY, True)
    assert {price.id for price in old.entries if price != new[price.id]} == {small.id, surplus.id}
    assert len(result.updates) == len(snippets) == 2


def test_an_entry_as_listed_is_updated_if_stale_or_unconfirmed(shipped, served):
    prices = {price.id: price for price in load_price_list(shipped).entries}
    assert not prices["aws_ec2_t4g_surplus_vcpu_hour"].confirmed
    credits_row = {"usageType": "CPUCredits:t4g", "Unit": "vCPU-Hours", "PricePerUnit": "0.04"}
    sources = [ec2(served(aws(box("t3.small", "0.0208"), credits_row)))]
    fresh, _ = refreshed(shipped, *sources, today=date(2026, 12, 1))
    assert [check.price.id for check in fresh.updates] == ["aws_ec2_t4g_surplus_vcpu_hour"]
    stale, _ = refreshed(shipped, *sources, today=date(2027, 12, 1))
    assert [check.price.id for check in stale.updates] == ["aws_ec2_t3_small_hour", "aws_ec2_t4g_surplus_vcpu_hour"]


def test_a_list_that_agrees_has_no_entry_to_update(shipped, served):
    result, printed = refreshed(shipped, ec2(served(aws(box("t3.small", "0.0208")))), today=date(2026, 12, 1))
    assert result.updates == ()
    assert printed.endswith("1 as listed, 0 changed; no entry to update")


def test_the_advised_copy_replaces_no_earlier_list(shipped, served):
    archive = shipped.parent / "prices"
    archive.mkdir()
    (archive / f"{load_price_list(shipped).date}.yaml").write_text("of the same day", encoding="utf-8")
    _, printed = refreshed(shipped, ec2(served(aws(box("t3.small", "0.0209")))), today=date(2026, 12, 1))
    (advised,) = re.findall(r"copy prices\.yaml to (\S+\.yaml),", printed)
    assert not Path(advised).exists() and Path(advised).parent == archive


def test_an_earlier_list_is_found_by_its_checksum(shipped):
    old = load_price_list(shipped)
    archive = shipped.parent / "prices"
    archive.mkdir()
    (archive / "2026-11-20.yaml").write_bytes(shipped.read_bytes())
    shipped.write_text(shipped.read_text().replace("amount: 0.0208", "amount: 0.026"))
    new = load_price_list(shipped)
    assert new.sha256 != old.sha256
    assert load_price_list(shipped, sha256=old.sha256) == old
    assert load_price_list(shipped, sha256=new.sha256) == new
    assert load_price_list(shipped, sha256="0" * 64) == new


@pytest.mark.parametrize(("usd", "exit_code"), [("0.0209", 3), ("0.0208", 0)])
def test_the_exit_status_says_whether_an_entry_is_to_be_updated(served, monkeypatch, capsys, usd, exit_code):
    source = ec2(served(aws(box("t3.small", usd))))
    from_source = partial(refresh, PRICE_LIST_PATH, [source], today=date(2026, 12, 1))
    monkeypatch.setattr("eval.cost.price_refresh.refresh", from_source)
    assert main(["prices", "--refresh"]) == exit_code
    assert "aws_ec2_t3_small_hour" in capsys.readouterr().out


def test_only_the_row_that_is_meant_is_taken_from_the_aws_list(shipped, served):
    def egress(start, usd, **changes):
        return {"usageType": "DataTransfer-Out-Bytes", "Unit": "GB", "StartingRange": start, "PricePerUnit": usd,
                "Transfer Type": "AWS Outbound"} | changes  # fmt: skip

    machines = aws(
        box("t3.small", "0.0130", TermType="Reserved"),
        box("t3.small", "0.0392", **{"Operating System": "Windows", "operation": "RunInstances:0002"}),
        box("t3.small", "0.0220", Tenancy="Dedicated"),
        box("t3.small", "0.0208", CapacityStatus="UnusedCapacityReservation", operation="RunInstances"),
        box("t3.small", "0.0000", CapacityStatus="Used", **{"Pre Installed S/W": "SQL Std"}),
        box("t3.small", "0.0209"),
        box("t3.small", "0.0260") | {"usageType": "BOS1-BoxUsage:t3.small"},
        {"usageType": "EBS:VolumeUsage.gp3", "Unit": "GB-Mo", "PricePerUnit": "0.0810"},
        {"usageType": "EBS:VolumeP-IOPS.gp3", "Unit": "IOPS-Mo", "PricePerUnit": "0.005"},
    )
    network = aws({"usageType": "USE1-PublicIPv4:InUseAddress", "Unit": "Hrs", "PricePerUnit": "0.0051"},
                  {"usageType": "USE1-PublicIPv4:IdleAddress", "Unit": "Hrs", "PricePerUnit": "0.0061"})  # fmt: skip
    transfer = aws(
        egress("10240", "0.085"), egress("0", "0.0"), egress("100", "0.091"), egress("51200", "0.07"),
        egress("0", "0.02", **{"Transfer Type": "InterRegion Outbound"}),
        egress("0", "0.11", usageType="EU-DataTransfer-Out-Bytes"),
    )  # fmt: skip
    result, printed = refreshed(
        shipped,
        ec2(served(machines)),
        Source("AWS addresses", served(network), partial(parse_aws, "AmazonVPC")),
        Source("AWS egress", served(transfer), partial(parse_aws, "AWSDataTransfer")),
    )
    assert amounts(result) == {
        "aws_ec2_t3_small_hour": 0.0209, "aws_ebs_gp3_gb_month": 0.081, "aws_public_ipv4_hour": 0.0051,
        "aws_egress_gb": 0.091,
    }  # fmt: skip
    assert "AWS machines: aws_ec2_t3_micro_hour: not found" in printed


def test_of_two_prices_for_one_thing_neither_is_taken(shipped, served):
    result, printed = refreshed(shipped, ec2(served(aws(box("t3.small", "0.021"), box("t3.small", "0.022")))))
    assert result.checks == ()
    assert "aws_ec2_t3_small_hour: expected one price, found 0.021, 0.022" in printed


def test_copy_fills_gaps_and_contradictions_are_reported(shipped, served):
    copy = Source("SkyPilot", served(catalog(
        ("t3.micro", 0.0105, "us-east-1"), ("t3.micro", 0.0105, "us-east-1"), ("t3.micro", 0.0114, "eu-west-1"),
        ("t3.small", 0.0208, "us-east-1"),
    )), parse_skypilot)  # fmt: skip
    result, printed = refreshed(shipped, ec2(served(aws(box("t3.small", "0.0209")))), copy)
    assert amounts(result) == {"aws_ec2_t3_micro_hour": 0.0105, "aws_ec2_t3_small_hour": 0.0209}
    assert "SkyPilot: aws_ec2_t3_small_hour is 0.0208, not 0.0209 as in AWS Price List" in printed


def test_dynos_are_read_from_the_table_and_eco_from_its_sentence(shipped, served):
    result, _ = refreshed(shipped, Source("Heroku", served(HEROKU), parse_heroku))
    assert amounts(result) == {
        "heroku_eco_month": 5, "heroku_basic_month": 7, "heroku_standard_1x_month": 25, "heroku_standard_2x_month": 50
    }  # fmt: skip
    without_eco = served(HEROKU.replace("flat monthly fee", "fee"))
    result, printed = refreshed(shipped, Source("Heroku", without_eco, parse_heroku))
    assert "heroku_eco_month" not in amounts(result)  # the table's 0 is no price
    assert "heroku_eco_month: not found" in printed


def google(served, page, service="Cloud Run"):
    return Source(f"Google {service}", served(json.dumps(page)), partial(parse_google, service), "GOOGLE_API_KEY")


def test_google_is_read_with_a_key_that_stands_in_no_address(shipped, served):
    page = {"skus": [
        unit("4856-B847-F1EB", 25_000), unit("02A2-9231-36A6", 2_500, "GiBy.s"),
        unit("2DA5-55D3-E679", 400, "count", "global", free=True), unit("FFFF", 1),
    ], "nextPageToken": ""}  # fmt: skip
    functions = {"skus": [
        unit("A1", 24_000, description="Cloud Run functions CPU (Request-based billing) in us-central1"),
        unit("B2", 10_000, description="Cloud Run functions (1st Gen) CPU (Request-based billing)"),
        unit("C3", 33_600, description="Cloud Run functions CPU (Request-based billing) in europe-west2"),
    ]}  # fmt: skip
    key = {"GOOGLE_API_KEY": "not-a-real-key"}
    result, printed = refreshed(
        shipped, google(served, page), google(served, functions, "Cloud Run Functions"), environment=key
    )
    assert amounts(result) == {
        "gcp_cloudrun_vcpu_second": 0.000025, "gcp_cloudrun_gib_second": 0.0000025,
        "gcp_cloudrun_million_requests": 0.4, "gcp_function_vcpu_second": 0.000024,
    }  # fmt: skip
    sources = {check.price.id: check.quote.source for check in result.checks}
    assert sources["gcp_function_vcpu_second"] == "Cloud Billing Catalog, Cloud Run Functions, SKU A1"
    assert "not-a-real-key" not in printed
    for path, headers in served.asked:
        assert "not-a-real-key" not in path
        assert headers["X-Goog-Api-Key"] == "not-a-real-key"


def test_without_a_key_google_is_not_read(shipped, served):
    result, printed = refreshed(shipped, google(served, {}), Source("Heroku", served(HEROKU), parse_heroku))
    assert "Google Cloud Run: not read, it needs a key: set GOOGLE_API_KEY" in printed
    assert {price_id.partition("_")[0] for price_id in amounts(result)} == {"heroku"}
    assert len(served.asked) == 1


BROKEN = {
    "not there": ((404, {}, b""), "cannot be read: HTTP 404 Not Found"),
    "moved": ((302, {"Location": "/elsewhere"}, b""), "cannot be read: HTTP 302 Found"),
    "a login page": ("<html>Please log in</html>\n", "cannot be parsed: no header that starts with SKU"),
    "another header": (aws().replace('"Tenancy"', '"Tenure"'), "cannot be parsed: its header has no tenancy"),
    "no number": (aws(box("t3.small", "free")), "cannot be parsed: could not convert string to float: 'free'"),
    "not text": ((200, {}, b"\xff\xfe\x00"), "cannot be parsed: 'utf-8' codec can't decode"),
    "torn": ((200, {"Content-Length": "99999"}, aws().encode()), "bytes early"),
    "a line without end": ((200, {}, b"x" * 2**21), "cannot be parsed: it is too large for a price list"),
}


@pytest.mark.parametrize(("page", "message"), BROKEN.values(), ids=BROKEN)
def test_unreadable_source_is_one_note_and_others_continue(shipped, served, page, message):
    result, _ = refreshed(shipped, ec2(served(page)), Source("Heroku", served(HEROKU), parse_heroku))
    (note,) = [line for line in result.notes if line.startswith("AWS machines: ")]
    assert message in note
    assert "\n" not in note
    assert {price_id.partition("_")[0] for price_id in amounts(result)} == {"heroku"}
    assert len(served.asked) == 2  # a redirect is not followed


def test_a_list_of_which_no_source_can_be_read_is_an_error(shipped):
    with pytest.raises(PriceError, match=r"no source could be read; AWS machines: cannot be read: .*refused"):
        refreshed(shipped, ec2(f"http://127.0.0.1:{closed_port()}/index.csv"))


def test_google_units_sold_by_something_else_are_not_taken(shipped, served):
    page = {"skus": [unit("4856-B847-F1EB", 24_000, "h")]}
    with pytest.raises(PriceError, match="SKU 4856-B847-F1EB is sold by 'h', expected 's'"):
        refreshed(shipped, google(served, page), environment={"GOOGLE_API_KEY": "k"})


def test_sources_have_unique_names_and_https_urls():
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    assert all(source.url.startswith("https://") for source in SOURCES)


def test_sagemakers_hour_is_that_of_hosting_not_of_training():
    def row(usage, usd, **changes):
        return {"usageType": usage, "Unit": "Hrs", "PricePerUnit": usd, "operation": "RunInstance"} | changes

    text = aws(
        row("USE1-Host:ml.m5.large", "0.1150000000"), row("USE1-Train:ml.m5.large", "0.1380000000"),
        row("USE1-Host:ml.m5.xlarge", "0.2300000000"), row("USE2-Host:ml.t2.medium", "0.0700000000"),
        row("USE1-Host:ml.c5.xlarge", "0.1", TermType="Reserved"),
    )  # fmt: skip
    found = parse_aws("AmazonSageMaker", io.StringIO(text), load_price_list().entries)
    assert {quote.price_id: quote.amount for quote in found.quotes} == {
        "aws_sagemaker_ml_m5_large_hour": 0.115,
        "aws_sagemaker_ml_m5_xlarge_hour": 0.23,
    }
    assert sorted(note.partition(":")[0] for note in found.notes) == [
        "aws_sagemaker_ml_c5_xlarge_hour",
        "aws_sagemaker_ml_t2_medium_hour",
    ]
