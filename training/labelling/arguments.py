"""The command line of ./cloudtrial label: its parsers, in a module that imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

NOTHING_LABELLED = 3  # exit code, as of a gate that cannot decide

PROPOSE = """Label the images of a folder with a model, where its labels are right to the precision that you ask for;
the rest is sorted for a person, the least certain first. How far the model may be trusted is found out on
held-out images, whose classes are known and on which it was not trained. Exit code 3: nothing was labelled."""
PROPOSE_EXAMPLES = """\
writes OUT/labelled/CLASS/*, OUT/review/review.html and review.csv, and tables; nothing is moved or overwritten.

examples:
  ./cloudtrial label propose --unlabelled photos --model mine --held-out runs/mine/test
  ./cloudtrial label propose --unlabelled photos --model models/mine --held-out checked --precision 0.95 --link
"""
APPLY = """Sort images into the proposal's class folders as a person decided: by the CSV that the review page
downloads, or by review.csv itself with its column `label` filled in. Rows without a label are left."""
APPLY_EXAMPLES = """\
examples:
  ./cloudtrial label apply decisions.csv --proposal proposal
  ./cloudtrial label apply proposal/review/review.csv
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parsers."""
    label = commands.add_parser(
        "label", description="Label images with a model as far as it may be trusted, and the rest by hand."
    )
    actions = label.add_subparsers(required=True, metavar="propose|apply", dest="action")
    raw = argparse.RawDescriptionHelpFormatter

    propose = actions.add_parser(
        "propose", formatter_class=raw, description=PROPOSE, epilog=PROPOSE_EXAMPLES,
        help="label what the model may be trusted with, sort the rest for a person",
    )  # fmt: skip
    propose.add_argument("--unlabelled", type=Path, required=True, metavar="DIR", help="folder of images")
    propose.add_argument("--model", required=True, metavar="NAME", help="a model of models/, or the folder of one")
    propose.add_argument(
        "--held-out", type=Path, metavar="DIR",
        help="CLASS/* of images that the model was not trained on, drawn as the unlabelled ones are",
    )  # fmt: skip
    propose.add_argument(
        "--precision", type=precision, default=0.99, metavar="P", help="fraction of right labels (default: 0.99)"
    )
    propose.add_argument(
        "--on-average", action="store_true",
        help="hold it over many such folders rather than in this one: labels more of a small folder",
    )  # fmt: skip
    propose.add_argument("--out", type=Path, metavar="OUT", help="folder to write (default: DIR-labels, here)")
    propose.add_argument("--link", action="store_true", help="hard links instead of copies")
    propose.set_defaults(run=run_propose)

    apply = actions.add_parser(
        "apply", formatter_class=raw, description=APPLY, epilog=APPLY_EXAMPLES,
        help="sort images as a person decided",
    )  # fmt: skip
    apply.add_argument("tables", metavar="CSV", type=Path, nargs="+", help="columns path and label")
    apply.add_argument("--proposal", type=Path, metavar="OUT", help="default: the one in whose review/ the CSV lies")
    apply.add_argument("--new-classes", action="store_true", help="allow labels that the model does not know")
    apply.add_argument("--link", action="store_true", help="hard links instead of copies")
    apply.set_defaults(run=run_apply)


def precision(text: str) -> float:
    """A fraction between 0 and 1, without the ends."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no fraction above 0 and below 1, such as 0.99")
    return value


def run_propose(arguments: argparse.Namespace) -> None:
    from service.errors import BundleError, SettingsError
    from training.labelling.command import Options, run

    options = Options(**{name: getattr(arguments, name) for name in Options.__dataclass_fields__})
    try:
        labelled = run(options)
    except (BundleError, SettingsError) as error:
        sys.exit(f"label: {error}")
    if not labelled:
        sys.exit(NOTHING_LABELLED)


def run_apply(arguments: argparse.Namespace) -> None:
    from training.labelling.apply import apply

    done = apply(arguments.tables, arguments.proposal, link=arguments.link, new_classes=arguments.new_classes)
    print(
        f"{done.folder / 'labelled'}: {done.added:,} images added, {done.already_there:,} were there, "
        f"{done.undecided:,} without a decision"
    )
