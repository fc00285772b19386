"""What the commands that make a model say of a value that cannot be."""

from __future__ import annotations

import pytest

from training.__main__ import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetune", "DATA", "--out", "run", "--size", "0"], "--size: '0' is not a whole number from 1 to 1024"),
        (["finetune", "DATA", "--out", "run", "--size", "-5"], "--size: '-5' is not a whole number"),
        (["finetune", "DATA", "--out", "run", "--epochs", "-1"], "--epochs: '-1' is not a whole number of at least 1"),
        (["finetune", "DATA", "--out", "run", "--batch-size", "-1"], "--batch-size: '-1' is not a whole number"),
        (["finetune", "DATA", "--out", "run", "--lr", "0"], "--lr: '0' is not a number above 0"),
        (["tabular", "rows.csv", "--bundle", "mine", "--seed", "-1"], "--seed: '-1' is not a whole number from 0 to"),
        (["promote", "run", "--floor", "95"], "--floor: '95' is not a fraction from 0 to 1, such as 0.95 for 95%"),
        (["promote", "run", "--floor", "-5"], "--floor: '-5' is not a fraction from 0 to 1"),
        (["golden", "--steps", "0", "--out", "set"], "--steps: '0' is not a whole number of at least 1"),
    ],
)
def test_a_value_that_cannot_be_is_a_usage_error(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and f"error: argument {message}" in capsys.readouterr().err
