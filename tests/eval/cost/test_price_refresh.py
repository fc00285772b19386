"""Price sources in the shapes they have, served from this machine: what is taken from them, and what is not.

The header of the AWS price list, the rows of SkyPilot's catalog, the table in Heroku's command line and the units of
Google's catalog are as published; rows of addresses, disks and credits follow the documentation.
"""

import contextlib
import csv
import http.server
import io
import json
import threading
from datetime import date
from functools import partial

import pytest

from eval.__main__ import main
from eval.cost.price_list import PRICE_LIST_PATH, load_price_list
from eval.cost.price_refresh import refresh
from eval.cost.price_sources import SOURCES, Source, parse_aws, parse_google, parse_heroku, parse_skypilot
from eval.errors import PriceError
from tests.helpers.fake_endpoint import closed_port

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

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, dict(self.headers)))
            status, headers, body = pages[self.path]
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def serve(page):
        path = f"/{len(pages)}"
        pages[path] = page if isinstance(page, tuple) else (200, {}, page.encode())
        return f"http://127.0.0.1:{server.server_port}{path}"

    serve.asked = asked
    with contextlib.closing(server.socket):
        yield serve
        server.shutdown()
        thread.join()


@pytest.fixture
def shipped(tmp_path):
    """A copy of the shipped list."""
    path = tmp_path / "prices.yaml"
    path.write_bytes(PRICE_LIST_PATH.read_bytes())
    return path


def ec2(url):
    return Source("AWS machines", url, partial(parse_aws, "AmazonEC2"))


def held(path, *sources, environment=None, **options):
    """What was found, and all that was said."""
    said = []
    done = refresh(path, sources, today=DAY, environment=environment or {}, write_line=said.append, **options)
    return done, "\n".join(said)


def amounts(done):
    return {change.price.id: change.quote.amount for change in done.changes}


def entry(path, price_id):
    return next(price for price in load_price_list(path).entries if price.id == price_id)


def test_refresh_prints_the_diff_and_writes_only_on_request(shipped, served):
    before = shipped.read_bytes()
    url = served(aws(box("t3.micro", "0.0104000000"), box("t3.small", "0.0260000000")))
    done, said = held(shipped, ec2(url))
    assert amounts(done) == {"aws_ec2_t3_micro_hour": 0.0104, "aws_ec2_t3_small_hour": 0.026}
    assert "0.0208  0.026   +25.0%     AWS Price List, AmazonEC2, us-east-1, published 2027-03-01" in said
    assert "0.0104  0.0104  as listed" in said
    assert "1 as listed, 1 changed; nothing was written: --write does" in said
    assert shipped.read_bytes() == before
    assert list(shipped.parent.iterdir()) == [shipped]


def test_written_list_changes_only_dates_and_confirmations(shipped, served):
    old = load_price_list(shipped)
    comments = [line for line in shipped.read_text().splitlines() if line.strip().startswith("#")]
    credits_row = {"usageType": "CPUCredits:t4g", "Unit": "vCPU-Hours", "PricePerUnit": "0.0400000000"}
    done, _ = held(shipped, ec2(served(aws(box("t3.small", "0.026"), credits_row))), write=True)
    new = load_price_list(shipped)
    assert new.date == DAY
    small = entry(shipped, "aws_ec2_t3_small_hour")
    assert (small.amount, small.date, small.confirmed) == (0.026, DAY, True)
    assert small.note.startswith("before: 0.0208, https://cloud-bench.com/blog/aws-t3-micro-vs-t3-small, 2026-11-20; ")
    surplus = entry(shipped, "aws_ec2_t4g_surplus_vcpu_hour")
    assert (surplus.amount, surplus.date, surplus.confirmed) == (0.04, DAY, True)
    touched = {"aws_ec2_t3_small_hour", "aws_ec2_t4g_surplus_vcpu_hour"}
    assert [p for p in new.entries if p.id not in touched] == [p for p in old.entries if p.id not in touched]
    assert [line for line in shipped.read_text().splitlines() if line.strip().startswith("#")] == comments
    assert done.archived_path == shipped.parent / "prices" / "2026-11-20.yaml"


def test_the_list_that_was_replaced_is_found_by_its_checksum(shipped, served):
    old = load_price_list(shipped)
    held(shipped, ec2(served(aws(box("t3.small", "0.026")))), write=True)
    new = load_price_list(shipped)
    assert new.sha256 != old.sha256
    assert load_price_list(shipped, sha256=old.sha256) == old
    assert load_price_list(shipped, sha256=new.sha256) == new
    assert load_price_list(shipped, sha256="0" * 64) == new


