"""The shipped price list holds what it must, and a broken one says where and how."""

import hashlib
from datetime import date

import pytest
import yaml

from eval.cost.billing import price_ids_by_role, prices_for
from eval.cost.price_list import PRICE_LIST_PATH, Price, format_table, load_price_list, stale_prices, unconfirmed_prices
from eval.errors import PriceError
from infra.targets import TARGETS

GOOD = {
    "id": "vm_hour",
    "amount": 0.02,
    "unit": "hour",
    "currency": "USD",
    "region": "us-east-1",
    "source": "a page",
    "date": date(2026, 1, 1),
    "confirmed": True,
    "note": "",
}


def write(tmp_path, text):
    path = tmp_path / "prices.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    return path


def whole(*prices, **changes):
    return {"date": date(2026, 1, 2), "prices": list(prices), "allowances": []} | changes


def test_every_price_has_source_date_and_unit():
    prices = load_price_list()
    assert len(prices.entries) == len({price.id for price in prices.entries}) > 20
    for price in prices.entries:
        assert price.source.strip()
        assert price.unit.strip()
        assert date(2018, 1, 1) <= price.date <= prices.date, price.id
        assert price.amount > 0


def test_allowances_have_no_currency_and_prices_have_one():
    currencies = {price.id: price.currency for price in load_price_list().entries}
    assert currencies["aws_free_egress_gb"] is None
    assert currencies["aws_egress_gb"] == "USD"


def test_prices_without_page_or_agreement_are_not_confirmed():
    assert [price.id for price in unconfirmed_prices(load_price_list().entries)] == [
        "aws_ec2_t4g_surplus_vcpu_hour",
        *(f"aws_sagemaker_ml_{size}_hour" for size in ("c5_xlarge", "m5_xlarge", "t2_medium")),
        "aws_sagemaker_processed_gb",
    ]


def test_both_google_targets_share_one_free_tier():
    cloud_run, function = (price_ids_by_role(TARGETS[name]) for name in ("gcp_cloudrun", "gcp_function"))
    roles = [role for role in cloud_run if role.startswith("free_")]
    assert [cloud_run[role] for role in roles] == [function[role] for role in roles]


def test_first_list_is_kept_for_the_runs_that_were_made_with_it():
    kept = load_price_list(sha256="d5917f841fddc4ffaff659498ccf3cef930cecdd44fae8df2c2c16fe81b194da")
    assert kept.date == date(2026, 11, 20)
    for target in TARGETS.values():
        assert set(prices_for(target, kept)) == set(price_ids_by_role(target))


