"""The commands for own data: describe, label, finetune, export, promote, import, tabular, pretrained. Each imports
what it needs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from service.command_line import positive
from training.defaults import (
    BASE,
    BATCH_SIZE,
    EPOCHS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    SEED,
    batch_size,
    channel_deviations,
    channel_means,
    epochs,
    fraction,
    seed,
    size_px,
)
from training.errors import PromotionError
from training.labelling import arguments as labelling

IMAGES_HELP = "folder with CLASS/*, or with train/CLASS/* and test/CLASS/*"
BUNDLE_HELP = "folder to write, in place of a model that is there"

DESCRIBE_EXAMPLES = """\
examples:
  ./cloudtrial describe photos                                   photos.html and photos.json, here
  ./cloudtrial describe photos --no-pictures --out docs/datasets
"""
FINETUNE_EXAMPLES = """\
examples:
  ./cloudtrial finetune photos --out runs/mine                   the last layer, in minutes
  ./cloudtrial finetune photos --out runs/mine --unfreeze        then the whole network
  ./cloudtrial finetune photos --out runs/other --base resnet18-cifar
Then: ./cloudtrial export runs/mine, and ./cloudtrial promote.
"""
IMPORT_EXAMPLES = """\
examples:
  ./cloudtrial import mine.onnx --images photos --bundle models/mine         classes: the folders of photos
  ./cloudtrial import mine.onnx --images photos --bundle models/mine --classes names.txt --resize 256
  ./cloudtrial import mine.onnx --images photos --bundle models/mine --mean 0,0,0 --std 1,1,1
--mean and --std are of pixels from 0 to 1: a network of pixels from -1 to 1 has 0.5,0.5,0.5 for
both, one of pixels from 0 to 255 has 0,0,0 and 0.00392157,0.00392157,0.00392157.
Of PyTorch, write the file with
  torch.onnx.export(net.eval(), (torch.zeros(2, 3, 224, 224),), "mine.onnx", dynamo=True,
                    dynamic_shapes=({0: torch.export.Dim("N")},), external_data=False)
"""
TABULAR_EXAMPLES = """\
examples:
  ./cloudtrial tabular rows.csv --bundle models/mine             columns of numbers, then `class`
  ./cloudtrial tabular sklearn:wine --bundle models/wine --golden eval/golden/wine/rows.csv
