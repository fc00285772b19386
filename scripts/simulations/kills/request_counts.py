"""What became of each planned request of a run that was killed and resumed. Pure.

A request is marked missing when samples.jsonl, at the moment at which no process of the run lives any more, has no line
that counts for it: none at all, or only lines of the phase `paused`. `--resume` sends these, and no other. Whether the
server had got such a request before the kill, nobody at the client can know: it was sent without an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields

from eval.samples.model import MEASURE, PAUSED, Sample

Request = str  # the SHA-256 of its image: in these runs no two requests send the same


@dataclass(frozen=True)
class Snapshot:
    """What is known of each request while no process of the run lives."""

    arrived: Mapping[Request, int]  # how often the server got it
    kept: frozenset[Request]  # answered, and in the journal
    paused: Mapping[Request, int]  # journalled as of a pause, and to be sent again

    @classmethod
    def of(cls, arrived: Mapping[Request, int], samples: Iterable[Sample], requests: Mapping[int, Request]) -> Snapshot:
        """requests: image index -> request."""
        measured = list(samples)
        kept = (requests[sample.image_index] for sample in measured if sample.phase == MEASURE)
        paused = (requests[sample.image_index] for sample in measured if sample.phase == PAUSED)
        return cls(Counter(arrived), frozenset(kept), Counter(paused))


@dataclass(frozen=True)
class RequestCounts:
    """Counts of requests. The first five are those at the kill."""

    planned: int = 0
    arrived: int = 0  # at the server, a repeated one once
    kept: int = 0  # answered, and in the journal
    missing: int = 0  # marked so
    unanswered: int = 0  # of them, those that had arrived
    repeated: int = 0  # of the missing, those that the resumed run has sent, each once
    twice: int = 0  # sent again, though the journal had not marked it missing
    never: int = 0  # without an arrival or a kept answer after the resumed run

    def __add__(self, other: RequestCounts) -> RequestCounts:
        return RequestCounts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


def count_requests(planned: Collection[Request], killed: Snapshot, resumed: Snapshot) -> RequestCounts:
    """The counts of one run. killed, resumed: when these had ended."""
    again = {request: resumed.arrived.get(request, 0) - killed.arrived.get(request, 0) for request in planned}

    def paused_again(request: Request) -> int:
        return resumed.paused.get(request, 0) - killed.paused.get(request, 0)

    missing = [request for request in planned if request not in killed.kept]
    too_often = [
        request
        for request in planned
        if killed.arrived.get(request, 0) > 1 + killed.paused.get(request, 0)
        or again[request] > (request not in killed.kept) + paused_again(request)
    ]
    never = [request for request in planned if request not in resumed.kept or not resumed.arrived.get(request, 0)]
    return RequestCounts(
        planned=len(planned),
        arrived=sum(killed.arrived.get(request, 0) > 0 for request in planned),
        kept=len(planned) - len(missing),
        missing=len(missing),
        unanswered=sum(killed.arrived.get(request, 0) > 0 for request in missing),
        repeated=sum(again[request] == 1 + paused_again(request) for request in missing),
        twice=len(too_often),
        never=len(never),
    )
