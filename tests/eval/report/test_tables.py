"""Columns without a figure are left out, and the reasons stand below."""

import pytest

from eval.report.tables import html_without_empty_columns, markdown_without_empty_columns


def html_table(*rows, head=("Target", "p95", "Cost")):
    def cells(tag, row):
        return "".join(f"<{tag}>{cell}</{tag}>" for cell in row)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


NA = '<div>\n<span class="na">n/a</span><small class="why">needs n &gt;= 72, have 38</small></div>'


def test_a_column_without_a_figure_is_left_out_with_its_reason():
    assert html_without_empty_columns(html_table(("EC2", NA, "$7"), ("Heroku", NA, "$8"))) == (
        html_table(("EC2", "$7"), ("Heroku", "$8"), head=("Target", "Cost"))
        + '\n<p class="small">Not available: p95 (needs n &gt;= 72, have 38).</p>'
    )


def test_a_column_of_dashes_is_left_out_without_a_word():
    assert html_without_empty_columns(html_table(("EC2", "–", "$7"), ("Heroku", "", "$8"))) == (
        html_table(("EC2", "$7"), ("Heroku", "$8"), head=("Target", "Cost"))
    )


@pytest.mark.parametrize(
    "table",
    [
        html_table(("EC2", NA, "$7"), ("Heroku", "12 ms", "–")),
        html_table(("EC2", '<i style="width:0%"></i>', "$7")),  # a bar has no text
        html_table(("EC2", '<span class="bad">0</span>', "$7")),
    ],
)
def test_a_column_with_any_figure_stays_as_it_is(table):
    assert html_without_empty_columns(table) == table


def test_columns_of_one_reason_are_told_together():
    assert html_without_empty_columns(f"<h2>Cost</h2>{html_table(('EC2', NA, NA))}") == (
        '<h2>Cost</h2><p class="small">Not available: p95, Cost (needs n &gt;= 72, have 38).</p>'
    )
    assert html_without_empty_columns(html_table()) == ""


def test_markdown_tables_are_shortened_alike():
    table = "| Target | p95 | Cost \\| rate |\n|---|--:|--:|\n| EC2 | n/a: too few | $7 |\n| Heroku | – | $8 |\n"
    shorter = "| Target | Cost \\| rate |\n|---|--:|\n| EC2 | $7 |\n| Heroku | $8 |\n\nNot available: p95 (too few).\n"
    assert markdown_without_empty_columns(f"# A\n\n{table}\nEnd\n") == f"# A\n\n{shorter}\nEnd\n"
    full = "| Target | p95 |\n|---|--:|\n| EC2 | 7 ms |\n"
    assert markdown_without_empty_columns(full) == full
