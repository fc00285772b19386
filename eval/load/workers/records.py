"""What a run records of the machines that sent its open loops. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from eval.load.workers.clock import ClockOffset
from eval.load.workers.messages import Ready
from eval.load.workers.process import Process
from eval.samples.model import MAX_CLOCKS, ClockRecord, SenderRecord


def sender_record(name: str, workers: int, ready: Ready) -> SenderRecord:
    """Of a machine, before its first block."""
    return SenderRecord(name, workers, ready.cores, ready.processor, ready.versions, ready.code_sha256)


def with_clocks(
    records: Sequence[SenderRecord], block: int, offsets: Mapping[Process, ClockOffset]
) -> list[SenderRecord]:
    """The records with the clocks of another block: of each machine's workers, the one that is known least well."""
    found = []
    for record in records:
        its_own = [offset for each, offset in offsets.items() if each.node and each.node.name == record.name]
        worst = max(its_own, key=lambda offset: offset.uncertainty_s)
        clock = ClockRecord(block, round(worst.offset_s, 6), round(worst.uncertainty_s * 1000, 3))
        found.append(replace(record, clocks=[*record.clocks, clock][:MAX_CLOCKS]))
    return found
