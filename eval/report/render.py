"""A run directory to report.html, report.md and report.json. Needs nothing but what the run left behind.

The same directory gives the same bytes: nothing in a report says when it was rendered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from eval import formatting
from eval.analysis import recommendation
from eval.analysis.predictions.accuracy import MAX_MATRIX_CLASSES
from eval.analysis.summary import analyse_run
from eval.cost import billing
from eval.cost.billing import REQUESTS_PER_MONTH, price_ids_by_role
from eval.cost.cost_model import PRICED_MONTHLY_REQUESTS, SLOWDOWNS
from eval.cost.price_list import Price, PriceList, load_price_list
from eval.dataset.golden import golden_dir
from eval.plan.config import OVERLOAD_SCENARIOS
from eval.report import answer_groups, context, scenario_sections
from eval.report.answer import ALWAYS_WARM_SETTING, START_NOT_MEASURED, answer_table
from eval.report.context import ImageReader
from eval.report.markdown import escape_markdown
from eval.report.plots.style import engine_row
from eval.report.report_json import with_words
from eval.report.tables import html_without_empty_columns, markdown_without_empty_columns
from eval.report.wording import MEASURED_FROM, NOUNS, break_even_range, starts_title, what_if_title
from eval.samples.columns import Samples
from eval.samples.model import Run
from eval.samples.sizes import priced_target
from eval.samples.store import os_errors_as_eval_error, read_run, read_samples
from eval.validation import write_files
from infra.models import DEFAULT_MODEL
from service.engines.names import engine_title

REPORT_HTML = "report.html"
REPORT_MD = "report.md"
REPORT_JSON = "report.json"
SCRIPTS = ("answer.js", "report.js")  # in one element of the page
TEMPLATE_DIR = Path(__file__).parent / "templates"
ENGINE_DIFFERENCE_NOTE = (
    "Another engine may answer a few images otherwise, as it computes with other numbers: that is no fault of a "
    "deployment. Targets of one engine have to agree."
)
TABLE_MONTHLY_REQUESTS = tuple(map(str, PRICED_MONTHLY_REQUESTS))  # requests a month that the tables price

ANSWER_CONSTANTS = {  # of the rules that answer.js shares with the cost model
    "HOURS_PER_MONTH": billing.HOURS_PER_MONTH,
    "TARGET_UTILISATION": billing.TARGET_UTILISATION,
    "AUTOSCALER_UTILISATION": billing.AUTOSCALER_UTILISATION,
    "IDLE_TIMEOUT_S": billing.IDLE_TIMEOUT_S,
    "MIN_IDLE_TIMEOUT_S": billing.MIN_IDLE_TIMEOUT_S,
    "SCALE_IN_DELAY_S": billing.SCALE_IN_DELAY_S,
    "REQUEST_BYTES": billing.REQUEST_BYTES,
    "P95_TAIL": recommendation.P95_TAIL,
    "SLO_QUANTILE": recommendation.SLO_QUANTILE,
    "TAIL_STEP": recommendation.TAIL_STEP,
    "FIRST_SLOWDOWN": SLOWDOWNS[0],
    "ALWAYS_WARM": recommendation.ALWAYS_WARM,
    "ALWAYS_WARM_SETTING": ALWAYS_WARM_SETTING,
    "START_NOT_MEASURED": START_NOT_MEASURED,
}
FORMATTERS = (  # of eval.formatting, as the templates call them
    "value_of",
    "reason_of",
    "interval_of",
    "ms",
    "percent",
    "ratio",
    "score",
    "probability_difference",
    "usd",
    "unit_price",
    "count",
    "short_count",
    "per_second",
    "mib",
    "timestamp",
    "short_hash",
    "plural",
    "join_words",
    "figure_label",
    "format_figure",
    "as_sentence",
)


def write_reports(run_dir: Path, image_bytes: ImageReader | None = None) -> dict[str, Any]:
    """Write the three reports of a run and return the contents of report.json.

    `image_bytes` gives the posted bytes of an image of the run's manifest, to show what was misclassified. Without
    it only images of the golden set are shown; of the others the labels.
    """
    run = read_run(run_dir)
    samples = Samples.of(read_samples(run_dir, run))
    prices = load_price_list(sha256=run.prices_sha256)
    analysis = analyse_run(run, samples, prices)
    summary = with_words(run, analysis)
    view = context.build_context(run, samples, summary, image_bytes or golden_image_reader(run))
    if view.many_targets:
        _leave_out_undrawn_curves(summary, view.drawn_targets)
    variables = {
        "run": run,
        "noun": NOUNS[run.input_kind],
        "summary": summary,
        "context": view,
        "table": answer_table(analysis.facts),
        "prices": _billed_prices(run, prices),
    }
    files = {
        REPORT_JSON: _json_text(summary, indent=None if view.many_targets else 1),
        REPORT_MD: markdown_without_empty_columns(
            template_environment(escape_html=False).get_template("report.md.j2").render(variables)
        ),
        REPORT_HTML: html_without_empty_columns(
            template_environment(escape_html=True).get_template("report.html.j2").render(variables)
        ),
    }
    with os_errors_as_eval_error(run_dir):
        write_files(run_dir, files)
    return summary


def _leave_out_undrawn_curves(summary: dict[str, Any], drawn_targets: Collection[str]) -> None:
    """Of many targets the curves of costs are most of report.json, and a plot has room for a few."""
    for name, target_report in summary["targets"].items():
        if name not in drawn_targets:
            target_report["cost"]["curve"] = []


def _json_text(summary: dict[str, Any], indent: int | None) -> str:
    """indent: None puts all in one line, which is a third less."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        summary, indent=indent, separators=separators, sort_keys=True, allow_nan=False, ensure_ascii=False
    )
    return text + "\n"


