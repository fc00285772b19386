"""What the papers say is so: commands exist, paths exist, figures are the example report's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from service.model import WEIGHTS_OF
from training.defaults import MIN_ACCURACY

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent
PAPER_NAMES = (
    "README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/compare.md", "docs/deploy.md", "docs/design.md",
    "docs/method.md", "docs/own-service.md", "docs/performance.md", "docs/results.md", "docs/scale.md", "docs/store.md",
    "docs/watch.md",
)  # fmt: skip
PAPERS = {name: (ROOT / name).read_text() for name in PAPER_NAMES}
MAKEFILE = (ROOT / "Makefile").read_text()
TEST_NAME = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
EXAMPLE = ROOT / "reports" / "example"


@pytest.mark.parametrize("paper", PAPERS)
def test_every_make_target_named_in_a_paper_exists(paper):
    named = set(re.findall(r"(?:^|[`\s])make ([a-z-]+)(?=[`\s]|$)", PAPERS[paper], re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert named - {"it", "memory", "sure"} <= targets  # words that follow "make" in a sentence


@pytest.mark.parametrize("paper", PAPERS)
def test_every_path_named_in_a_paper_exists(paper):
    named = re.findall(r"`([a-z0-9_.-]+/[A-Za-z0-9_./-]*)`", PAPERS[paper])
    made_by_use = ("reports/latest", "runs/")
    missing = [path for path in named if not path.startswith(made_by_use) and not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("paper", PAPERS)
def test_every_link_of_a_paper_leads_to_a_file_and_a_heading(paper):
    links = re.findall(r"\]\(([^)\s]+)\)", PAPERS[paper])
    inside = [link.partition("#") for link in links if not link.startswith("http")]
    for path, _, anchor in inside:
        page = (ROOT / paper).parent / path if path else ROOT / paper
        assert page.exists(), path
        assert not anchor or anchor in anchors(page.read_text()), f"{path}#{anchor}"


def anchors(page: str) -> list[str]:
    """Those that a forge gives the headings."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings]


def test_a_module_in_a_paper_is_there_and_started_in_venv():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = [
        (page.name, *found) for page in pages for found in re.findall(r"(\S*python3?) -m ([\w.]+)", page.read_text())
    ]
    assert len(named) > 20
    wrong = [each for each in named if not each[1].endswith(".venv/bin/python") or find_spec(each[2]) is None]
    assert not wrong


@pytest.mark.parametrize("command", ["run", "report", "prices", "cost"])
def test_every_flag_in_a_paper_is_one_the_command_knows(command):
    papers = "\n".join(PAPERS.values())
    lines = [line.split("#")[0] for line in papers.splitlines() if f"./cloudtrial {command}" in line]
    flags = {flag for line in lines for flag in re.findall(r"--[a-z-]+", line)}
    known = subprocess.run(
        ["./cloudtrial", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert lines and all(flag in known for flag in flags)


def test_the_readmes_table_is_the_example_reports():
    subprocess.run([sys.executable, "-m", "scripts.docs.readme", "--check"], cwd=ROOT, check=True)


@pytest.mark.slow
def test_the_architecture_page_is_what_the_programs_make_now():
    subprocess.run([sys.executable, "-m", "scripts.docs.architecture", "--check"], cwd=ROOT, check=True)


def all_test_names() -> list[str]:
    return [name for path in Path(__file__).parent.rglob("*.py") for name in TEST_NAME.findall(path.read_text())]


def test_no_test_name_is_longer_than_60_characters():
    names = all_test_names()
    assert len(names) > 1000 and not [name for name in names if len(name) > 60]


def test_each_promise_of_security_names_tests_that_exist():
    table = PAPERS["SECURITY.md"].partition("| Promise | Test |\n|---|---|\n")[2].partition("\n\n")[0]
    promises = [row.strip("|").split("|") for row in table.splitlines() if not row.startswith("| **")]
    named = [re.findall(r"`(test_\w+)`", tests) for _, tests in promises]
    assert len(promises) > 20 and all(named)
    assert set().union(*named) <= set(all_test_names())
    assert all("](SECURITY.md)" in PAPERS[paper] for paper in ("README.md", "CONTRIBUTING.md"))


def test_the_example_was_measured_with_the_shipped_weights(bundle_dir):
    model = json.loads((bundle_dir / "model.json").read_text())
    report = json.loads((EXAMPLE / "report.json").read_text())
    assert report["run"]["complete"] and report["run"]["images"]["n"] == 10_000
    for name, target in report["targets"].items():
        weights = WEIGHTS_OF[target["engine"]]
        assert target["model_version"] == model["files"][weights][:12], name
        measured = (model["metrics"]["test"] if target["engine"] == "torch" else model["exports"][weights])["accuracy"]
        assert target["accuracy"]["value"] == pytest.approx(measured, abs=5e-4), name


def test_shipped_accuracy_is_measured_on_the_whole_test_set(bundle_dir):
    test = json.loads((bundle_dir / "model.json").read_text())["metrics"]["test"]
    assert test["n"] == 10_000
    assert test["low"] <= test["accuracy"] <= test["high"]
    assert test["accuracy"] >= MIN_ACCURACY
    assert f"{test['accuracy']:.2%}" in PAPERS["README.md"]


@pytest.mark.slow
def test_the_example_report_is_what_its_samples_give(tmp_path):
    for name in ("run.json", "samples.jsonl.gz"):
        (tmp_path / name).write_bytes((EXAMPLE / name).read_bytes())
    subprocess.run([sys.executable, "-m", "eval", "report", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    again, committed = (json.loads((folder / "report.json").read_text()) for folder in (tmp_path, EXAMPLE))
    assert again == committed


def test_no_cifar10_image_is_in_the_example():
    assert "data:image/" not in (EXAMPLE / "report.html").read_text().replace("data:image/svg", "")


def test_make_help_lists_every_documented_target():
    output = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"demo", "test", "twins", "golden", "bench"} <= set(re.findall(r"^make ([a-z]+)", output, re.MULTILINE))