def test_every_list_that_a_day_writes_is_kept(shipped, served):
    sums = []
    for usd in ("0.021", "0.022", "0.023"):
        sums.append(load_price_list(shipped).sha256)
        held(shipped, ec2(served(aws(box("t3.small", usd)))), write=True)
    assert [load_price_list(shipped, sha256=one).sha256 for one in sums] == sums
    assert entry(shipped, "aws_ec2_t3_small_hour").note.count("before:") == 1


def test_what_says_the_same_on_the_same_day_is_written_once(shipped, served):
    sources = [ec2(served(aws(box("t3.small", "0.026"))))]
    held(shipped, *sources, write=True)
    done, said = held(shipped, *sources, write=True)
    assert done.archived_path is None
    assert said.endswith("1 as listed, 0 changed; nothing was written")


def test_a_change_of_more_than_half_is_refused_unless_accepted(shipped, served):
    source = ec2(served(aws(box("t3.small", "0.0313"), box("t3.micro", "0.0050"), box("t3.medium", "0.0624"))))
    done, said = held(shipped, source, write=True)
    assert [change.price.id for change in done.rejected] == ["aws_ec2_t3_micro_hour", "aws_ec2_t3_small_hour"]
    assert "+50.5% refused" in said
    assert "-51.9% refused" in said
    assert "2 refused as changes of more than 50%: look at them, then --accept-large-changes" in said
    assert entry(shipped, "aws_ec2_t3_small_hour").amount == 0.0208
    assert entry(shipped, "aws_ec2_t3_small_hour").date == date(2026, 11, 20)
    assert entry(shipped, "aws_ec2_t3_medium_hour").amount == 0.0624
    done, _ = held(shipped, source, write=True, accept_large=True)
    assert done.rejected == ()
    assert entry(shipped, "aws_ec2_t3_small_hour").amount == 0.0313


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
    done, said = held(
        shipped,
        ec2(served(machines)),
        Source("AWS addresses", served(network), partial(parse_aws, "AmazonVPC")),
        Source("AWS egress", served(transfer), partial(parse_aws, "AWSDataTransfer")),
    )
    assert amounts(done) == {
        "aws_ec2_t3_small_hour": 0.0209, "aws_ebs_gp3_gb_month": 0.081, "aws_public_ipv4_hour": 0.0051,
        "aws_egress_gb": 0.091,
    }  # fmt: skip
    assert "AWS machines: aws_ec2_t3_micro_hour: not there" in said


def test_of_two_prices_for_one_thing_neither_is_taken(shipped, served):
    done, said = held(shipped, ec2(served(aws(box("t3.small", "0.021"), box("t3.small", "0.022")))))
    assert done.changes == ()
    assert "aws_ec2_t3_small_hour: one price was expected, found 0.021, 0.022" in said


def test_copy_fills_gaps_and_contradictions_are_reported(shipped, served):
    copy = Source("SkyPilot", served(catalog(
        ("t3.micro", 0.0105, "us-east-1"), ("t3.micro", 0.0105, "us-east-1"), ("t3.micro", 0.0114, "eu-west-1"),
        ("t3.small", 0.0208, "us-east-1"),
    )), parse_skypilot)  # fmt: skip
    done, said = held(shipped, ec2(served(aws(box("t3.small", "0.0209")))), copy)
    assert amounts(done) == {"aws_ec2_t3_micro_hour": 0.0105, "aws_ec2_t3_small_hour": 0.0209}
    assert "SkyPilot: aws_ec2_t3_small_hour is 0.0208, not 0.0209 as in AWS Price List" in said


