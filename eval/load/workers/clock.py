"""How far a sender's clock is from the run's: Cristian's algorithm, as NTP has it. Pure.

The run asks for the time, and notes when it asked and when it was answered: the sender's clock was read in between.
Half of the least round trip bounds the error, however unequal the ways there and back are. No wall clock is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MIN_CLOCK_SAMPLES = 20  # before each block, at least; of these the quickest counts
MAX_UNCERTAINTY_S = 0.005
MAX_SYNC_S = 4.0  # in which one of more samples may be quick enough, where the machines are busy


@dataclass(frozen=True)
class ClockSample:
    """One question for the time. The run's times are of its time.perf_counter(), the sender's of its own."""

    sent_at: float
    sender_time: float
    received_at: float

    @property
    def round_trip_s(self) -> float:
        """From the question to the answer."""
        return self.received_at - self.sent_at


@dataclass(frozen=True)
class ClockOffset:
    """What the sender's clock is ahead of the run's, and by how much that may be wrong."""

    offset_s: float = 0.0  # of processes of one machine, which share the clock
    uncertainty_s: float = 0.0


def estimate_offset(samples: Iterable[ClockSample]) -> ClockOffset:
    """By the sample with the least round trip."""
    best = min(samples, key=lambda sample: sample.round_trip_s)
    return ClockOffset(best.sender_time - (best.sent_at + best.received_at) / 2, best.round_trip_s / 2)


def is_enough(samples: Sequence[ClockSample], elapsed_s: float) -> bool:
    """Whether no more of them are needed. elapsed_s: since the first was begun."""
    if elapsed_s > MAX_SYNC_S:
        return bool(samples)
    return len(samples) >= MIN_CLOCK_SAMPLES and estimate_offset(samples).uncertainty_s <= MAX_UNCERTAINTY_S


def offset_fault(sender: str, offset: ClockOffset) -> str | None:
    """Why requests cannot be timed by this clock; None if they can."""
    if offset.uncertainty_s <= MAX_UNCERTAINTY_S:
        return None
    return (
        f"the clock of {sender} is known to {offset.uncertainty_s * 1000:.1f} ms only, half of the least round trip; at"
        f" most {MAX_UNCERTAINTY_S * 1000:.0f} ms will do: send from a machine that is nearer, or start the run on it"
    )
