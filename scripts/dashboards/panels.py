"""What a dashboard consists of, and how it becomes Grafana's JSON by grafana-foundation-sdk."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="prometheus")  # ops/grafana/provisioning/datasources
PANEL_HEIGHT = 8  # of Grafana's grid, 24 columns wide
ALL_VALUES = ".+"  # what the choice "All" stands for in an expression

Builder = timeseries.Panel | stat.Panel | statetimeline.Panel


@dataclass(frozen=True)
class Query:
    """One expression, and the name of each of its series."""

    expr: str
    legend: str  # with {{label}} for a label's value


@dataclass(frozen=True)
class Panel:
    """One drawing."""

    title: str
    description: str  # what it shows, and what to do about it
    queries: tuple[Query, ...]
    unit: str  # by Grafana's name: reqps, s, percentunit, currencyUSD, short
    kind: Literal["lines", "number", "states"] = "lines"
    columns: int = 8
    threshold: float | None = None  # drawn as a dashed line: above it something is wrong
    max: float | None = None


@dataclass(frozen=True)
class Row:
    """A line of panels under a title."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """One page of Grafana: one file of ops/grafana/dashboards."""

    uid: str  # its file's name, and part of its address
    title: str
    description: str
    rows: tuple[Row, ...]


def dashboard_json(content: Dashboard) -> str:
    """The file that Grafana reads."""
    page = (
        builders.Dashboard(content.title)
        .uid(content.uid)
        .description(content.description)
        .tags(["cloudtrial"])
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .readonly()
        .with_variable(_variable("job", "Deployment", "label_values(classifier_model_info, job)"))
        .with_variable(_variable("version", "Model", 'label_values(classifier_model_info{job=~"$job"}, version)'))
        .link(builders.DashboardLink("Cloudtrial").type(dashboard.DashboardLinkType.DASHBOARDS).tags(["cloudtrial"]))
    )
    numbers = itertools.count(1)  # Grafana wants one for each row and panel
    for row in content.rows:
        page.with_row(builders.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            page.with_panel(_panel(panel).id(next(numbers)))
    return json.dumps(page.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _variable(name: str, label: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(ALL_VALUES)
        .current(dashboard.VariableOption(True, "All", "$__all"))
    )


def _panel(panel: Panel) -> Builder:
    builder = _builder(panel)
    builder.title(panel.title).description(panel.description).datasource(SOURCE).unit(panel.unit)
    builder.height(PANEL_HEIGHT).span(panel.columns)
    if panel.kind == "lines":
        builder.min(0)
    if panel.max is not None:
        builder.max(panel.max)
    builder.thresholds(_thresholds(panel.threshold))
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        builder.with_target(_target(letter, query, panel.kind))
    return builder


def _builder(panel: Panel) -> Builder:
    match panel.kind:
        case "number":
            return _number()
        case "states":
            return statetimeline.Panel().show_value(common.VisibilityMode.NEVER)
    return _lines(panel.threshold)


def _number() -> stat.Panel:
    last = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
    return stat.Panel().reduce_options(last).graph_mode(common.BigValueGraphMode.NONE)


def _lines(threshold: float | None) -> timeseries.Panel:
    style = common.GraphThresholdsStyleMode.OFF if threshold is None else common.GraphThresholdsStyleMode.DASHED
    legend = common_builders.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM)
    return (
        timeseries.Panel()
        .legend(legend.display_mode(common.LegendDisplayMode.LIST))
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        .show_points(common.VisibilityMode.AUTO)
        .thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(style))
    )


def _thresholds(threshold: float | None) -> builders.ThresholdsConfig:
    steps: Sequence[dashboard.Threshold] = [dashboard.Threshold(value=None, color="green")]
    if threshold is not None:
        steps = [*steps, dashboard.Threshold(value=threshold, color="red")]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(list(steps))


def _target(letter: str, query: Query, kind: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend)
    return target.instant() if kind == "number" else target.range()