def golden_image_reader(run: Run) -> ImageReader:
    """Reads images of the golden set; the caller checks that they are the ones that were posted."""

    def read_image(image_index: int) -> bytes | None:
        path = golden_dir(run.model or DEFAULT_MODEL) / Path(run.image_manifest[image_index].name).name
        return path.read_bytes() if path.is_file() else None

    return read_image


def _billed_prices(run: Run, prices: PriceList) -> list[Price]:
    """Those by which the run's targets are billed, in the order of the price file."""
    used_ids = {
        price_id
        for target_run in run.targets
        if (target := priced_target(target_run))
        for price_id in price_ids_by_role(target).values()
    }
    return [price for price in prices.entries if price.id in used_ids]


def template_environment(*, escape_html: bool) -> jinja2.Environment:
    """The templates' language: the formatters as filters, and a missing fact is an error."""
    jinja_environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_DIR),
        autoescape=escape_html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    formatters = {name: getattr(formatting, name) for name in FORMATTERS}
    jinja_environment.filters |= formatters | {
        "md": escape_markdown,
        "shell": shlex.quote,
        "engine_title": engine_title,
    }
    jinja_environment.globals |= formatters
    script = "".join((TEMPLATE_DIR / name).read_text(encoding="utf-8") for name in SCRIPTS)
    jinja_environment.globals |= {
        "as_the_model": answer_groups.as_the_model,
        "weakest_classes": answer_groups.weakest_classes,
        "SCORES": answer_groups.SCORES,
        "SCORE_TITLES": answer_groups.SCORE_TITLES,
        "WEAKEST_CLASSES": answer_groups.WEAKEST_CLASSES,
        "MAX_MATRIX_CLASSES": MAX_MATRIX_CLASSES,
        "discard_reasons": scenario_sections.discard_reasons,
        "user_visible_waits": scenario_sections.user_visible_waits,
        "memory_text": formatting.memory_text,
        "break_even_range": break_even_range,
        "what_if_title": what_if_title,
        "MEASURED_FROM": MEASURED_FROM,
        "instance_lines": scenario_sections.instance_lines,
        "starts_title": starts_title,
        "ANSWER_CONSTANTS": ANSWER_CONSTANTS,
        "OVERLOAD_SCENARIOS": OVERLOAD_SCENARIOS,
        "ENGINE_DIFFERENCE_NOTE": ENGINE_DIFFERENCE_NOTE,
        "engine_row": engine_row,
        "REQUESTS_PER_MONTH": REQUESTS_PER_MONTH,
        "TABLE_MONTHLY_REQUESTS": TABLE_MONTHLY_REQUESTS,
        "PHASE_TITLES": scenario_sections.PHASE_TITLES,
        "css": Markup((TEMPLATE_DIR / "report.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_sha256": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return jinja_environment
