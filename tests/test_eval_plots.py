"""The plots say what they show, in the page's colours, and are the same whenever they are drawn."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from eval import plots

TIMES = [float(t) for t in np.random.default_rng(3).lognormal(2.3, 0.2, 300)]
REQUESTS = [float(n) for n in np.logspace(3, 9, 30)]
DRAWN = {
    "latency": lambda: plots.latency(
        [plots.Latencies("Heroku", 0, TIMES, 310), plots.Latencies("EC2", 1, TIMES, 300)], "single"
    ),
    "cost": lambda: plots.cost(
        [plots.CostCurve("Heroku", 1, REQUESTS, [7.0] * 30, [7.0] * 30),
         plots.CostCurve("Run", 2, REQUESTS, [max(0, n * 3e-6 - 6) for n in REQUESTS], [n * 3e-6 for n in REQUESTS])],
        [plots.Crossing(4.3e6, 7.0)],
    ),
    "accuracy": lambda: plots.accuracy([plots.Interval("Heroku", 0, 0.95, 0.94, 0.96, over_sent=0.9)]),
    "calibration": lambda: plots.calibration([plots.Reliability("all targets", 0, (0.6, 0.95), (0.5, 0.97), (10, 90))]),
}  # fmt: skip


@pytest.fixture(params=DRAWN, scope="module")
def plot(request):
    return str(DRAWN[request.param]())


def test_a_plot_comes_wide_and_narrow(plot):
    assert re.findall(r'<svg class="plot (\w+)"', plot) == ["wide", "narrow"]


def test_a_plot_is_well_formed(plot):
    ElementTree.fromstring(f'<div xmlns:xlink="x">{plot}</div>')


def test_a_plot_has_a_text_alternative(plot):
    assert all(len(label) > 20 for label in re.findall(r'role="img" aria-label="([^"]*)"', plot))


def test_a_plot_has_no_colour_of_its_own(plot):
    assert "var(--t" in plot
    assert not re.search(r"#[0-9a-fA-F]{6}\b", plot)


def test_a_plot_has_no_font_and_no_address_of_its_own(plot):
    assert "DejaVu" not in plot
    assert "http" not in plot


def test_ids_are_unique_over_all_plots():
    ids = re.findall(r'\bid="([^"]*)"', "".join(str(draw()) for draw in DRAWN.values()))
    assert len(ids) == len(set(ids))


def test_every_reference_has_its_id(plot):
    ids = set(re.findall(r'\bid="([^"]*)"', plot))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]*)', plot)) <= ids


@pytest.mark.parametrize("name", DRAWN)
def test_drawing_twice_gives_the_same_bytes(name):
    assert DRAWN[name]() == DRAWN[name]()


def test_titles_are_escaped():
    drawn = str(plots.accuracy([plots.Interval("<script>alert(1)</script>", 0, 0.9, 0.8, 0.95)]))
    assert "<script" not in drawn


def test_titles_are_no_mathematics():
    drawn = str(plots.accuracy([plots.Interval("a$b$ and _c_", 0, 0.9, 0.8, 0.95)]))
    assert drawn.count(">a$b$ and _c_</text>") == 1  # the narrow one breaks the line


def test_a_title_with_an_underscore_is_in_the_legend():
    drawn = str(plots.latency([plots.Latencies("_mine", 0, TIMES, 300)], "single"))
    assert drawn.count("_mine</text>") == 2


def test_the_legend_names_each_target_and_a_crossing_its_traffic():
    drawn = str(DRAWN["cost"]())
    assert all(f">{text}<" in drawn for text in ("Heroku", "Run", "4.3M"))


def test_one_instant_answer_can_be_drawn():
    assert "svg" in plots.latency([plots.Latencies("Heroku", 0, [5.0], 1)], "single")
