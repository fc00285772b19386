"""What an image file may cost: what is refused, with its words, and what is still read."""

import io
import struct
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from service.errors import UnprocessableImage
from service.images.jpeg_file import read_jpeg
from service.images.preprocess import decode_image
from service.schema import MAX_SCANS, MAX_SIDE_PX
from tests.conftest import picture_bytes
from tests.helpers import costly_files
from tests.helpers.running_service import png_of
from tests.service.images.test_preprocess import BUNDLE, claims, close, corners, look, quarters

CPU_LIMIT_S = 2.0  # of a core, for any request: the promise; each of these takes less than a tenth of it
ROWS = b"\x00\x00" * 4000 + b"\x00\x01"

REFUSED = [
    pytest.param(costly_files.many_scans(4000), f"4000 scans; at most {MAX_SCANS}", id="scans"),
    pytest.param(costly_files.hidden_scans(4000), f"4000 scans; at most {MAX_SCANS}", id="scans behind a comment"),
    pytest.param(costly_files.many_scans(60, 4800), "60 scans of 23.0 million pixels", id="scans of many pixels"),
    pytest.param(costly_files.jpeg_segments(b"\xff\xfe\x00\x02", 10**6), "over 4096 segments", id="segments"),
    pytest.param(costly_files.jpeg_padding(10**6), "too many parts", id="padding"),
    *(
        pytest.param(picture_bytes(fmt="JPEG").replace(b"\xff\xc0", b"\xff" + bytes([code])), says, id=says)
        for code, says in ((0xC9, "arithmetic-coded"), (0xC3, "lossless"), (0xC5, "hierarchical"), (0xF7, "JPEG-LS"))
    ),
    pytest.param(
        picture_bytes(fmt="JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
        "12 bits a channel",
        id="12 bits",
    ),
    pytest.param(
        costly_files.png_with(*[costly_files.png_chunk(b"tEXt", b"")] * 200_000), "too many parts", id="chunks"
    ),
    pytest.param(png_of(1, MAX_SIDE_PX + 1), f"sides of at most {MAX_SIDE_PX}", id="tall"),
    pytest.param(png_of(MAX_SIDE_PX + 1, 1), f"sides of at most {MAX_SIDE_PX}", id="wide"),
    pytest.param(costly_files.png_16_bit(4000, 4000), "count as 32.0 million", id="16 bits a channel"),
    pytest.param(costly_files.bmp_run_length_encoded(4000, 4000, ROWS), "count as 256.0 million", id="run lengths"),
    pytest.param(claims("WEBP", 4000), "takes 244 MiB to decode; at most 144 MiB", id="WebP"),
    pytest.param(claims("JPEG", 4800, progressive=True, subsampling=0, mode="CMYK"), "takes 177 MiB", id="scans held"),
]


@pytest.mark.parametrize(("data", "says"), REFUSED)
def test_a_file_of_too_much_work_is_refused(data, says):
    start = time.process_time()
    with pytest.raises(UnprocessableImage, match=says):
        decode_image(data, BUNDLE)
    assert time.process_time() - start < CPU_LIMIT_S


@pytest.mark.parametrize("wrap", [costly_files.jpeg_with_exif, lambda tiff: exif_png(tiff)], ids=["JPEG", "PNG"])
def test_tags_that_overlap_are_not_copied(wrap):
    data = wrap(costly_files.overlapping_exif(8_000, 100_000))
    tracemalloc.start()
    try:
        decode_image(data, BUNDLE)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data)  # each tag copied would be 8,000 times
    finally:
        tracemalloc.stop()


def exif_png(tiff: bytes) -> bytes:
    return costly_files.png_with(costly_files.png_chunk(b"eXIf", tiff))


# What is still read


def test_a_progressive_photo_is_read():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8))
    assert look(costly_files.encoded(photo, "JPEG", progressive=True)).shape == (32, 32, 3)


def test_scans_in_what_follows_the_image_do_not_count():
    film = np.random.default_rng(0).integers(0, 256, 2**20, np.uint8).tobytes() + b"\xff\xda\x00\x0c" * 1000
    data = costly_files.encoded(quarters(64), "JPEG", quality=95)
    assert (look(data + film) == look(data)).all()