def test_dynos_are_read_from_the_table_and_eco_from_its_sentence(shipped, served):
    done, _ = held(shipped, Source("Heroku", served(HEROKU), parse_heroku))
    assert amounts(done) == {
        "heroku_eco_month": 5, "heroku_basic_month": 7, "heroku_standard_1x_month": 25, "heroku_standard_2x_month": 50
    }  # fmt: skip
    done, said = held(shipped, Source("Heroku", served(HEROKU.replace("flat monthly fee", "fee")), parse_heroku))
    assert "heroku_eco_month" not in amounts(done)  # the table's 0 is no price
    assert "heroku_eco_month: not there" in said


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
    done, said = held(
        shipped, google(served, page), google(served, functions, "Cloud Run Functions"), environment=key, write=True
    )
    assert amounts(done) == {
        "gcp_cloudrun_vcpu_second": 0.000025, "gcp_cloudrun_gib_second": 0.0000025,
        "gcp_cloudrun_million_requests": 0.4, "gcp_function_vcpu_second": 0.000024,
    }  # fmt: skip
    assert entry(shipped, "gcp_function_vcpu_second").confirmed
    assert entry(shipped, "gcp_function_vcpu_second").source == "Cloud Billing Catalog, Cloud Run Functions, SKU A1"
    assert "not-a-real-key" not in said
    for path, headers in served.asked:
        assert "not-a-real-key" not in path
        assert headers["X-Goog-Api-Key"] == "not-a-real-key"


def test_without_a_key_google_is_kept_and_said(shipped, served):
    done, said = held(shipped, google(served, {}), Source("Heroku", served(HEROKU), parse_heroku), write=True)
    assert "Google Cloud Run: not read, it wants a key: set GOOGLE_API_KEY" in said
    assert entry(shipped, "gcp_cloudrun_vcpu_second") == entry(PRICE_LIST_PATH, "gcp_cloudrun_vcpu_second")
    assert done.archived_path


BROKEN = {
    "not there": ((404, {}, b""), "cannot be read: it answered 404 Not Found"),
    "moved": ((302, {"Location": "/elsewhere"}, b""), "cannot be read: it answered 302 Found"),
    "a login page": ("<html>Please log in</html>\n", "not understood: no header that begins with SKU"),
    "another header": (aws().replace('"Tenancy"', '"Tenure"'), "not understood: its header has no tenancy"),
    "no number": (aws(box("t3.small", "free")), "not understood: could not convert string to float: 'free'"),
    "not text": ((200, {}, b"\xff\xfe\x00"), "not understood: 'utf-8' codec can't decode"),
    "torn": ((200, {"Content-Length": "99999"}, aws().encode()), "bytes early"),
    "a line without end": ((200, {}, b"x" * 2**21), "not understood: it is longer than any price list"),
}


@pytest.mark.parametrize(("page", "line"), BROKEN.values(), ids=BROKEN)
def test_unreadable_source_is_one_line_and_others_continue(shipped, served, page, line):
    done, _ = held(shipped, ec2(served(page)), Source("Heroku", served(HEROKU), parse_heroku), write=True)
    (told,) = [note for note in done.notes if note.startswith("AWS machines: ")]
    assert line in told
    assert "\n" not in told
    assert entry(shipped, "aws_ec2_t3_small_hour") == entry(PRICE_LIST_PATH, "aws_ec2_t3_small_hour")
    assert entry(shipped, "heroku_basic_month").date == DAY
    assert len(served.asked) == 2  # a redirect is not followed


def test_a_list_of_which_no_source_can_be_read_is_an_error(shipped):
    with pytest.raises(PriceError, match=r"no source could be read; AWS machines: cannot be read: .*refused"):
        held(shipped, ec2(f"http://127.0.0.1:{closed_port()}/index.csv"), write=True)
    assert shipped.read_bytes() == PRICE_LIST_PATH.read_bytes()


def test_google_units_sold_by_something_else_are_not_taken(shipped, served):
    page = {"skus": [unit("4856-B847-F1EB", 24_000, "h")]}
    with pytest.raises(PriceError, match="SKU 4856-B847-F1EB is sold by 'h', expected 's'"):
        held(shipped, google(served, page), environment={"GOOGLE_API_KEY": "k"})


def test_a_list_laid_out_otherwise_is_not_written_to(shipped, served):
    id_first, id_second = (
        "- id: aws_ec2_t3_small_hour\n    amount: 0.0208\n",
        "- amount: 0.0208\n    id: aws_ec2_t3_small_hour\n",
    )
    text = shipped.read_text().replace(id_first, id_second)
    shipped.write_text(text)
    with pytest.raises(PriceError, match="one key a line, an entry's id first; nothing was written"):
        held(shipped, ec2(served(aws(box("t3.small", "0.026")))), write=True)
    assert shipped.read_text() == text


def test_sources_are_unique_https_urls_and_cover_every_price():
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    assert all(source.url.startswith("https://") for source in SOURCES)


def test_writing_without_refreshing_is_an_error(capsys):
    assert main(["prices", "--write"]) == 1
    assert "go with --refresh" in capsys.readouterr().err
