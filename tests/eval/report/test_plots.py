"""The plots say what they show, in the page's colours, and are the same whenever they are drawn."""

from __future__ import annotations

import html
import itertools
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from eval.report.plots import core, scenarios
from eval.report.plots.style import line_style
from infra.targets import TARGETS

TIMES = [float(t) for t in np.random.default_rng(3).lognormal(2.3, 0.2, 300)]
REQUESTS = [float(n) for n in np.logspace(3, 9, 30)]
DRAWN = {
    "latency": lambda: core.latency_ecdf(
        [core.LatencySeries("Heroku", 0, TIMES, 310), core.LatencySeries("EC2", 1, TIMES, 300)], "single"
    ),
    "cost": lambda: core.cost_curves(
        [
            core.CostCurve("Heroku", 1, REQUESTS, [7.0] * 30, [7.0] * 30),
            core.CostCurve("Run", 2, REQUESTS, [max(0, n * 3e-6 - 6) for n in REQUESTS], [n * 3e-6 for n in REQUESTS]),
        ],
        [core.CostCrossing(4.3e6, 7.0)],
    ),
    "calibration": lambda: core.reliability_diagram(
        [core.ReliabilityCurve("all targets", 0, (0.6, 0.95), (0.5, 0.97), (10, 90))]
    ),
}


@pytest.fixture(params=DRAWN, scope="module")
def plot(request):
    return str(DRAWN[request.param]())


def test_a_plot_is_one_svg_in_a_named_box_that_scrolls(plot):
    assert plot.count("<svg") == 1
    assert re.match(r'<div class="scroll" tabindex="0" role="region" aria-label="[^"]{20,}"><svg class="plot"', plot)


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
    drawn = str(core.latency_ecdf([core.LatencySeries("<script>alert(1)</script>", 0, TIMES, 300)], "single"))
    assert "<script" not in drawn


def test_titles_are_no_mathematics():
    drawn = str(core.latency_ecdf([core.LatencySeries("a$b$ and _c_", 0, TIMES, 300)], "single"))
    assert drawn.count(">a$b$ and _c_</text>") == 1


def test_a_title_with_an_underscore_is_in_the_legend():
    drawn = str(core.latency_ecdf([core.LatencySeries("_mine", 0, TIMES, 300)], "single"))
    assert drawn.count("_mine</text>") == 1


def test_the_legend_names_each_target_and_a_crossing_its_traffic():
    drawn = str(DRAWN["cost"]())
    assert all(f">{text}<" in drawn for text in ("Heroku", "Run", "4.3M"))


def test_five_targets_have_lines_that_differ_without_colour():
    patterns = [str(line_style(place)["linestyle"]) for place in range(len(TARGETS))]
    assert len(set(patterns)) == len(TARGETS) == 5
    series = [core.LatencySeries(target.title, place, TIMES, 300) for place, target in enumerate(TARGETS.values())]
    drawn = str(core.latency_ecdf(series, "single"))
    assert all(f">{target.title}</text>" in drawn for target in TARGETS.values())


def test_one_instant_answer_can_be_drawn():
    assert "svg" in core.latency_ecdf([core.LatencySeries("Heroku", 0, [5.0], 1)], "single")


STEPS = [
    scenarios.RateStep(10, 20.0, 18.0, 23.0, passed=True),
    scenarios.RateStep(20, 90.0, 80.0, None, passed=False),
    scenarios.RateStep(40, None, None, None, passed=False),
]


def test_each_target_is_one_group_in_plot_and_legend():
    drawn = str(DRAWN["latency"]())
    assert drawn.count('data-target="0" data-curve="1"') == 1  # the curve, which can be read
    assert drawn.count('data-target="0">') == 2  # its sign and its name in the legend


def test_a_line_of_several_targets_belongs_to_each():
    line = core.ReliabilityCurve("all targets", 0, (0.6, 0.95), (0.5, 0.97), (10, 90), (0, 1, 2))
    assert 'data-target="0 1 2"' in str(core.reliability_diagram([line]))


