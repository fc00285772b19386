"""A run directory to report.html, report.md and report.json. Needs nothing but what the run left behind.

The same directory gives the same bytes: nothing in a report says when it was rendered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from eval import formatting
from eval.analysis.summary import summarise
from eval.cost.billing import skus
from eval.cost.cost_model import VOLUMES
from eval.cost.price_list import Price, Prices, load_prices
from eval.report import context, scenario_sections
from eval.report.context import ImageBytes
from eval.report.plots.style import row_of
from eval.samples.model import REFERENCE, Run
from eval.samples.store import read_run, read_samples
from eval.targets.engines import REFERENCE_ENGINE
from infra.local.names import engine_title
from infra.targets import TARGETS

REPORT_HTML = "report.html"
REPORT_MD = "report.md"
REPORT_JSON = "report.json"
TEMPLATES = Path(__file__).parent / "templates"
GOLDEN = Path(__file__).parent.parent / "golden"
OTHER_ENGINE = (
    "Another engine may answer a few pictures otherwise, as it computes with other numbers: that is no fault of a "
    "deployment. Targets of one engine have to agree."
)
TRAFFICS = tuple(map(str, VOLUMES))  # requests a month that the tables price

FORMATTERS = (  # of eval.formatting, as the templates call them
    "value_of", "reason_of", "interval_of", "ms", "percent", "times", "share", "probability_gap", "usd", "unit_price",
    "count", "short_count", "per_second", "mib", "moment", "short_hash", "plural", "listing", "words", "measured",
    "sentence",
)  # fmt: skip


def write_reports(run_dir: Path, image_bytes: ImageBytes | None = None) -> dict[str, Any]:
    """Write the three reports of a run and return the contents of report.json.

    `image_bytes` gives the posted bytes of a picture of the run's manifest, to show what was misclassified. Without
    it only pictures of the golden set are shown; of the others the labels.
    """
    run = read_run(run_dir)
    samples = list(read_samples(run_dir))
    prices = load_prices(sha256=run.prices_sha256)
    summary = summarise(run, samples, prices)
    view = context.view(run, samples, summary, image_bytes or golden_bytes(run))
    facts = {"run": run, "summary": summary, "view": view, "prices": _used_prices(run, prices)}
    files = {
        REPORT_JSON: json.dumps(summary, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n",
        REPORT_MD: environment(escape_html=False).get_template("report.md.j2").render(facts),
        REPORT_HTML: environment(escape_html=True).get_template("report.html.j2").render(facts),
    }
    for name, text in files.items():
        (run_dir / name).write_text(text, encoding="utf-8")
    return summary


def golden_bytes(run: Run) -> ImageBytes:
    """Reads pictures of the golden set; the caller checks that they are the ones that were posted."""

    def read(image: int) -> bytes | None:
        path = GOLDEN / Path(run.images[image].name).name
        return path.read_bytes() if path.is_file() else None

    return read


def _used_prices(run: Run, prices: Prices) -> list[Price]:
    """Those by which the run's targets are billed, in the order of the price file."""
    used = {price_id for t in run.targets if t.target in TARGETS for price_id in skus(TARGETS[t.target]).values()}
    return [price for price in prices.entries if price.id in used]


def environment(*, escape_html: bool) -> jinja2.Environment:
    """The templates' language: the formatters as filters, and a missing fact is an error."""
    language = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape_html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    written = {name: getattr(formatting, name) for name in FORMATTERS}
    language.filters |= written | {"md": _markdown, "shell": shlex.quote, "engine_title": engine_title}
    language.globals |= written
    script = (TEMPLATES / "report.js").read_text()
    language.globals |= {
        "cell": context.cell,
        "discards": scenario_sections.discards,
        "felt": scenario_sections.felt,
        "memory_text": formatting.memory,
        "PARTS": context.PARTS,
        "REFERENCE": REFERENCE,
        "REFERENCE_ENGINE": REFERENCE_ENGINE,
        "OTHER_ENGINE": OTHER_ENGINE,
        "row_of": row_of,
        "TRAFFICS": TRAFFICS,
        "PHASES": scenario_sections.PHASES,
        "css": Markup((TEMPLATES / "report.css").read_text()),
        "script": Markup(script),
        "script_sha256": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return language


def _markdown(text: object) -> str:
    """Text that stays text inside a Markdown table: no cell ends, no line ends, no tags."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|":
        escaped = escaped.replace(mark, "\\" + mark)
    return " ".join(escaped.split())
