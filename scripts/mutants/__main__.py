"""Plants faults in the Pulumi programs, one by one, and prints which check caught each.

python -m scripts.mutants [--target NAME] [--jobs N]

Each fault is planted in a copy of the project; nothing is changed here. First the checks go over a copy without a
fault, and must find nothing. Exit code: 0 when every fault was caught, or says why it need not be; 1 when one
survived; 2 when a fault no longer fits its file, or a check finds fault with the project as it is.
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
from pathlib import Path

from scripts.mutants.checks import CHECKS, STACK_OF, Catch, CheckError, catches, make_copy
from scripts.mutants.fault import Fault, OutOfDate
from scripts.mutants.faults import FAULTS

SURVIVED, BROKEN = 1, 2


@dataclass(frozen=True)
class Result:
    """What came of one fault."""

    fault: Fault
    catches: Sequence[Catch]

    @property
    def survives(self) -> bool:
        return not self.catches and not self.fault.acceptable


def try_fault(original: Path, fault: Fault) -> Result:
    """Plant the fault in a copy of the original and run the checks on it."""
    with copied(original) as copy:
        path = copy / fault.file
        path.write_text(fault.planted(path.read_text()))
        return Result(fault, tuple(catches(copy, fault.target, fault.file)))


def try_without(original: Path, group: str) -> list[Catch]:
    """Run the checks on a copy without a fault."""
    with copied(original) as copy:
        return list(catches(copy, group))


@contextmanager
def copied(original: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        yield shutil.copytree(original, Path(folder) / "copy")


def table(results: Sequence[Result]) -> str:
    """All results as a Markdown table."""
    lines = ["| target | fault | caught by |", "|---|---|---|"]
    for result in results:
        caught = ", ".join(map(str, result.catches))
        if not caught:
            acceptable = result.fault.acceptable
            caught = f"nothing, which is acceptable: {acceptable}" if acceptable else "**nothing: it survives**"
        lines.append(f"| {result.fault.target} | {result.fault.name} | {caught} |")
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> str:
    """How many each check caught, and what survived."""
    lines = [f"{len(results)} faults"]
    for check in CHECKS:
        by_it = [result for result in results if any(catch.check == check for catch in result.catches)]
        alone = [result for result in by_it if len(result.catches) == 1]
        lines.append(f"{check}: caught {len(by_it)}, {len(alone)} of them alone")
    survivors = [result.fault for result in results if result.survives]
    lines.append(f"survivors: {len(survivors)}")
    lines += [f"  {fault.target}: {fault.name} ({fault.file})" for fault in survivors]
    excused = [result.fault for result in results if not result.catches and result.fault.acceptable]
    lines.append(f"nothing catches, and need not: {len(excused)}")
    lines += [f"  {fault.target}: {fault.name}: {fault.acceptable}" for fault in excused]
    return "\n".join(lines)


def check_as_it_is(original: Path, groups: Sequence[str], pool: ThreadPoolExecutor) -> None:
    """Raises CheckError when a check finds fault with the project as it is: it would then catch everything."""
    for group, found in zip(groups, pool.map(partial(try_without, original), groups), strict=True):
        if found:
            raise CheckError(f"{group} without any fault is caught by {', '.join(map(str, found))}")
        say(f"{group}: no check finds anything in it as it is")


def plant_all(original: Path, faults: Sequence[Fault], pool: ThreadPoolExecutor) -> list[Result]:
    """Every fault's result, in the faults' order."""
    waiting = {pool.submit(try_fault, original, fault): fault for fault in faults}
    results: dict[Fault, Result] = {}
    for done in as_completed(waiting):
        fault = waiting[done]
        results[fault] = done.result()
        checks = [catch.check for catch in results[fault].catches]
        say(f"{len(results)}/{len(faults)} {fault.target}: {fault.name}: {', '.join(checks) or 'NOT CAUGHT'}")
    return [results[fault] for fault in faults]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def processor_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", choices=list(STACK_OF), help="only the faults of this one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="faults at a time (%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    groups = [group for group in STACK_OF if args.target in (None, group)]
    faults = [fault for fault in FAULTS if fault.target in groups]
    began = time.monotonic()
    pool = ThreadPoolExecutor(args.jobs)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        original = make_copy(Path(folder) / "original")  # so that who goes on working here changes nothing
        try:
            for fault in faults:
                fault.planted((original / fault.file).read_text())
            check_as_it_is(original, groups, pool)
            results = plant_all(original, faults, pool)
        except (OutOfDate, CheckError) as error:
            say(f"mutants: {error}")
            return BROKEN
        finally:
            pool.shutdown(cancel_futures=True)
    print(table(results))
    print()
    print(summary(results))
    print(f"{time.monotonic() - began:.0f} s, {processor_s():.0f} s of processor time, {args.jobs} at a time")
    return SURVIVED if any(result.survives for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
