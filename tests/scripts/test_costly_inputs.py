"""The search for costly inputs, on decoders of the test's own."""

import pytest

from scripts.benchmarks.costly_inputs import KEPT, MAX_BYTES, main, measure, mutated, search, seed_files
from service.errors import UnprocessableImage
from service.images.preprocess import decode_image
from service.model import load_bundle
from service.schema import IMAGE_TYPES
from service.settings import Settings


@pytest.mark.integration
@pytest.mark.slow
def test_there_are_seeds_of_every_accepted_format():
    seeds = seed_files()
    assert {name.split()[0].upper() for name in seeds} == set(IMAGE_TYPES.values())
    bundle = load_bundle(Settings().model_dir, [])
    for data in seeds.values():
        assert decode_image(data, bundle).shape == (3, 32, 32)


def test_mutations_stay_within_the_size_limit():
    assert mutated(b"abc", [("repeat", 0, 3, 2)]) == b"abcabcabc"
    assert mutated(b"abc", [("byte", 1, 1, 0x7A)]) == b"abz"
    assert mutated(b"abc", [("delete", 0, 3, 0), ("byte", 0, 1, 0)]) == b""
    assert len(mutated(bytes(1000), [("repeat", 0, 64, 2**14)] * 6)) == MAX_BYTES


def test_a_refusal_is_an_outcome():
    def refuse(data):
        raise UnprocessableImage("too much")

    assert measure(refuse, "x", b"1").outcome == "422: too much"


def test_the_search_keeps_two_inputs_of_a_seed():
    found, tried = search(len, {"a": b"12", "b": b"34"}, lambda tried: tried < 200)
    assert tried == 200
    assert sorted(finding.seed for finding in found) == ["a", "a", "b", "b"]
    assert len(found) <= KEPT


def test_kept_files_are_measured_again(tmp_path, capsys):
    (tmp_path / "one").write_bytes(seed_files()["png"])
    main(["--measure", str(tmp_path)])
    assert capsys.readouterr().out.rstrip().endswith("decoded")
