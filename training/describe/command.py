"""Describe a folder of images: NAME.json, and NAME.html with pictures unless they are to stay out.

./cloudtrial describe DATA                                        # DATA.html and DATA.json, in this folder
./cloudtrial describe DATA --no-pictures --out docs/datasets      # nothing of the images themselves
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from training.defaults import ROOT
from training.describe.duplicates import Pair
from training.describe.scan import ImageFile, scan, thumbnail_png
from training.describe.summary import summarise
from training.errors import DataError, FolderError
from training.folders import printable

CSS = ROOT / "eval" / "report" / "templates" / "report.css"  # the report's look
PICTURES_PER_CLASS, CLASSES_WITH_PICTURES, PAIRS_WITH_PICTURES = 6, 40, 24
PICTURE_PX = 64


def describe(folder: Path, out: Path, name: str | None, *, pictures: bool) -> dict[str, Any]:
    """Scan, write both files, print what was found. Raises DataError, FolderError."""
    name = printable(name or folder.resolve().name)
    check_replaceable(out, name)
    files = scan(folder)
    content, pairs = summarise(name, folder, files)
    good = [file for file in files if not file.problem]
    if not good:
        first = content["unreadable"]["files"][0]
        raise DataError(f"none of the {len(files)} files can be read; the first: {first['file']} ({first['problem']})")
    out.mkdir(parents=True, exist_ok=True)
    page = render(content, samples(good) if pictures else {}, pair_pictures(pairs) if pictures else [])
    _replace(out, f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    _replace(out, f"{name}.html", page)
    print(f"{name}: {content['images']} images of {len(content['classes'])} classes")
    for line in content["findings"] or ["nothing speaks against it"]:
        print(f"- {line}")
    print(printable(f"{out / name}.html, {out / name}.json"))
    return content


def _replace(folder: Path, name: str, text: str) -> None:
    """Write the file at once: half of one would be taken for a file of the user."""
    part = folder / f".{name}.part"
    part.write_text(text, encoding="utf-8")
    os.replace(part, folder / name)


def check_replaceable(out: Path, name: str) -> None:
    """Raises FolderError unless the two files may be written there, in place of an earlier description's."""
    if out.exists() and not out.is_dir():
        raise FolderError(f"{out} is no folder: name one with --out")
    for path in (out / f"{name}.json", out / f"{name}.html"):
        if path.exists() and not _is_description(out / f"{name}.json"):
            raise FolderError(f"{path} is there, and was not written by ./cloudtrial describe: add --name or --out")


def _is_description(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"findings", "splits"} <= content.keys()


def render(content: dict[str, Any], pictures: dict[str, list[str]], pairs: list[tuple[str, str, str]]) -> str:
    """The page: no script, nothing fetched."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    template = environment.get_template("describe.html.j2")
    return template.render(d=content, css=CSS.read_text(encoding="utf-8"), pictures=pictures, pairs=pairs)


def samples(files: list[ImageFile]) -> dict[str, list[str]]:
    """Data URIs of each class's first images."""
    by_class: dict[str, list[ImageFile]] = {}
    for file in files:
        by_class.setdefault(file.label, []).append(file)
    return {
        label: [_uri(file) for file in each[:PICTURES_PER_CLASS]]
        for label, each in list(by_class.items())[:CLASSES_WITH_PICTURES]
    }


def pair_pictures(pairs: list[Pair]) -> list[tuple[str, str, str]]:
    """Two data URIs and a caption for the pairs that matter most."""
    telling = sorted(pairs, key=lambda pair: (not pair.across_classes, not pair.across_splits))
    return [
        (
            _uri(pair.first), _uri(pair.second),
            " and ".join(
                f"{each.split}/{each.label}/{printable(each.path.name)}" for each in (pair.first, pair.second)
            ),
        )
        for pair in telling[:PAIRS_WITH_PICTURES]
    ]  # fmt: skip


def _uri(file: ImageFile) -> str:
    return "data:image/png;base64," + base64.b64encode(thumbnail_png(file.path, PICTURE_PX)).decode()
