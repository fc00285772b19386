"""What a worker says is lines of JSON, which are checked: a machine that was taken over runs no code here."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import replace

import pytest

from eval.errors import InvalidInput
from eval.load.client import RequestSpec
from eval.load.workers import messages
from eval.load.workers.shard import Shard
from eval.targets.tokens import Scrubber
from service.system import processor
from tests.helpers.fake_node import RunsCode
from tests.helpers.synthetic_run import make_sample

READY = messages.Ready("0" * 64, {"python": "3.11.2", "aiohttp": "3.13.2"}, 4, processor(), "a-b-c")
SAID = [
    READY, messages.Planned(), messages.Time(123456.789012345), messages.Done(), messages.Cancelled(),
    messages.Paused(1.5, 2.5, 1.0, "stopped"), messages.Failed("ClientError: no"),
    make_sample(3, sender=None, probabilities=(0.1, 0.9), rate_rps=20.0, send_delay_ms=-0.5),
    replace(make_sample(4, error="timeout"), detail="it took \u00e9 and \\ \x7f too long"),
]  # fmt: skip


@pytest.mark.parametrize("message", SAID, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_said(message):
    line = messages.to_line(message)
    found = messages.from_line(line)
    if message is SAID[-1]:
        message = replace(message, detail="it took \u00e9 and \\ \ufffd too long")
    assert (found, line.count(b"\n")) == (message, 1)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"hello\n", b"Start {}\n", b"Shard {}\n", b"Planned\n", b"Planned []\n",
        b"Planned {}",  # torn
        b'Time {"now": NaN}\n', b'Time {"now": 1e300}\n', b'Time {"now": "1"}\n', b"Time {}\n",
        b'Paused {"start": 1.0, "end": 2.0, "duration_s": 1.0, "cause": "boredom"}\n',
        b'Sample {"target": "a"}\n', messages.to_line(make_sample(0)).replace(b'"measure"', b'"other"'),
        b"Sample " + b"[" * 5000 + b"\n", b"\xff\xfe {}\n", pickle.dumps(messages.Done()) + b"\n",
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(line):
    with pytest.raises(InvalidInput):
        messages.from_line(line)


def test_a_pickle_from_a_worker_is_not_opened(tmp_path):
    with pytest.raises(InvalidInput):
        messages.from_line(pickle.dumps(RunsCode(tmp_path / "made")) + b"\n")
    assert not (tmp_path / "made").exists()


async def first_line(data: bytes) -> bytes | None:
    reader = asyncio.StreamReader(limit=messages.MAX_LINE_BYTES)
    reader.feed_data(data)
    reader.feed_eof()
    return await messages.read_line(reader)


def test_a_line_is_whole_or_is_left_at_its_limit():
    assert asyncio.run(first_line(b"Done {}\nDone")) == b"Done {}\n"
    assert asyncio.run(first_line(b"Done {")) is None
    with pytest.raises(InvalidInput, match="a line of more than 256 KiB"):
        asyncio.run(first_line(b"x" * (messages.MAX_LINE_BYTES + 1)))


REQUEST = RequestSpec("poisson", "measure", 7, 5, None, 3, 20.0)
SHARD = Shard("a", "http://a.example", ("cat", "dog"), 1.0, None, Scrubber(), False, 55.0, 1, (REQUEST,), (0.0,))
ANSWER = make_sample(
    0, target="a", scenario="poisson", phase="measure", block=7, index_in_block=3, image_index=5, rate_rps=20.0,
    predicted_class=1, probabilities=(0.5, 0.5),
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"target": "b"}, {"scenario": "ramp"}, {"phase": "warmup"}, {"block": 8}, {"image_index": 4},
        {"rate_rps": 21.0}, {"predicted_class": 2}, {"probabilities": (1.0,)}, {"latency_ms": 0.0},
        {"index_in_block": 4},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_sample_has_to_be_one_of_its_request(change):
    assert SHARD.matches_request(ANSWER, REQUEST) and SHARD.matches_request(replace(ANSWER, phase="paused"), REQUEST)
    assert not SHARD.matches_request(replace(ANSWER, **change), REQUEST)
