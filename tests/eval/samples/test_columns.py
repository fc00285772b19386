from __future__ import annotations

import dataclasses

import numpy as np

from eval.samples.columns import Samples, record_of
from eval.samples.model import REFERENCE
from eval.stats.intervals import MIN_INSTANCES, instance_numbers, numbered_instances
from tests.helpers.synthetic_run import make_run, make_sample


def all_samples():
    extremes = [
        make_sample(0, error="timeout", detail="it took too long", status=None, predicted_class=None),
        make_sample(1, block=10**12, response_bytes=10**12, instance_request_number=10**12, image_index=-1),
        make_sample(
            2, send_delay_ms=-3.5, rate_rps=20.0, connection_ms={"dns": 1.0, "tls": 2.5}, startup_ms={"a": -1.0}
        ),
        make_sample(
            3, new_connection=True, status=0, idle_gap_s=900.0, cpu_ms=0.0, server_timing_ms={}, sender="10.0.0.2/1"
        ),
    ]
    return [*make_run(40)[1], *extremes]


def test_a_row_has_every_field_of_its_sample_and_its_type():
    samples = all_samples()
    assert [repr(record_of(row)) for row in Samples.of(samples)] == [repr(sample) for sample in samples]


def test_parts_of_columns_are_those_of_a_list():
    samples = all_samples()
    columns = Samples.of(samples)
    measured = columns.with_("phase", "measure").with_("target", "heroku", REFERENCE)
    chosen = [s for s in samples if s.phase == "measure" and s.target in ("heroku", REFERENCE)]
    assert list(map(record_of, measured)) == chosen
    assert list(map(record_of, columns.succeeded)) == [s for s in samples if s.error is None]
    assert list(map(record_of, columns.chronological())) == sorted(samples, key=lambda s: s.scheduled_s)
    assert not columns.with_("target", "unknown") and not Samples.of(())


def test_groups_keep_the_order_of_their_samples():
    samples = all_samples()
    for field in ("target", "block"):
        groups = Samples.of(samples).by(field)
        assert list(groups) == list(dict.fromkeys(getattr(s, field) for s in samples))
        for key, group in groups.items():
            assert list(map(record_of, group)) == [s for s in samples if getattr(s, field) == key]


def test_durations_and_counts_are_those_of_a_list():
    samples = all_samples()
    columns = Samples.of(samples)
    total_ms = [s.server_timing_ms.get("total", np.nan) for s in samples]
    np.testing.assert_array_equal(columns.durations("server_timing_ms", "total"), total_ms)
    np.testing.assert_array_equal(columns[3:].durations("server_timing_ms", "total"), total_ms[3:])
    assert columns.counts("error")["timeout"] == sum(s.error == "timeout" for s in samples)


def test_samples_share_what_repeats():
    answer = (0.25, 0.75)
    rows = Samples.of(dataclasses.replace(make_sample(i), probabilities=tuple(list(answer))) for i in range(2500))
    assert len({id(row.probabilities) for row in rows}) == 1


def test_instances_are_numbered_as_from_their_names():
    rng = np.random.default_rng(0)
    for n_instances in (MIN_INSTANCES - 1, MIN_INSTANCES, MIN_INSTANCES + 3):
        series = rng.integers(-1, n_instances, 200)
        expected = instance_numbers(None if number < 0 else number for number in series.tolist())
        found = numbered_instances(series)
        assert (found is None) == (expected is None)
        if found is not None:
            np.testing.assert_array_equal(found, expected)
    assert numbered_instances(np.array([-1, -1])) is None
