from __future__ import annotations

import pytest

from scripts.docs.training_curve import Epoch, curve, main, read_log
from training.train import LOG

TEXT = """\
    1  16      1.8531      49.20%      1.4
    2  16      1.6676      54.40%      2.2
    3  32      1.5012      61.00%      4.9
test set: 60.12% of 10000 images
"""


def test_a_log_is_read_as_training_writes_it():
    epochs, last = read_log(TEXT)
    assert epochs[0] == Epoch(1, 16, 1.8531, 49.2, 1.4)
    assert [len(epochs), last] == [3, "test set: 60.12% of 10000 images"]


def test_the_curve_names_each_size_and_the_end():
    svg = curve(*read_log(TEXT))
    assert svg.startswith("<svg") and "16 px" in svg and "32 px" in svg and "60.12%" in svg


def test_log_and_curve_are_written_together(tmp_path):
    run, out = tmp_path / "run", tmp_path / "docs"
    run.mkdir()
    out.mkdir()
    (run / LOG).write_text(TEXT, encoding="utf-8")
    main([str(run), "--out", str(out)])
    assert sorted(path.name for path in out.iterdir()) == ["training-curve.svg", "training-log.txt"]
    assert (out / "training-log.txt").read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize("text", ["", TEXT.rpartition("test")[0], "test set: 1% of 10 images\n", TEXT + "test"])
def test_an_unfinished_run_is_not_drawn(text, tmp_path, capsys):
    (tmp_path / LOG).write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--out", str(tmp_path)])
    assert "finish the run with --resume" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [LOG]
