"""The command line of what makes models; the commands for own data are in training/own_commands.py.

Each command imports its module only when it runs: PyTorch alone takes seconds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from service.command_line import CommandParser, whole_number
from service.errors import ServiceError
from training import own_commands
from training.defaults import BUNDLE, GOLDEN_SETS, GOLDEN_STEPS, MIN_ACCURACY, RUN_JSON, SEED, fraction, seed
from training.errors import DataError, TrainingError

DATA_HELP = "folder with train/CLASS/* and test/CLASS/*; default: download CIFAR-10"
PROMOTE_EXAMPLES = """\
examples:
  ./cloudtrial promote runs/mine --bundle models/mine            a run of finetune, after ./cloudtrial export
  ./cloudtrial promote runs/mine --bundle models/mine --floor 0.9
  ./cloudtrial promote runs/resnet18 --data data                 a run of train, measured on data/test/CLASS/*
"""
EXPORT_EXAMPLES = """\
examples:
  ./cloudtrial export runs/mine                                  int8.onnx and float32.onnx of a run of finetune
  ./cloudtrial export --data data                                of the shipped ResNet-18, measured on data/test
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Exits with one line when it fails."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (TrainingError, ServiceError) as error:
        sys.exit(f"{arguments.command}: {error}")
    except OSError as error:  # a full disk, a missing right, a file where a folder is named
        reason = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error
        sys.exit(f"{arguments.command}: {reason}")


def parser() -> argparse.ArgumentParser:
    """The parser of every command and its options."""
    result = argparse.ArgumentParser(prog="./cloudtrial", description="Make the model that is deployed.")
    commands: argparse._SubParsersAction[argparse.ArgumentParser] = result.add_subparsers(
        required=True, metavar="COMMAND", dest="command", parser_class=CommandParser
    )
    own_commands.add(commands)

    train = commands.add_parser("train", description="Train ResNet-18 on CIFAR-10.")
    train.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the log")
    train.add_argument("--data", type=Path, help=DATA_HELP)
    train.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    train.add_argument("--seed", type=seed, default=SEED, help=f"of every random choice (default: {SEED})")
    train.set_defaults(run=run_train)

    raw = argparse.RawDescriptionHelpFormatter
    promote = commands.add_parser(
        "promote", formatter_class=raw, epilog=PROMOTE_EXAMPLES,
        description="Turn a finished training run into the model bundle.",
    )  # fmt: skip
    promote.add_argument(
        "run_folder", metavar="RUN", type=Path, help="the --out folder of ./cloudtrial train or finetune"
    )
    promote.add_argument(
        "--bundle",
        type=Path,
        help="folder to write, in place of a model that is there; of ./cloudtrial finetune's runs required, else "
        f"{BUNDLE}",
    )
    promote.add_argument(
        "--floor", type=fraction,
        help="lowest accuracy to accept; default: what always answering the most frequent class reaches, "
        f"and {MIN_ACCURACY} for ./cloudtrial train",
    )  # fmt: skip
    promote.set_defaults(run=run_promote)

    export = commands.add_parser(
        "export", formatter_class=raw, epilog=EXPORT_EXAMPLES,
        description="Write a network as ONNX, in float32 and in int8.",
    )  # fmt: skip
    export.add_argument(
        "run_folder", metavar="RUN", type=Path, nargs="?",
        help="the --out folder of ./cloudtrial finetune; default: the network of --bundle",
    )  # fmt: skip
    export.add_argument("--bundle", type=Path, default=BUNDLE, help=f"folder to read and write (default: {BUNDLE})")
    export.set_defaults(run=run_export)

    for command in (promote, export):
        command.add_argument("--data", type=Path, help=DATA_HELP)
        command.add_argument("--data-name", help="name of the data set, for model.json; default: the loader's")

    golden = commands.add_parser(
        "golden", description="Generate the golden set from the shipped network, or from photos and any network."
    )
    golden.add_argument(
        "--photos", type=Path, help="folder of photos with provenance.json, instead of generated images"
    )
    golden.add_argument("--bundle", type=Path, default=BUNDLE, help=f"model bundle (default: {BUNDLE})")
    golden.add_argument(
        "--out",
        type=Path,
        help=f"folder to write, in place of a golden set that is there (default: {GOLDEN_SETS}/MODEL)",
    )
    golden.add_argument(
        "--steps",
        type=whole_number(1),
        default=GOLDEN_STEPS,
        help=f"more give smoother images (default: {GOLDEN_STEPS})",
    )
    golden.set_defaults(run=run_golden)
    return result


def run_train(arguments: argparse.Namespace) -> None:
    from training.train import train

    train(arguments.out, arguments.data, resume=arguments.resume, seed=arguments.seed)


def run_promote(arguments: argparse.Namespace) -> None:
    if (arguments.run_folder / RUN_JSON).exists():
        own_commands.promote(arguments)
        return
    from training.bundles.manifest import check_replaceable
    from training.data import load_split
    from training.promote import promote, read_run

    bundle = arguments.bundle or BUNDLE
    check_replaceable(bundle)
    read_run(arguments.run_folder)  # raises for a typo, before a download
    test = load_split(arguments.data, train=False)
    floor = MIN_ACCURACY if arguments.floor is None else arguments.floor
    stored = promote(arguments.run_folder, bundle, test, arguments.data_name or test.source, min_accuracy=floor)
    interval = f"{stored['low']:.2%} to {stored['high']:.2%}"
    print(f"{bundle}: {stored['accuracy']:.2%} ({interval}) of {stored['n']}")
    print("It has no ONNX files: write them with `make export`, and the golden set with `make golden`.")


def run_export(arguments: argparse.Namespace) -> None:
    if arguments.run_folder is not None:
        own_commands.export(arguments)
        return
    from service.model import WEIGHTS_OF, load_bundle
    from training.data import CLASSES, SIZE_PX, load_split
    from training.export import export

    classes = load_bundle(arguments.bundle, [WEIGHTS_OF["torch"]]).classes
    if arguments.data is None and classes != CLASSES:
        raise DataError(
            f"{arguments.bundle} has classes of its own, of which CIFAR-10 tells nothing: name images of them with "
            f"--data, of {SIZE_PX}x{SIZE_PX} pixels, or export its run, ./cloudtrial export RUN"
        )
    train, test = (load_split(arguments.data, train=part, classes=classes) for part in (True, False))
    metrics = export(arguments.bundle, train, test, arguments.data_name or test.source)
    for name, values in metrics.items():
        print(
            f"{arguments.bundle / name}: {values['accuracy']:.2%} ({values['low']:.2%} to {values['high']:.2%}) "
            f"of {values['n']}; the label of torch on {values['agreement']:.2%}, probabilities within "
            f"{values['max_abs_dprob']:.4f}"
        )


def run_golden(arguments: argparse.Namespace) -> None:
    from service.model import WEIGHTS_OF, load_bundle

    bundle = load_bundle(arguments.bundle)
    out = arguments.out or GOLDEN_SETS / arguments.bundle.resolve().name  # where ./cloudtrial run looks for it
    if arguments.photos is not None:
        own_commands.golden_photos(bundle, arguments.photos, out)
        return
    from training.folders import golden_files
    from training.golden import generate, write_golden_set

    if WEIGHTS_OF["torch"] not in bundle.files:
        raise DataError(f"{arguments.bundle} has no weights for torch, which draws the images: give some with --photos")
    golden_files(out)  # raises where something else is there, before minutes of work
    images = generate(bundle, arguments.steps)
    correct = write_golden_set(out, bundle, images)
    print(f"{out}: {len(images)} images, {correct} classified as intended")


if __name__ == "__main__":
    main()
