"""Searches for image files that cost the most CPU time for their bytes: `make costly-inputs`.

hypothesis mutates real files of every accepted format and is steered towards CPU seconds per byte. The worst ten are
printed and kept in --out. With --measure FOLDER kept files are measured again, by the code that is checked out.
"""

from __future__ import annotations

import argparse
import heapq
import io
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings, target
from hypothesis import strategies as st
from PIL import Image

from service.errors import Problem
from service.images.preprocess import decode_image
from service.model import load_bundle
from service.settings import Settings

KEPT = 10
MAX_BYTES = 256 * 1024  # of a mutated file: a longer one costs more of the same
FIELDS = (
    b"\0\0",
    b"\0\1",
    b"\1\0",
    b"\x10\0",
    b"\0\x10",
    b"\x17\x70",
    b"\x70\x17",
    b"\x4e\x20",
    b"\x7f\xff",
    b"\xff\xff",
)
Mutation = tuple[str, int, int, int]


@dataclass(order=True, frozen=True)
class Finding:
    """One input and what it cost."""

    cpu_s: float
    seed: str = field(compare=False)
    data: bytes = field(compare=False)
    outcome: str = field(compare=False)


def encoded(image: Image.Image, fmt: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def seed_files() -> dict[str, bytes]:
    """Real files of every format and of the kinds that differ in their decoders."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8))
    plain, large = Image.new("RGB", (1400, 1400)), Image.new("RGB", (6000, 4000))
    largest_webp, largest_cmyk = Image.new("RGB", (3000, 3000)), Image.new("CMYK", (4800, 3200))  # by their memory
    frames = [noise, noise.rotate(90, expand=True).resize(noise.size)]
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "jpeg": encoded(noise, "JPEG", exif=exif),
        "jpeg progressive": encoded(noise, "JPEG", progressive=True),
        "jpeg progressive plain": encoded(plain, "JPEG", progressive=True),
        "jpeg progressive large": encoded(large, "JPEG", progressive=True),
        "jpeg cmyk": encoded(largest_cmyk, "JPEG", progressive=True),
        "jpeg grey": encoded(large.convert("L"), "JPEG"),
        "png": encoded(noise, "PNG", exif=exif),
        "png palette": encoded(noise.quantize(16), "PNG", transparency=bytes(range(16))),
        "png large": encoded(large.convert("RGBA"), "PNG"),
        "png 16 bit": encoded(Image.fromarray(np.zeros((2000, 3000), np.uint16)), "PNG"),
        "png 1 bit": encoded(large.convert("1"), "PNG"),
        "gif": encoded(noise, "GIF", save_all=True, append_images=frames),
        "gif large": encoded(large.convert("L"), "GIF"),
        "webp": encoded(noise, "WEBP", exif=exif),
        "webp large": encoded(largest_webp, "WEBP", method=0),
        "webp lossless": encoded(largest_webp.convert("RGBA"), "WEBP", lossless=True, method=0),
        "webp animated": encoded(noise, "WEBP", save_all=True, append_images=frames),
        "bmp": encoded(noise, "BMP"),
        "bmp palette": encoded(noise.quantize(16), "BMP"),
    }


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(("byte", "field", "repeat", "repeat", "delete", "copy")),
        st.integers(0, 2**16),  # where: from the start, or from the end for odd ones
        st.integers(1, 64),  # how much
        st.integers(0, 2**14),  # which value, or how often
    ),
    max_size=6,
)


def mutated(data: bytes, mutations: list[Mutation]) -> bytes:
    for kind, where, size, value in mutations:
        if not data:
            break
        at = where // 2 % len(data)
        at = len(data) - 1 - at if where % 2 else at
        if kind == "byte":
            data = data[:at] + bytes([value % 256]) + data[at + 1 :]
        elif kind == "field":
            data = data[:at] + FIELDS[value % len(FIELDS)] + data[at + 2 :]
        elif kind == "repeat":
            piece = data[at : at + size]
            data = data[:at] + piece * min(value, MAX_BYTES // len(piece)) + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + size :]
        else:
            data = data[:at] + data[value : value + size] + data[at:]
        data = data[:MAX_BYTES]
    return data


def measure(decode: Callable[[bytes], object], seed: str, data: bytes) -> Finding:
    start = time.process_time()
    try:
        decode(data)
        outcome = "decoded"
    except Problem as problem:
        outcome = f"{problem.status}: {problem.detail}"
    return Finding(time.process_time() - start, seed, data, outcome)


def search(
    decode: Callable[[bytes], object], seeds: dict[str, bytes], goes_on: Callable[[int], bool]
) -> tuple[list[Finding], int]:
    """The worst inputs, at most two of a seed, and how many were tried; `goes_on` is asked with that number."""
    worst: dict[str, list[Finding]] = {name: [] for name in seeds}
    tried = 0

    @settings(max_examples=2000, deadline=None, database=None, phases=[Phase.generate, Phase.target],
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
    @given(seed=st.sampled_from(sorted(seeds)), mutations=MUTATIONS)
    def one_round(seed: str, mutations: list[Mutation]) -> None:
        nonlocal tried
        if not goes_on(tried):
            return
        tried += 1
        found = measure(decode, seed, mutated(seeds[seed], mutations))
        target(found.cpu_s / max(1024, len(found.data)))
        heapq.heappush(worst[seed], found)
        if len(worst[seed]) > 2:
            heapq.heappop(worst[seed])

    while goes_on(tried):
        one_round()
    return heapq.nlargest(KEPT, [found for kept in worst.values() for found in kept]), tried


def show(found: Finding) -> None:
    size, each = len(found.data), found.cpu_s * 1e6 / max(1, len(found.data))
    print(f"{found.cpu_s:7.3f} s {size:8d} bytes {each:8.1f} µs a byte  {found.seed:24} {found.outcome[:80]}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="how long to search (60)")
    parser.add_argument("--out", type=Path, default=Path("reports/costly_inputs"), help="where the worst are kept")
    parser.add_argument("--measure", type=Path, metavar="FOLDER", help="only measure the files of this folder")
    parsed = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # Pillow's remarks on damaged metadata
    bundle = load_bundle(Settings().model_dir, [])

    def decode(data: bytes) -> object:
        return decode_image(data, bundle)

    if parsed.measure:
        for path in sorted(parsed.measure.iterdir()):
            show(measure(decode, path.name, path.read_bytes()))
        return
    deadline = time.monotonic() + parsed.minutes * 60
    found, tried = search(decode, seed_files(), lambda _: time.monotonic() < deadline)
    parsed.out.mkdir(parents=True, exist_ok=True)
    for rank, finding in enumerate(found):
        name = f"{rank:02d}-{finding.seed.replace(' ', '-')}-{sha256(finding.data).hexdigest()[:8]}"
        (parsed.out / name).write_bytes(finding.data)
        show(finding)
    print(f"{tried} inputs were tried; the worst are in {parsed.out}")


if __name__ == "__main__":
    main()
