"""./cloudtrial label propose: answers, proposal, files. The one module here that the command line calls for it.

Everything is written into OUT.part, which a run that is stopped leaves and the next one continues; at its end it
becomes OUT.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from service.classifier import Classifier
from service.settings import Settings
from training.defaults import ROOT
from training.errors import DataError, LabelError
from training.folders import class_folders, image_files, printable
from training.labelling.answers import Answer, AnswerFile, answer_all
from training.labelling.folders import (
    LABELLED,
    LABELLED_COLUMNS,
    LABELLED_CSV,
    LEFT_OUT_CSV,
    PROPOSAL_JSON,
    REVIEW,
    REVIEW_COLUMNS,
    REVIEW_CSV,
    class_folder,
    file_names,
    place,
    write_table,
)
from training.labelling.page import write_pages
from training.labelling.proposal import Image, Proposal, propose, summary
from training.labelling.threshold import Goal
from training.labelling.wording import lines

ANSWERS = "answers.jsonl"
MODELS = ROOT / "models"
NO_IMAGE = "its name does not end as an image's does"


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    unlabelled: Path
    model: str
    precision: float
    held_out: Path | None
    out: Path | None
    link: bool
    on_average: bool


def run(options: Options, say: Callable[[str], None] = print) -> bool:
    """Write the proposal; whether any image got a label. Raises TrainingError, BundleError or SettingsError."""
    out = options.out or Path(f"{options.unlabelled.resolve().name}-labels")
    held_folder = options.held_out or _no_held_out(options.model)
    _check_places(out, options.unlabelled, held_folder)
    files = image_files(options.unlabelled)
    if not files:
        raise DataError(f"{options.unlabelled} holds no image files; name a folder with PNG, JPEG or WebP files")
    classifier = load_model(options.model)
    held_files = _held_out_files(held_folder, classifier.classes)
    part = out.with_name(f"{out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    kept = AnswerFile(part / ANSWERS, {"model": classifier.sha256, "engine": classifier.info.engine})
    held_answers = answer_all([path for path, _ in held_files], classifier, kept, "held-out images")
    answers = answer_all(files, classifier, kept, "unlabelled images")
    held = [
        _image(held_folder, path, answer, label) for (path, label), answer in zip(held_files, held_answers, strict=True)
    ]
    new = [_image(options.unlabelled, path, answer) for path, answer in zip(files, answers, strict=True)]
    goal = Goal(options.precision, options.on_average)
    proposal = propose(held, new, classifier.classes, goal)
    others = [_image(options.unlabelled, path, Answer("", NO_IMAGE)) for path in _others(options.unlabelled, files)]
    left_out = (*proposal.left_out, *((image.name, image.answer.problem) for image in others))
    proposal = replace(proposal, left_out=left_out)
    write(part, proposal, options, classifier)
    os.rename(part, out)
    model = f"{classifier.info.name} by {classifier.info.engine}"
    lost = len(held) - proposal.held_out
    without = f" (and {lost:,} copies or unreadable files)" if lost else ""
    say(f"{proposal.held_out:,} held-out images{without}, {len(files):,} unlabelled; {model}")
    for line in lines(proposal):
        say(line)
    say(f"{out / LABELLED}, {out / REVIEW / 'review.html'}")
    return proposal.choice.chosen is not None


def load_model(model: str) -> Classifier:
    """The model of that name or in that folder. Raises LabelError, BundleError, SettingsError."""
    folder = MODELS / model if (MODELS / model / "model.json").is_file() else Path(model)
    if not folder.is_dir():
        names = ", ".join(sorted(path.parent.name for path in MODELS.glob("*/model.json")))
        raise LabelError(f"there is no model {model!r}: name one of {names}, or a folder with model.json")
    own = {name: os.environ[name] for name in ("ENGINE", "DEVICE") if name in os.environ}
    # With neighbours on the cores, OpenMP's waiting in a loop took this five times as long
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    classifier = Classifier.load(Settings.from_env(own | {"MODEL_DIR": str(folder.resolve())}))
    classifier.bundle.image  # noqa: B018  # raises BundleError for a model of rows
    if len(classifier.classes) < 2:
        raise LabelError(f"{model} knows {len(classifier.classes)} class: there is nothing to choose between")
    return classifier


def _no_held_out(model: str) -> Path:
    raise LabelError(
        f"name with --held-out class folders of images that {model} was not trained on: ./cloudtrial finetune sets "
        "some aside in test/ of its --out folder"
    )


def _check_places(out: Path, *sources: Path) -> None:
    if out.exists():
        raise LabelError(f"{out} exists; name another folder with --out, or move that one away")
    for source in sources:
        if out.resolve().is_relative_to(source.resolve()):
            raise LabelError(f"{out} lies in {source}, whose images are read; name a folder elsewhere with --out")


def _held_out_files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Each file with its class. Raises DataError for a folder that is no class of the model."""
    # As label names the folders, and as finetune leaves them in test/
    indices = {class_folder(name): index for index, name in enumerate(classes)}
    indices |= {name: index for index, name in enumerate(classes)}
    files = class_folders(folder)
    if unknown := [name for name in files if name not in indices]:
        raise DataError(
            f"{folder / unknown[0]} is no class of the model, which has {', '.join(classes[:10])}"
            f"{', ...' if len(classes) > 10 else ''}; name the folder that holds CLASS/*, such as {folder / 'test'}"
        )
    return [(path, indices[name]) for name, paths in files.items() for path in paths]


def _image(root: Path, path: Path, answer: Answer, label: int = -1) -> Image:
    name = path.relative_to(root).as_posix()
    if name != printable(name):  # no table could name it
        name, answer = printable(name), Answer("", "its name is not UTF-8; rename it")
    return Image(name, path, answer, label)


def _others(folder: Path, images: list[Path]) -> list[Path]:
    """Files that are taken for no image, but for hidden ones."""
    known = set(images)
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path not in known and not path.name.startswith(".")
    )


def write(folder: Path, proposal: Proposal, options: Options, classifier: Classifier) -> None:
    """Fill the folder; what an earlier run left of these files is written again."""
    for name in (LABELLED, REVIEW):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    file_of = file_names([image.name for image in (*proposal.labelled, *proposal.review)])
    for image in tqdm(proposal.labelled, "files", leave=False, mininterval=1):
        label = class_folder(proposal.classes[image.answer.first])
        place(image.path, folder / LABELLED / label / file_of[image.name], link=options.link)
    labelled = ((*_row(image, proposal), file_of[image.name]) for image in proposal.labelled)
    write_table(folder / LABELLED_CSV, LABELLED_COLUMNS, labelled)
    write_table(folder / LEFT_OUT_CSV, ("path", "reason"), proposal.left_out)
    review = (
        (*_row(image, proposal), proposal.classes[image.answer.second], file_of[image.name], "")
        for image in proposal.review
    )
    write_table(folder / REVIEW / REVIEW_CSV, REVIEW_COLUMNS, review)
    content: dict[str, Any] = {
        "unlabelled": str(options.unlabelled.resolve()),
        "model": {"name": classifier.info.name, "sha256": classifier.sha256, "engine": classifier.info.engine},
        **summary(proposal),
    }
    write_pages(folder / REVIEW, proposal, content)
    (folder / PROPOSAL_JSON).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _row(image: Image, proposal: Proposal) -> tuple[str, str, str, str]:
    answer = image.answer
    return image.name, proposal.classes[answer.first], f"{answer.probability:.6f}", f"{answer.margin:.6f}"
