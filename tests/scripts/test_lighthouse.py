from __future__ import annotations

import pytest

from scripts.lighthouse import describe


def report(accessibility, performance):
    """One audit of each category, that tells its score."""

    def category(name, score):
        return {"score": score, "auditRefs": [{"id": name, "weight": 3}]}

    node = {"node": {"snippet": "<input>"}}
    label = {"title": "Form elements have labels", "score": accessibility, "details": {"items": [node]}}
    paint = {"title": "First paint", "score": performance, "displayValue": "2.1 s"}
    return {
        "categories": {
            "accessibility": category("label", accessibility),
            "performance": category("paint", performance),
        },
        "audits": {"label": label, "paint": paint},
    }


@pytest.mark.parametrize(
    ("scores", "passed"), [((1, 0.9), True), ((0.99, 1), False), ((1, 0.89), False), ((1, None), False)]
)
def test_both_scores_have_to_be_high_enough(scores, passed):
    assert describe(report(*scores))[1] == passed


def test_what_costs_points_is_named_with_its_elements():
    lines, _ = describe(report(0.5, 0.95))
    assert lines == [
        "  accessibility 50 (at least 100)",
        "    Form elements have labels: 50",
        "      <input>",
        "  performance 95 (at least 90)",
        "    First paint: 95, 2.1 s",
    ]
