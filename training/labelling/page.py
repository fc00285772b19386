"""review.html: the images for a person, the least certain first, on pages that work from a file and export a CSV."""

from __future__ import annotations

import base64
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from PIL import Image as Pillow
from tqdm import tqdm

from service.errors import Problem
from service.images.decode_work import DecodeWork
from service.images.image_file import open_image
from training.defaults import ROOT
from training.labelling.proposal import Image, Proposal

CSS = ROOT / "eval" / "report" / "templates" / "report.css"  # the report's look
HERE = Path(__file__).parent
PER_PAGE = 500
PICTURE_PX = 160  # longest side of a thumbnail
EXACT_PX = 64  # images up to here stay as they are, and are shown with their pixels


def page_name(number: int) -> str:
    return "review.html" if number == 1 else f"review-{number}.html"


def write_pages(folder: Path, proposal: Proposal, content: dict[str, Any]) -> None:
    """Write a page for each PER_PAGE images, and one where there are none."""
    images = proposal.review
    parts = [images[start : start + PER_PAGE] for start in range(0, len(images), PER_PAGE)] or [()]
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    template = environment.get_template("review.html.j2")
    script = (HERE / "review.js").read_text(encoding="utf-8")
    shared = {
        "css": CSS.read_text(encoding="utf-8"),
        "own_css": (HERE / "review.css").read_text(encoding="utf-8"),
        "script": script,
        "script_sha256": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "p": content,
        "pages": [page_name(number) for number in range(1, len(parts) + 1)],
    }
    for number, part in enumerate(tqdm(parts, "review pages", leave=False, mininterval=1), 1):
        with ThreadPoolExecutor() as pool:
            cards = list(pool.map(lambda image: card(image, proposal.classes), part))
        key = hashlib.sha256("\n".join(image.name for image in part).encode()).hexdigest()[:12]
        page = template.render(shared, cards=cards, number=number, key=key)
        (folder / page_name(number)).write_text(page, encoding="utf-8")


def card(image: Image, classes: tuple[str, ...]) -> dict[str, Any]:
    """What the page shows of an image."""
    answer = image.answer
    picture, exact = thumbnail_uri(image.path)
    return {
        "path": image.name, "picture": picture, "exact": exact, "margin": answer.margin,
        "choices": [
            (classes[answer.first], answer.probability), (classes[answer.second], answer.second_probability),
        ],
    }  # fmt: skip


def thumbnail_uri(path: Path) -> tuple[str, bool]:
    """A data URI, and whether it has the image's own pixels. Empty for a file that has gone meanwhile."""
    try:
        with open_image(path.read_bytes(), PICTURE_PX * 4, DecodeWork()) as image:
            small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except (Problem, OSError, ValueError):
        return "", False
    if small.mode == "RGBA":  # on white, as the network sees it
        small = Pillow.alpha_composite(Pillow.new("RGBA", small.size, "white"), small).convert("RGB")
    exact = max(small.size) <= EXACT_PX
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    buffer = io.BytesIO()
    if exact:
        small.save(buffer, "PNG")
    else:
        small.save(buffer, "JPEG", quality=80)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", exact
