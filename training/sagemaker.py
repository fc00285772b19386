"""`train`, as SageMaker runs it in the image: class folders in, a bundle out.

    ROOT/input/config/hyperparameters.json  strings, of HYPERPARAMETERS
    ROOT/input/data/train, .../test         class folders; or one channel of any name, with either layout of finetune
    ROOT/checkpoints                        where it exists (managed spot training), the run, which continues there
    ROOT/model                              the bundle, which `serve` finds under the same path
    ROOT/output/data                        run.json, log and curves
    ROOT/output/failure                     why it failed, for DescribeTrainingJob

ROOT is /opt/ml. Source: "How Amazon SageMaker AI provides training information" of AWS's documentation.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.command_line import positive
from service.errors import StoreError
from service.store_layout import check_name
from training.defaults import BASE, BATCH_SIZE, EPOCHS, SEED, batch_size, epochs, fraction, seed, size_px
from training.errors import DataError, RunError, TrainingError

ROOT = Path("/opt/ml")
MAX_REASON_CHARACTERS = 1024  # that SageMaker shows
RESERVED = "sagemaker_"  # hyperparameters that AWS's own tools add
STOPPED = 128 + signal.SIGTERM
REPORTS = ("run.json", "log.csv", "curves.svg")  # of the run's folder


def _is_true(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text.lower() in ("true", "1")


# Name -> how its text is read, and its value where it is not given
HYPERPARAMETERS: Mapping[str, tuple[Callable[[str], Any], Any]] = {
    "base": (str, BASE),
    "weights": (str, None),
    "size_px": (size_px, None),
    "unfreeze": (_is_true, False),
    "epochs": (epochs, EPOCHS),
    "batch_size": (batch_size, BATCH_SIZE),
    "lr": (positive, None),
    "seed": (seed, SEED),
    "floor": (fraction, None),  # lowest accuracy to accept
    "name": (str, "classifier"),  # of the model
}


def read_hyperparameters(path: Path) -> dict[str, Any]:
    """Every hyperparameter's value. Raises RunError for one that is unknown or cannot be read."""
    try:
        given = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError:
        raise RunError(f"{path} is not JSON") from None
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise RunError(f"{path} has to be an object of strings, such as {{'epochs': '5'}}")
    given = {name: value for name, value in given.items() if not name.startswith(RESERVED)}
    values = {name: default for name, (_, default) in HYPERPARAMETERS.items()}
    for name, text in given.items():
        if name not in HYPERPARAMETERS:
            raise RunError(f"there is no hyperparameter {name!r}; there are {', '.join(HYPERPARAMETERS)}")
        read, _ = HYPERPARAMETERS[name]
        try:
            values[name] = read(text)
        except argparse.ArgumentTypeError as error:
            raise RunError(f"the hyperparameter {name}: {error}") from None
    return values


def data_folder(channels: Path) -> Path:
    """The images as finetune takes them. Raises DataError where channels cannot be understood."""
    names = sorted(path.name for path in channels.iterdir() if path.is_dir()) if channels.is_dir() else []
    if len(names) == 1:
        return channels / names[0]
    if {"train", "test"} <= set(names):
        return channels
    raise DataError(
        f"{channels} has the channels {', '.join(names) or 'none'}; give `train` and `test` with CLASS/* each, or one "
        "channel that has all images"
    )


def train(root: Path, say: Callable[[str], None]) -> None:
    """Fine-tune, export, promote. Raises TrainingError."""
    values = read_hyperparameters(root / "input" / "config" / "hyperparameters.json")
    data = data_folder(root / "input" / "data")
    floor, name = values.pop("floor"), check_name(values.pop("name"))

    from training.bundles.from_run import export_run, promote_run
    from training.finetune.options import Options
    from training.finetune.run import finetune
    from training.finetune.run_folder import CHECKPOINT

    outputs = root / "output" / "data"
    run = root / "checkpoints" if (root / "checkpoints").is_dir() else outputs / "run"
    resume = (run / CHECKPOINT).exists()
    if resume:
        say(f"continues the run of {run}")
    finetune(Options(data=data, out=run, resume=resume, **values), say)
    for file, found in export_run(run, None).items():
        say(f"{file}: {found['accuracy']:.2%} of {found['n']} test images")
    bundle = run / "bundle" / name  # in a folder of its own: a model may be called test, as the run's images are
    promote_run(run, bundle, floor)
    shutil.copytree(bundle, root / "model", dirs_exist_ok=True)  # which may be a mount, and so is not replaced
    outputs.mkdir(parents=True, exist_ok=True)
    for file in REPORTS:
        if (run / file).exists():
            shutil.copyfile(run / file, outputs / file)
    say(f"{name} is in {root / 'model'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 with the reason in ROOT/output/failure, or 143 when the job was stopped."""
    (root,) = map(Path, arguments or sys.argv[1:] or [str(ROOT)])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))  # process 1 of a container has no default for it
    try:
        train(root, lambda line: print(line, flush=True))
    except Exception as error:
        known = isinstance(error, TrainingError | StoreError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        if not known:
            traceback.print_exc()
        print(f"train: {reason}", file=sys.stderr, flush=True)
        failure = root / "output" / "failure"
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_text(reason[:MAX_REASON_CHARACTERS], encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
