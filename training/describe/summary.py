"""What a data set is like, as figures and as sentences about what speaks against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from training.describe.duplicates import Pair, exact_pairs, near_pairs
from training.describe.scan import NO_SPLIT, ImageFile
from training.folders import printable, skipped_files_text

SHOWN = 50  # of each list
ACCURACIES = (0.5, 0.8, 0.9, 0.95, 0.99)
FEW_IMAGES = 20
UNBALANCED = 10
GOAL_POINTS = 1.0  # the half-width for which the number of test images is given, in percentage points
Z95 = 1.96
TEST_FRACTION = 0.2  # that ./cloudtrial finetune sets aside of a folder without splits


def summarise(name: str, root: Path, files: Sequence[ImageFile]) -> tuple[dict[str, Any], list[Pair]]:
    """The description as JSON has it, and the pairs of duplicates, exact ones first."""
    good = [file for file in files if not file.problem]
    bad = [file for file in files if file.problem]
    splits = list(dict.fromkeys(file.split for file in files))
    labels = sorted({file.label for file in files})
    counts = {label: {split: 0 for split in splits} for label in labels}
    for file in good:
        counts[file.label][file.split] += 1
    pairs = exact_pairs(good) + (near_pairs(good) if good else [])
    totals = {split: sum(counts[label][split] for label in labels) for split in splits}
    n_test = totals.get("test", round(TEST_FRACTION * totals.get(NO_SPLIT, 0)))
    content: dict[str, Any] = {
        "name": name,
        "images": len(good),
        "splits": totals,
        "classes": counts,
        "balance": _balance(counts, splits),
        "missing": {split: [label for label in labels if not counts[label][split]] for split in splits},
        "sizes_px": _sizes(good),
        "formats": dict(Counter(file.format for file in good).most_common()),
        "modes": dict(Counter(file.mode for file in good).most_common()),
        "left_out": skipped_files_text(root),
        "unreadable": {
            "n": len(bad),
            "files": [{"file": _name(file, root), "problem": file.problem} for file in bad[:SHOWN]],
        },
        "duplicates": {
            "exact": _pairs_summary([pair for pair in pairs if pair.exact], root),
            "near": _pairs_summary([pair for pair in pairs if not pair.exact], root),
        },
        "channels": _channels(good),
        "accuracy_interval": _intervals(n_test),
    }
    content["findings"] = findings(content)
    return content, pairs


def _balance(counts: dict[str, dict[str, int]], splits: Sequence[str]) -> dict[str, Any]:
    learnt = splits[0] if splits else NO_SPLIT
    numbers = {label: each[learnt] for label, each in counts.items()}
    most, fewest = max(numbers, key=numbers.__getitem__), min(numbers, key=numbers.__getitem__)
    total = sum(numbers.values())
    return {
        "most": [most, numbers[most]],
        "fewest": [fewest, numbers[fewest]],
        "majority": round(numbers[most] / total, 4) if total else None,  # the accuracy of always answering it
    }


def _sizes(files: Sequence[ImageFile]) -> dict[str, Any]:
    if not files:
        return {}
    widths, heights = np.array([file.size_px for file in files]).T
    common = Counter(file.size_px for file in files).most_common(5)
    return {
        "width": [int(widths.min()), float(np.median(widths)), int(widths.max())],
        "height": [int(heights.min()), float(np.median(heights)), int(heights.max())],
        "most_common": [[*size, number] for size, number in common],
    }


def _channels(files: Sequence[ImageFile]) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel, every image counted alike."""
    sums = [file.sums for file in files if file.sums is not None]
    if not sums:
        return {}
    mean, square = np.mean(sums, axis=0)
    return {"mean": np.round(mean, 4).tolist(), "std": np.round(np.sqrt(square - mean**2), 4).tolist()}


def _pairs_summary(pairs: Sequence[Pair], root: Path) -> dict[str, Any]:
    telling = sorted(pairs, key=lambda pair: (not pair.across_classes, not pair.across_splits))
    return {
        "n": len(pairs),
        "across_splits": sum(pair.across_splits for pair in pairs),
        "across_classes": sum(pair.across_classes for pair in pairs),
        # An image may be in many pairs; the second of two splits is the test image
        "images_across_splits": len({pair.second.path for pair in pairs if pair.across_splits}),
        "images_across_classes": len({pair.second.path for pair in pairs if pair.across_classes}),
        "pairs": [[_name(each, root) for each in (pair.first, pair.second)] for pair in telling[:SHOWN]],
    }


def _name(file: ImageFile, root: Path) -> str:
    return printable(str(file.path.relative_to(root)))


def _intervals(n_test: int) -> dict[str, Any]:
    """Wilson's 95% interval of the accuracy that this many test images will give."""
    rows = []
    for accuracy in ACCURACIES if n_test else ():
        interval = binomtest(round(accuracy * n_test), n_test).proportion_ci(method="wilson")
        rows.append(
            {"accuracy": accuracy, "low": round(float(interval.low), 4), "high": round(float(interval.high), 4)}
        )
    needed = {str(a): round(a * (1 - a) * (Z95 / (GOAL_POINTS / 100)) ** 2) for a in ACCURACIES}
    return {"n": n_test, "rows": rows, "images_for_1_point": needed}


def findings(content: dict[str, Any]) -> list[str]:
    """What speaks against the data, worst first; empty where nothing does."""
    found = []
    counts = content["classes"]
    if len(counts) < 2:
        found.append(f"There is one class, {next(iter(counts))}: a classifier needs at least two.")
    for split, labels in content["missing"].items():
        if labels:
            found.append(f"No image of {_list(labels)} in {split}.")
    for kind, words in (("exact", "the same"), ("near", "nearly the same")):
        each = content["duplicates"][kind]
        if number := each["images_across_splits"]:
            test = _count(number, "test image is", "test images are")
            found.append(f"{test} {words} as a training image: accuracy will be too high.")
        if number := each["images_across_classes"]:
            images = _count(number, "image is", "images are")
            found.append(f"{images} {words} as one of another class: a label may be wrong.")
    if (number := content["duplicates"]["exact"]["n"]) and NO_SPLIT in content["splits"]:
        pairs = _count(number, "pair of images is", "pairs of images are")
        found.append(f"{pairs} the same: finetune would test with copies of what it has learnt; delete one of each.")
    if content["left_out"]:
        found.append(f"{content['left_out']}.")
    if number := content["unreadable"]["n"]:
        first = content["unreadable"]["files"][0]
        unreadable = _count(number, "file", "files")
        found.append(f"{unreadable} cannot be read; the first: {first['file']} ({first['problem']}).")
    (most, high), (fewest, low) = content["balance"]["most"], content["balance"]["fewest"]
    if low and high >= UNBALANCED * low:
        found.append(f"Unbalanced: {high} images of {most}, {low} of {fewest}; look at each class's recall.")
    few = [label for label, each in counts.items() if 0 < next(iter(each.values())) < FEW_IMAGES]
    if few:
        found.append(f"Fewer than {FEW_IMAGES} training images of {_list(few)}.")
    return found


def _list(names: Sequence[str]) -> str:
    shown = 3
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