"""
PRETRAINED_EXAMPLES = """\
examples:
  ./cloudtrial pretrained efficientnet_lite0 --images photos --bundle models/lite0
  ./cloudtrial pretrained mobilenet_v3_small --images photos --bundle models/mobilenet
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parsers."""
    raw = argparse.RawDescriptionHelpFormatter
    describe = commands.add_parser(
        "describe", formatter_class=raw, epilog=DESCRIBE_EXAMPLES,
        description="Describe class folders of images: is this worth training?",
    )  # fmt: skip
    describe.add_argument("data", metavar="DATA", type=Path, help=IMAGES_HELP)
    describe.add_argument(
        "--out", type=Path, default=Path("."), help="folder for DATA.html and DATA.json (default: this one)"
    )
    describe.add_argument("--name", help="name of the data set and of the files (default: the folder's)")
    describe.add_argument("--no-pictures", action="store_true", help="leave the images out of the page")
    describe.set_defaults(run=run_describe)

    labelling.add(commands)

    finetune = commands.add_parser(
        "finetune", formatter_class=raw, epilog=FINETUNE_EXAMPLES,
        description="Fine-tune a network on own images: its last layer, then with --unfreeze all of it.",
    )  # fmt: skip
    finetune.add_argument("data", metavar="DATA", type=Path, help=IMAGES_HELP)
    finetune.add_argument(
        "--base",
        help=f"network to start from: {BASE} (needs no network), resnet18-cifar, or a builder of "
        f"torchvision such as vgg16_bn, resnet152, mobilenet_v3_small (default: {BASE})",
    )  # fmt: skip
    finetune.add_argument("--weights", help="FILE.safetensors, or none for random ones; default: pretrained")
    finetune.add_argument(
        "--size", type=size_px, dest="size_px", help="side of the input in pixels; default: the base's"
    )
    finetune.add_argument("--out", type=Path, required=True, help="folder of the run")
    finetune.add_argument("--unfreeze", action="store_true", help="then train the whole network")
    finetune.add_argument("--epochs", type=epochs, help=f"of the whole network (default: {EPOCHS})")
    finetune.add_argument("--batch-size", type=batch_size, help=f"(default: {BATCH_SIZE})")
    finetune.add_argument("--lr", type=positive, help="highest learning rate of the whole network")
    finetune.add_argument(
        "--resume", action="store_true", help="continue after the last finished epoch, with the run's own options"
    )
    finetune.add_argument("--seed", type=seed, help=f"of every random choice (default: {SEED})")
    finetune.set_defaults(run=run_finetune)

    importing = commands.add_parser(
        "import", formatter_class=raw, epilog=IMPORT_EXAMPLES,
        description="Make a model of a trained network in an ONNX file, if it is right on your images.",
    )  # fmt: skip
    importing.add_argument("file", metavar="FILE.onnx", type=Path, help="one float32 input of images, one output")
    importing.add_argument(
        "--images",
        type=Path,
        required=True,
        help="folder with CLASS/* or test/CLASS/*: images that it did not learn from",
    )
    importing.add_argument("--bundle", type=Path, required=True, help=BUNDLE_HELP)
    importing.add_argument(
        "--classes", type=Path, metavar="FILE", dest="class_file",
        help="names in the order of the network's outputs, one a line; default: the folders', sorted",
    )  # fmt: skip
    importing.add_argument(
        "--size", type=size_px, metavar="PX", dest="size_px", help="side of its images, where the file does not fix it"
    )
    importing.add_argument(
        "--resize", type=size_px, metavar="PX", dest="resize_px",
        help="side to which the centre square is resized, before its middle is taken; default: the network's",
    )  # fmt: skip
    importing.add_argument(
        "--mean", type=channel_means, default=IMAGENET_MEAN, metavar="R,G,B",
        help="subtracted from pixels from 0 to 1 (default: ImageNet's)",
    )  # fmt: skip
    importing.add_argument(
        "--std",
        type=channel_deviations,
        default=IMAGENET_STD,
        metavar="R,G,B",
        help="then divided by (default: ImageNet's)",
    )
    importing.add_argument("--licence", default="not stated", metavar="TEXT", help="of the weights, for model.json")
    importing.add_argument("--floor", type=fraction, help="lowest accuracy to accept; default: as of promote")
    importing.set_defaults(run=run_import)

    tabular = commands.add_parser(
        "tabular", formatter_class=raw, epilog=TABULAR_EXAMPLES,
        description="Fit a logistic regression to rows of numbers, and write it as a bundle.",
    )  # fmt: skip
    tabular.add_argument("rows", metavar="ROWS", help="CSV file whose last column is `class`, or sklearn:iris")
    tabular.add_argument("--bundle", type=Path, required=True, help=BUNDLE_HELP)
    tabular.add_argument("--golden", type=Path, help="CSV file to write the held out rows to")
    tabular.add_argument("--seed", type=seed, default=SEED, help=f"of the split (default: {SEED})")
    tabular.set_defaults(run=run_tabular)

    pretrained = commands.add_parser(
        "pretrained", formatter_class=raw, epilog=PRETRAINED_EXAMPLES,
        description="Write an ImageNet network as a bundle, as it is, in 8-bit integers.",
    )  # fmt: skip
    pretrained.add_argument("base", metavar="BASE", help="efficientnet_lite0, or a builder of torchvision")
    pretrained.add_argument(
        "--images", type=Path, required=True, help="folder of photos to calibrate with; 64 at most are taken"
    )
    pretrained.add_argument("--compare", type=Path, help="folder of images on which int8 is compared with torch")
    pretrained.add_argument("--bundle", type=Path, required=True, help=BUNDLE_HELP)
    pretrained.set_defaults(run=run_pretrained)


def run_describe(arguments: argparse.Namespace) -> None:
    from training.describe.command import describe

    describe(arguments.data, arguments.out, arguments.name, pictures=not arguments.no_pictures)


def run_finetune(arguments: argparse.Namespace) -> None:
    from training.finetune.options import Options, resolve_options
    from training.finetune.run import finetune

    options = resolve_options({name: getattr(arguments, name) for name in Options.__dataclass_fields__})
    finetune(options, lambda line: print(line, flush=True))
    print(f"./cloudtrial export {arguments.out} writes its ONNX files", flush=True)


def run_import(arguments: argparse.Namespace) -> None:
    from training.bundles.import_onnx import import_onnx

    names = ("class_file", "size_px", "resize_px", "mean", "std", "licence", "floor")
    found = import_onnx(
        arguments.file, arguments.images, arguments.bundle, **{name: getattr(arguments, name) for name in names}
    )
    print_bundle(arguments.bundle, found)


def run_tabular(arguments: argparse.Namespace) -> None:
    from training.bundles.tabular import make_bundle

    found = make_bundle(arguments.rows, arguments.bundle, arguments.golden, arguments.seed)
    print(
        f"{arguments.bundle}: {found['accuracy']:.1%} ({found['low']:.1%} to {found['high']:.1%}) of {found['n']} rows "
        f"held out; {found['bytes']} bytes, probabilities within {found['max_abs_dprob']:.1e} of scikit-learn's"
    )


def run_pretrained(arguments: argparse.Namespace) -> None:
    from training.bundles.pretrained import make_bundle

    for name, found in make_bundle(arguments.base, arguments.images, arguments.compare, arguments.bundle).items():
        if "agreement" in found:
            sure = f"for {found['sure_agreement']:.1%} of the {found['sure']}" if found["sure"] else "of none"
            print(
                f"{name}: int8 has torch's class for {found['agreement']:.1%} of {found['n']} images, {sure} of which "
                "torch is sure"
            )


def export(arguments: argparse.Namespace) -> None:
    """Export a run of finetune."""
    from training.bundles.from_run import export_run

    for name, values in export_run(arguments.run_folder, arguments.data).items():
        print(
            f"{arguments.run_folder / name}: {values['accuracy']:.2%} ({values['low']:.2%} to {values['high']:.2%}) "
            f"of {values['n']}; the label of torch on {values['agreement']:.2%}"
        )
    print(f"./cloudtrial promote {arguments.run_folder} --bundle models/NAME makes a model of it")


def promote(arguments: argparse.Namespace) -> None:
    """Promote a run of finetune."""
    from training.bundles.from_run import promote_run

    if arguments.bundle is None:
        raise PromotionError(f"name the folder of the new model: --bundle models/{arguments.run_folder.name}")
    print_bundle(arguments.bundle, promote_run(arguments.run_folder, arguments.bundle, arguments.floor))


def print_bundle(bundle: Path, found: dict[str, Any]) -> None:
    """How accurate a new model is, and how it is served."""
    print(f"{bundle}: {found['accuracy']:.2%} ({found['low']:.2%} to {found['high']:.2%}) of {found['n']}")
    print(f"ENGINE=onnx MODEL_DIR={bundle.resolve()} ./cloudtrial serve runs it")


def golden_photos(bundle: Any, photos: Path, out: Path) -> None:
    """A golden set of photos."""
    from training.bundles.golden_photos import write_photo_set

    for name, label, probability in write_photo_set(bundle, photos, out):
        print(f"{name}: {label} ({probability:.2f})")