def test_an_earlier_list_has_newer_prices_that_it_lacks():
    newest = load_price_list()
    for path in (PRICE_LIST_PATH.parent / "prices").glob("*.yaml"):
        earlier = load_price_list(sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        assert earlier.date <= newest.date
        own = yaml.safe_load(path.read_text())["prices"]
        assert [price.id for price in earlier.entries][: len(own)] == [entry["id"] for entry in own]
        idle = "gcp_cloudrun_idle_vcpu_second"
        assert earlier.get(idle, "us-central1") == newest.get(idle, "us-central1")
    assert "confirmed: false" in (PRICE_LIST_PATH.parent / "prices" / "2026-11-20.yaml").read_text()
    first = load_price_list(sha256="d5917f841fddc4ffaff659498ccf3cef930cecdd44fae8df2c2c16fe81b194da")
    assert not first.get("gcp_function_vcpu_second", "us-central1").confirmed  # its own price stays


def test_the_checksum_is_the_files():
    assert load_price_list().sha256 == hashlib.sha256(PRICE_LIST_PATH.read_bytes()).hexdigest()


def test_a_price_is_found_by_id_and_region(tmp_path):
    there = GOOD | {"region": "eu-west-1", "amount": 0.03}
    prices = load_price_list(write(tmp_path, whole(GOOD, there)))
    assert [prices.get("vm_hour", region) for region in ("us-east-1", "eu-west-1")] == [Price(**GOOD), Price(**there)]
    with pytest.raises(PriceError, match=r"'vm_day'; add an entry with that id and region us-east-1 to prices\.yaml"):
        prices.get("vm_day", "us-east-1")
    with pytest.raises(PriceError, match="for us-east-1, eu-west-1, not mars; add an entry with that id and region"):
        prices.get("vm_hour", "mars")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"amount": "cheap"}, "amount is 'cheap'; write a number, as 0.0208", id="text-amount"),
        pytest.param({"amount": True}, "amount is True; write a number", id="true-amount"),
        pytest.param({"amount": -1}, "amount is -1; write a number that is not negative", id="negative"),
        pytest.param({"amount": float("nan")}, "amount is nan", id="nan"),
        pytest.param({"amount": float("inf")}, "amount is inf", id="infinite"),
        pytest.param({"date": "soon"}, "date is 'soon'; write a date, as 2026-11-20", id="date"),
        pytest.param({"confirmed": "yes, I think"}, "confirmed is 'yes, I think'; write true or false", id="confirmed"),
        pytest.param({"currency": "EUR"}, "currency is 'EUR'; prices are in USD", id="currency"),
        pytest.param({"source": " "}, "source is empty", id="no-source"),
        pytest.param({"amont": 3}, "unknown key amont", id="misspelt"),
    ],
)
def test_a_broken_entry_is_named_with_what_would_be_right(tmp_path, change, message):
    with pytest.raises(PriceError) as error:
        load_price_list(write(tmp_path, whole(GOOD | change)))
    assert "prices, vm_hour: " in str(error.value)
    assert message in str(error.value)


def test_a_missing_key_is_named(tmp_path):
    entry = {key: value for key, value in GOOD.items() if key not in ("source", "date")}
    with pytest.raises(PriceError, match="vm_hour: source, date is missing"):
        load_price_list(write(tmp_path, whole(entry)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: [", "is not YAML", id="not-yaml"),
        pytest.param("date: 2026-02-31", "is not YAML", id="no-such-day"),
        pytest.param("[]", "must have the keys", id="list"),
        pytest.param(whole(date="today"), "date is 'today'", id="date"),
        pytest.param(whole(prices={}), "prices must be a list", id="prices-no-list"),
        pytest.param(whole("vm"), "prices, number 1: 'vm' is not a set of keys", id="entry-no-mapping"),
        pytest.param(whole(GOOD, GOOD), "'vm_hour' is there twice", id="twice"),
    ],
)
def test_a_broken_file_is_an_error_that_says_why(tmp_path, text, message):
    with pytest.raises(PriceError) as error:
        load_price_list(write(tmp_path, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(PriceError, match="cannot be read"):
        load_price_list(tmp_path / "none.yaml")


def test_a_price_is_stale_after_180_days():
    old = Price(**GOOD)
    assert stale_prices([old], date(2026, 6, 30)) == []
    assert stale_prices([old], date(2026, 7, 1)) == [old]


def test_what_no_source_has_confirmed_is_named_by_id():
    entries = [
        Price(**GOOD | {"id": name, "confirmed": sure}) for name, sure in (("b", False), ("c", True), ("a", False))
    ]
    assert [price.id for price in unconfirmed_prices(entries)] == ["a", "b"]


def test_a_superseded_list_that_is_broken_hinders_nobody_else(tmp_path):
    path = write(tmp_path, whole(GOOD))
    (tmp_path / "prices").mkdir()
    (tmp_path / "prices" / "2025-01-01.yaml").write_text("a: [")
    assert load_price_list(path, sha256="0" * 64) == load_price_list(path)


def test_the_table_has_every_price_with_amount_and_source():
    prices = load_price_list()
    text = format_table(prices)
    for price in prices.entries:
        line = next(line for line in text.splitlines() if line.startswith(f"{price.id} "))
        assert price.source in line
        assert price.date.isoformat() in line
    assert "$0.0000025 " in text
    assert "180000 free" in text
    assert prices.sha256 in text
