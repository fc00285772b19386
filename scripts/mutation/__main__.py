"""Applies mutants to the Pulumi programs, one by one, and prints which check caught each.

python -m scripts.mutation [--target NAME] [--jobs N] [--first]

Each mutant is applied to a copy of the project. First the checks run on a copy without a mutant, and must pass. Exit
code: 0 when every mutant was caught; 1 when one survived; 2 when one does not fit its file, or a check fails without a
mutant.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from scripts.mutation.checks import CHECKS, STACK_OF, CheckError, Detection, detections, make_copy
from scripts.mutation.mutant import Mutant, OutOfDate
from scripts.mutation.mutants import MUTANTS

SURVIVED, BROKEN = 1, 2


@dataclass(frozen=True)
class Result:
    """The result of one mutant."""

    mutant: Mutant
    detections: Sequence[Detection]

    @property
    def survives(self) -> bool:
        return not self.detections


def try_mutant(original: Path, mutant: Mutant, max_detections: int | None = None) -> Result:
    """Apply the mutant to a copy of the original and run the checks on it, until so many have caught it."""
    with copied(original) as copy:
        path = copy / mutant.file
        path.write_text(mutant.apply(path.read_text(encoding="utf-8")), encoding="utf-8")
        return Result(mutant, tuple(islice(detections(copy, mutant.target, mutant.file), max_detections)))


def try_original(original: Path, group: str) -> list[Detection]:
    """Run the checks on a copy without a mutant."""
    with copied(original) as copy:
        return list(detections(copy, group))


@contextmanager
def copied(original: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        yield shutil.copytree(original, Path(folder) / "copy")


def table(results: Sequence[Result]) -> str:
    """All results as a Markdown table."""
    lines = ["| target | mutant | caught by |", "|---|---|---|"]
    for result in results:
        caught_by = ", ".join(map(str, result.detections)) or "**nothing: it survives**"
        lines.append(f"| {result.mutant.target} | {result.mutant.name} | {caught_by} |")
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> str:
    """The number of mutants that each check caught, and the survivors."""
    lines = [f"{len(results)} mutants"]
    for check in CHECKS:
        caught = [result for result in results if any(item.check == check for item in result.detections)]
        alone = [result for result in caught if len(result.detections) == 1]
        lines.append(f"{check}: caught {len(caught)}, {len(alone)} of them alone")
    survivors = [result.mutant for result in results if result.survives]
    lines.append(f"survivors: {len(survivors)}")
    lines += [f"  {mutant.target}: {mutant.name} ({mutant.file})" for mutant in survivors]
    return "\n".join(lines)


def check_original(original: Path, groups: Sequence[str], pool: ThreadPoolExecutor) -> None:
    """Raises CheckError when a check fails without a mutant: it would then catch every mutant."""
    for group, detected in zip(groups, pool.map(partial(try_original, original), groups), strict=True):
        if detected:
            raise CheckError(f"{group} without any mutant is caught by {', '.join(map(str, detected))}")
        show(f"{group}: every check passes without a mutant")


def try_all(
    original: Path, mutants: Sequence[Mutant], pool: ThreadPoolExecutor, max_detections: int | None = None
) -> list[Result]:
    """Every mutant's result, in the mutants' order."""
    futures = {pool.submit(try_mutant, original, mutant, max_detections): mutant for mutant in mutants}
    results: dict[Mutant, Result] = {}
    for future in as_completed(futures):
        mutant = futures[future]
        results[mutant] = future.result()
        checks = [detection.check for detection in results[mutant].detections]
        show(f"{len(results)}/{len(mutants)} {mutant.target}: {mutant.name}: {', '.join(checks) or 'NOT CAUGHT'}")
    return [results[mutant] for mutant in mutants]


def show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def processor_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.mutation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", choices=list(STACK_OF), help="only the mutants of this one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time (%(default)s)")
    parser.add_argument(
        "--first",
        action="store_const",
        const=1,
        help="stop at the first check that catches a mutant: quicker, but the table does not name the others",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    groups = [group for group in STACK_OF if args.target in (None, group)]
    mutants = [mutant for mutant in MUTANTS if mutant.target in groups]
    started_at = time.monotonic()
    pool = ThreadPoolExecutor(args.jobs)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        original = make_copy(Path(folder) / "original")  # so that edits during the run change nothing
        try:
            for mutant in mutants:
                mutant.apply((original / mutant.file).read_text(encoding="utf-8"))
            check_original(original, groups, pool)
            results = try_all(original, mutants, pool, args.first)
        except (OutOfDate, CheckError) as error:
            show(f"mutants: {error}")
            return BROKEN
        finally:
            pool.shutdown(cancel_futures=True)
    print(table(results))
    print()
    print(summary(results))
    print(f"{time.monotonic() - started_at:.0f} s, {processor_s():.0f} s of processor time, {args.jobs} at a time")
    return SURVIVED if any(result.survives for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
