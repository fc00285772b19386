"""The plots of what a run tried beyond single requests: the search for the highest rate, the run's course in time,
and every target's cost against its latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from eval import formatting
from eval.report.plots.style import MARKERS, entry, face, gid, legend, line_style, log_ticks, marker_style
from eval.report.plots.svg import COLOURS, MUTED, SERIES, SURFACE, render

WIDE_RANGE = 20.0  # times the smallest; from there on an axis is logarithmic
BEYOND = 1.6  # times the highest value on the plot, where a p95 without end is drawn
FAINT = 0.35
SMALLEST, LARGEST = 60.0, 260.0  # areas of the marks for the least and the most accurate target, in square points


@dataclass(frozen=True)
class RateStep:
    """One rate that was tried. Where too many failed, p95 or an end of its interval is None: it is endless."""

    rate_rps: float
    p95_ms: float | None
    low_ms: float | None
    high_ms: float | None
    held: bool


@dataclass(frozen=True)
class RateSearch:
    """All rates that were tried on one target."""

    title: str
    colour: int
    steps: Sequence[RateStep]  # by rate
    max_rps: float | None  # the highest that held


@dataclass(frozen=True)
class Course:
    """How long one target took while the run went on."""

    title: str
    colour: int
    time_s: Sequence[float]  # since the run began: when each block did
    median_ms: Sequence[float]  # of each block


@dataclass(frozen=True)
class Offer:
    """What one target costs and how fast and right it is."""

    title: str
    colour: int
    usd: tuple[float, float, float]  # a month: value, low, high
    p95_ms: tuple[float, float, float]
    accuracy: float | None
    dominated: bool  # another is as cheap, as fast and as right, and better in one of them


def rate(searches: Sequence[RateSearch], slo_ms: float) -> Markup:
    """p95 over the rate that was offered, with the objective."""
    ends = [e for one in searches for s in one.steps for e in (s.p95_ms, s.high_ms, s.low_ms) if e]
    beyond = max([slo_ms, *ends]) * BEYOND

    def draw(axes: Axes, narrow: bool) -> None:
        for one in searches:
            _search(axes, one, beyond)
        axes.axhline(slo_ms, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        said = f"{'' if narrow else 'objective: '}p95 within {formatting.ms(slo_ms)}"
        axes.annotate(said, (0, slo_ms), (4, 5), color=MUTED, fontsize=9, xycoords=("axes fraction", "data"),
                      textcoords="offset points", bbox={"facecolor": SURFACE, "edgecolor": "none", "pad": 1.5},
                      zorder=4)  # fmt: skip
        log_ticks(axes, [s.rate_rps for one in searches for s in one.steps], room=1.2, least=3 if narrow else 4)
        log_ticks(axes, [*ends, slo_ms, beyond], "y", room=1.15)
        axes.set_xlabel("requests a second, log scale" if narrow else "requests a second that were offered, log scale")
        axes.set_ylabel("p95, ms, log scale")
        legend(axes, narrow)

    held = [f"{one.title} {formatting.per_second(one.max_rps)}" for one in searches if one.max_rps]
    label = f"95th percentile of latency over the offered rate, per target. Highest rates that held: {_or_none(held)}."
    return render("rate", draw, label)


def _search(axes: Axes, one: RateSearch, beyond: float) -> None:
    colour, marker = SERIES[one.colour % COLOURS], MARKERS[one.colour % COLOURS]
    rates, heights = [s.rate_rps for s in one.steps], [s.p95_ms or beyond for s in one.steps]
    axes.plot(rates, heights, label=entry(one.title), **line_style(one.colour, linewidth=1.2))
    for step, height in zip(one.steps, heights, strict=True):
        bounds = [step.low_ms or height, step.high_ms or beyond]
        axes.plot([step.rate_rps] * 2, bounds, color=colour, linewidth=4, alpha=FAINT, gid=gid(one.colour))
        shape = "x" if step.p95_ms is None else marker
        face = colour if step.held else SURFACE
        axes.plot(step.rate_rps, height, shape, markersize=7, markerfacecolor=face, markeredgecolor=colour,
                  zorder=3, gid=gid(one.colour))  # fmt: skip
    if one.max_rps:
        axes.axvline(one.max_rps, **line_style(one.colour, linewidth=0.9, alpha=0.7), zorder=1)


def course(courses: Sequence[Course], scenario: str) -> Markup:
    """The median of every block over the time of the run."""
    longest_s = max((t for one in courses for t in one.time_s), default=0.0)
    unit_s, unit = (1, "seconds") if longest_s < 180 else (60, "minutes") if longest_s < 3 * 3600 else (3600, "hours")

    def draw(axes: Axes, narrow: bool) -> None:
        for one in courses:
            times = [t / unit_s for t in one.time_s]
            axes.plot(times, one.median_ms, label=entry(one.title), **line_style(one.colour, linewidth=1.6),
                      marker=MARKERS[one.colour % COLOURS], markersize=4 if len(times) < 60 else 0,
                      **face(one.colour))  # fmt: skip
        medians = [m for one in courses for m in one.median_ms if m > 0]
        log_ticks(axes, medians, "y", room=1.08)
        axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 9, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
        axes.set_xlabel(f"{unit} since the run began")
        axes.set_ylabel("median of a block, ms, log scale")
        legend(axes, narrow)

    return render(f"course-{scenario}", draw, f"Median latency of every block over the {unit} of the run, per target.")


def pareto(offers: Sequence[Offer], traffic: str) -> Markup:
    """p95 over the monthly cost; the size of a mark is the accuracy."""
    known = [one.accuracy for one in offers if one.accuracy is not None]
    front = sorted((one for one in offers if not one.dominated), key=lambda one: (one.usd[0], -one.p95_ms[0]))

    def draw(axes: Axes, narrow: bool) -> None:
        if len(front) > 1:
            axes.step([one.usd[0] for one in front], [one.p95_ms[0] for one in front], where="post", color=MUTED,
                      linewidth=1, linestyle=(0, (3, 3)), zorder=1)  # fmt: skip
        for one in offers:
            _offer(axes, one, known)
        _money_axis(axes, [end for one in offers for end in one.usd])
        times = [end for one in offers for end in one.p95_ms]
        if max(times) > WIDE_RANGE * min(times):
            log_ticks(axes, times, "y", room=1.2)
        else:
            axes.set_ylim(0, max(times) * 1.15)
        axes.set_xlabel(f"$ a month at {traffic} requests")
        axes.set_ylabel("p95, ms")
        legend(axes, narrow, (4 if len(offers) <= 4 else 2, 1))

    places = "; ".join(
        f"{one.title} {formatting.usd(one.usd[0])}, {formatting.ms(one.p95_ms[0])}" for one in offers
    )  # fmt: skip
    return render("pareto", draw, f"95th percentile of latency over cost a month, per target. {places}.")


def _offer(axes: Axes, one: Offer, known: Sequence[float]) -> None:
    """A mark with the bounds of both its figures."""
    alpha = FAINT if one.dominated else 1.0
    (usd, *usds), (p95, *p95s) = one.usd, one.p95_ms
    bounds = {"color": SERIES[one.colour % COLOURS], "linewidth": 2, "alpha": alpha * 0.6, "gid": gid(one.colour)}
    axes.plot(usds, [p95, p95], **bounds)
    axes.plot([usd, usd], p95s, **bounds)
    spread = max(known, default=0.0) - min(known, default=0.0)
    share = (one.accuracy - min(known)) / spread if spread and one.accuracy is not None else 0.5
    said = "" if one.accuracy is None else f", {formatting.percent(one.accuracy)}"
    size = (SMALLEST + share * (LARGEST - SMALLEST)) ** 0.5
    axes.plot(usd, p95, label=entry(one.title) + said, markersize=size, alpha=alpha, zorder=3,
              **marker_style(one.colour))  # fmt: skip


def _money_axis(axes: Axes, ends: Sequence[float]) -> None:
    least = min(ends)
    if least > 0 and max(ends) > WIDE_RANGE * least:
        log_ticks(axes, ends, room=1.3)
    else:
        room = max(ends) * 0.08 or 1.0
        axes.set_xlim(-room, max(ends) + room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda usd, _: "" if usd < 0 else f"${usd:,g}"))


def _or_none(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"