def test_fill_bytes_before_metadata_go_with_it():
    """Left there, they would be the begin of a marker with whatever stands behind the segment."""
    comment = b"\xff\xfe\x00\x04ab"
    plain, filled = costly_files.jpeg_segments(b"", 0), costly_files.jpeg_segments(b"\xff" * 1000 + comment, 2)
    assert read_jpeg(filled).data == plain


def test_metadata_changes_nothing_but_the_orientation():
    plain = costly_files.encoded(quarters(64), "JPEG", quality=95)
    exif = Image.Exif()
    exif[0x010F] = "x" * 60_000
    profile = dict(icc_profile=bytes(200_000), comment=b"\xff\xda\xff\xd9" * 1000, exif=exif)
    assert (look(costly_files.encoded(quarters(64), "JPEG", quality=95, **profile)) == look(plain)).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["H", "I"], ids=["short", "long"])
def test_the_orientation_is_found_in_either_byte_order(order, kind):
    value = struct.pack(f"{order}{kind}", 3).ljust(4, b"\0")
    entry = struct.pack(f"{order}HHI", 0x0112, 3 if kind == "H" else 4, 1) + value
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    tiff = start + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)
    turned, plain = quarters(64).rotate(180), costly_files.encoded(quarters(64), "JPEG", quality=95)
    data = costly_files.encoded(turned, "JPEG", quality=95)
    segment = b"Exif\0\0" + tiff
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    close(corners(look(data)), corners(look(plain)), by=8)


@pytest.mark.parametrize("quote", [b'"', b"'"], ids=["double", "single"])
def test_the_orientation_of_xmp_counts_without_exif(quote):
    xmp = b"<rdf:Description tiff:Orientation=" + quote + b"3" + quote + b"/>"
    buffer = io.BytesIO()
    quarters(64).rotate(180).save(buffer, "JPEG", quality=95, xmp=xmp)
    close(corners(look(buffer.getvalue())), corners(look(costly_files.encoded(quarters(64), "JPEG"))), by=8)


def test_a_run_length_encoded_icon_is_read():
    body = b"\x40\x00\x00\x00" * 64 + b"\x00\x01"
    assert look(costly_files.bmp_run_length_encoded(64, 64, body)).shape == (32, 32, 3)


# A file without its end


def photo_jpeg(**options) -> bytes:
    """A JPEG of which the network sees every pixel's block."""
    noise = np.random.default_rng(3).integers(0, 256, (7, 7, 3), np.uint8)
    image = Image.fromarray(noise).resize((70, 55), Image.Resampling.BICUBIC)
    return costly_files.encoded(image, "JPEG", quality=85, **options)


WITHOUT_END = {
    "baseline": photo_jpeg(),
    "grey": costly_files.encoded(Image.open(io.BytesIO(photo_jpeg())).convert("L"), "JPEG"),
    "restarts": photo_jpeg(restart_marker_blocks=3),
    "progressive": photo_jpeg(progressive=True),
    "progressive, restarts": photo_jpeg(progressive=True, restart_marker_blocks=3, subsampling=0),
}


@pytest.mark.parametrize("data", WITHOUT_END.values(), ids=WITHOUT_END)
def test_a_jpeg_that_lacks_only_its_end_is_answered(data):
    whole = look(data)
    for file in (data[:-2], data[:-1], data[:-2] + bytes(999), data + b"more"):
        assert (look(file) == whole).all()


@pytest.mark.parametrize("data", WITHOUT_END.values(), ids=WITHOUT_END)
def test_a_jpeg_that_lacks_pixels_is_refused(data):
    """Cut at every byte of the last scan's end, at the ends of all scans, and where a restart marker comes."""
    scans = [place - 1 for place in range(len(data)) if data[place : place + 2] in (b"\xff\xda", b"\xff\xc4")]
    for end in (*range(len(data) - 120, len(data) - 2), *scans):
        for file in (data[:end], data[:end] + bytes(len(data) - end)):
            with pytest.raises(UnprocessableImage, match=r"JPEG image .*(cut short|damaged)"):
                look(file)