def test_values_can_be_read_off_where_the_curve_is_drawn():
    svg = str(DRAWN["latency"]())
    scales = json.loads(html.unescape(re.search(r'data-read="([^"]*)"', svg)[1]))
    path = re.search(r'data-target="0" data-curve="1">\s*<path d="([^"]*)"', svg)[1]
    x, y = [float(number) for number in re.findall(r"[-\d.]+", path)[-2:]]  # the slowest answer

    def value(scale, place):
        share = (place - scale["start"]) / (scale["end"] - scale["start"])
        found = scale["low"] + share * (scale["high"] - scale["low"])
        return 10**found if scale["log"] else found

    assert value(scales["x"], x) == pytest.approx(max(TIMES), rel=1e-3)
    assert value(scales["y"], y) == pytest.approx(300 / 310 * 100, abs=0.05)


def test_search_steps_show_pass_or_fail_and_infinite_latency():
    one = scenarios.RateSearch("Heroku", 0, STEPS, 10.0)
    drawn = str(scenarios.rate_search([one], 50.0))
    marks = re.findall(r'<use [^>]*style="(fill[^;]*); stroke: var\(--t0\)', drawn)
    assert marks.count("fill: var(--t0)") == 1  # filled: it held
    assert marks.count("fill-opacity: 0") == 2  # hollow: it did not, and hides no other mark
    assert "p95 within 50.0 ms" in drawn


def drawn_places(svg):
    """The places of the marks, in the plot's own units."""
    return [tuple(map(float, place)) for place in re.findall(r'<use [^>]*x="([-\d.]+)" y="([-\d.]+)"[^>]*--t', svg)]


def crowd(usd, n=8):
    return [scenarios.CostLatencyPoint(f"t{i}", i, (usd, usd, usd), (9.0, 8.8, 9.1)) for i in range(n)]


@pytest.mark.parametrize("usd", [7.0, 0.0])
def test_marks_of_one_price_and_speed_stand_beside_one_another(usd):
    dear = scenarios.CostLatencyPoint("EC2", 8, (20.0, 20.0, 20.0), (9.0, 8.8, 9.1))
    drawn = str(scenarios.cost_latency([*crowd(usd), dear], "1M", "steady stream"))
    places = sorted(x for x, _ in drawn_places(drawn.partition("legend")[0]))
    assert len(places) == 9
    assert min(b - a for a, b in itertools.pairwise(places)) > 8  # points: a mark is that wide
    assert "p95, ms, steady stream" in drawn


def test_marks_of_one_rate_stand_beside_one_another():
    searches = [scenarios.RateSearch(f"t{i}", i, STEPS[:1], None) for i in range(4)]
    places = sorted({x for x, _ in drawn_places(str(scenarios.rate_search(searches, 50.0)).partition("legend")[0])})
    assert len(places) == 4 and min(b - a for a, b in itertools.pairwise(places)) > 3


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0.0, 30.0], [0.0, 30.0]),
        ([5.0, 5.0], [0.0, 10.0]),
        ([5.0, 5.0, 12.0], [7 + 1 / 3 - 10, 7 + 1 / 3, 7 + 1 / 3 + 10]),
        ([50.0, 5.0, 5.0], [50.0, 0.0, 10.0]),
    ],
)
def test_crowded_places_are_moved_apart_around_their_middle(places, expected):
    assert scenarios.spread(places, 10.0) == pytest.approx(expected)


def test_a_cost_line_under_an_equal_one_is_wider():
    """Else the one that is drawn later would hide it. Engines of a target have one colour, and marks of their own."""

    def widths(*curves):
        svg = str(core.cost_curves([core.CostCurve(*curve, REQUESTS, usd, usd) for *curve, usd in curves], []))
        lines = re.findall(r'<path d="[^"]*" clip-path="[^"]*" style="fill: none; ([^"]*)"/>', svg)
        return [float(w) for line in lines for w in re.findall(r"stroke-width: ([2-9])", line)]  # others are 1 or less

    flat, steep = [7.0] * 30, [n * 3e-6 for n in REQUESTS]
    assert widths(("Run", 2, steep), ("Function", 3, steep), ("Heroku", 1, flat)) == [5, 2, 2]
    assert widths(("Run", 2, steep), ("Run (ONNX int8)", 10, steep)) == [2, 2]
