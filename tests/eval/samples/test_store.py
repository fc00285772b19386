from __future__ import annotations

import pytest

from eval.samples.model import SAMPLES_FILE
from eval.samples.store import SampleWriter, load_resume_state, read_samples, truncate_torn_line
from tests.helpers.synthetic_run import make_sample


def write(folder, *samples):
    with SampleWriter(folder, create=True) as journal:
        for sample in samples:
            journal.append(sample)
    return folder / SAMPLES_FILE


@pytest.mark.parametrize("torn", ["", "{", '{"target":"a","scen', "x" * 200_000])
def test_a_torn_last_line_is_cut_off_and_nothing_else(tmp_path, torn):
    path = write(tmp_path, *(make_sample(i) for i in range(3)))
    whole = path.read_bytes()
    path.write_bytes(whole + torn.encode())
    assert truncate_torn_line(tmp_path) == len(torn)
    assert path.read_bytes() == whole


def test_a_file_of_nothing_but_a_torn_line_becomes_empty(tmp_path):
    (tmp_path / SAMPLES_FILE).write_text('{"target"')
    truncate_torn_line(tmp_path)
    assert list(read_samples(tmp_path)) == []


def test_appending_goes_on_after_the_mended_line(tmp_path):
    with write(tmp_path, make_sample(0)).open("a") as file:
        file.write('{"tar')
    truncate_torn_line(tmp_path)
    with SampleWriter(tmp_path, create=False) as journal:
        journal.append(make_sample(1))
    assert [s.image for s in read_samples(tmp_path)] == [0, 1]


def test_resume_state_names_each_request_and_keeps_search_steps(tmp_path):
    step = make_sample(5, scenario="max_rate", block=9, place=2)
    write(tmp_path, make_sample(0, block=3, place=1), step)
    past = load_resume_state(tmp_path, "max_rate", 1)
    assert past.completed == {(3, 1), (9, 2)}
    assert past.search_samples == {9: [step]}
