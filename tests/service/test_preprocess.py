import base64
import io
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.errors import BadRequest, Problem, UnprocessableImage, Unsupported
from service.model import Bundle
from service.preprocess import PREVIEW_PX, decode_image, preview_uri, read_base64, read_pixels, resized
from service.schema import IMAGE_TYPES, MAX_PIXELS
from tests.conftest import picture_bytes
from tests.helpers.running_service import png_of

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BUNDLE = Bundle(Path(), "test", "resnet18-cifar", ("a", "b"), 32, MEAN, STD, {})
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def seen(array: np.ndarray) -> np.ndarray:
    """The uint8 [S, S, 3] pixels that a network input stands for."""
    assert array.shape == (3, 32, 32)
    assert array.dtype == np.float32
    pixels = array.transpose(1, 2, 0) * np.array(STD) * 255 + np.array(MEAN) * 255
    return np.rint(pixels).astype(int)


def look(data: bytes) -> np.ndarray:
    return seen(decode_image(data, BUNDLE))


def encode(image: Image.Image, fmt: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def quarters(side: int = 32) -> Image.Image:
    """Red, green over blue, white."""
    image = Image.new("RGB", (side, side), RED)
    image.paste(GREEN, (side // 2, 0, side, side // 2))
    image.paste(BLUE, (0, side // 2, side // 2, side))
    image.paste(WHITE, (side // 2, side // 2, side, side))
    return image


def corners(pixels: np.ndarray) -> list[tuple]:
    return [tuple(int(v) for v in pixels[y, x]) for y, x in ((8, 8), (8, 24), (24, 8), (24, 24))]


def close(found, wanted, by=3):
    np.testing.assert_allclose(np.array(found), np.array(wanted), atol=by)


# What is read


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "GIF", "WEBP"])
def test_a_32_pixel_image_keeps_every_bit(fmt):
    image = quarters()
    options = {"lossless": True} if fmt == "WEBP" else {}
    np.testing.assert_array_equal(look(encode(image, fmt, **options)), np.asarray(image))


def test_the_input_is_normalised_as_the_bundle_says():
    found = decode_image(picture_bytes(), BUNDLE)
    pixels = np.asarray(Image.open(io.BytesIO(picture_bytes()))) / 255
    np.testing.assert_allclose(found, ((pixels - MEAN) / STD).transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("fmt", IMAGE_TYPES.values())
@pytest.mark.parametrize("size", [(32, 32), (1, 1), (7, 300), (640, 480)], ids=str)
def test_every_format_is_read_at_every_size(fmt, size):
    assert look(picture_bytes(size=size, fmt=fmt)).shape == (32, 32, 3)


MODES = [
    "1-PNG",
    "L-PNG",
    "LA-PNG",
    "P-PNG",
    "RGBA-PNG",
    "I;16-PNG",
    "L-JPEG",
    "CMYK-JPEG",
    "RGBA-WEBP",
    "1-BMP",
    "P-BMP",
    "L-GIF",
]


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("side", [32, 100])
def test_a_white_image_is_white_in_every_mode(kind, side):
    mode, fmt = kind.split("-")
    white = Image.new("RGB", (side, side), WHITE)
    image = Image.fromarray(np.full((side, side), 65535, np.uint16)) if mode == "I;16" else white.convert(mode)
    close(look(encode(image, fmt)), np.full((32, 32, 3), 255))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """The same picture with a chunk more after the header."""
    return png[:33] + chunk(kind, content) + png[33:]


def test_a_png_of_the_right_size_keeps_every_bit():
    noise = Image.fromarray(np.random.default_rng(5).integers(0, 256, (32, 32, 3), np.uint8))
    for picture in (noise, quarters(), quarters(32).effect_spread(3)):
        for level in (0, 1, 9):
            assert (look(encode(picture, compress_level=level)) == np.asarray(picture)).all()
    for png in (with_chunk(encode(noise), b"tEXt", b"a\0b"), encode(noise) + b"more"):
        assert (look(png) == np.asarray(noise)).all()
    turned = Image.Exif()
    turned[0x0112] = 3
    assert (look(encode(noise, exif=turned)) == np.asarray(noise)[::-1, ::-1]).all()


def test_a_damaged_png_is_refused():
    noise = Image.fromarray(np.random.default_rng(5).integers(0, 256, (32, 32, 3), np.uint8))
    header, data, end = encode(noise)[:33], encode(noise)[41:-16], encode(noise)[-12:]
    wrong_sum = encode(noise)[:-20] + b"\0\0\0\0" + encode(noise)[-16:]
    short = header + chunk(b"IDAT", zlib.compress(zlib.decompress(data)[:-40])) + end
    for png in (wrong_sum, short, header + chunk(b"IDAT", data[:-9]) + end, header + chunk(b"IDAT", b"") + end, header):
        with pytest.raises(UnprocessableImage, match="damaged or cut short"):
            look(png)


def test_16_bit_grey_is_scaled_and_not_clipped():
    ramp = np.repeat(np.arange(32, dtype=np.uint16)[None] * 257 * 8, 32, 0)
    np.testing.assert_array_equal(look(encode(Image.fromarray(ramp)))[0, :, 0], np.arange(32) * 8)


def test_cmyk_keeps_its_colours():
    close(corners(look(encode(quarters(64).convert("CMYK"), "JPEG", quality=100))), [RED, GREEN, BLUE, WHITE], 8)


@pytest.mark.parametrize("side", [32, 64])
def test_transparent_parts_turn_white(side):
    image = quarters(side).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, side // 2, side // 2))
    close(corners(look(encode(image))), [WHITE, GREEN, BLUE, WHITE])


def test_a_palettes_transparent_colour_turns_white():
    image = quarters().quantize(8)
    red = image.getpixel((0, 0))
    close(corners(look(encode(image, "GIF", transparency=red))), [WHITE, GREEN, BLUE, WHITE])
    alpha = bytes(0 if i == red else 255 for i in range(8))
    close(corners(look(encode(image, "PNG", transparency=alpha))), [WHITE, GREEN, BLUE, WHITE])


def test_half_transparent_grey_is_mixed_with_white():
    close(look(encode(Image.new("LA", (32, 32), (0, 128)))), np.full((32, 32, 3), 127))


@pytest.mark.parametrize("fmt", ["GIF", "WEBP"])
def test_an_animation_shows_its_first_frame(fmt):
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    close(look(encode(frames[0], fmt, save_all=True, append_images=frames[1:])), np.full((32, 32, 3), RED), 6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("fmt", "side"), [("PNG", 32), ("PNG", 80), ("JPEG", 400), ("WEBP", 64)])
def test_a_rotated_photo_is_turned_upright(orientation, fmt, side):
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = quarters(side)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose[turns[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    close(corners(look(encode(stored, fmt, exif=exif))), [RED, GREEN, BLUE, WHITE], 12)


def test_a_16_bit_image_is_turned_too():
    exif = Image.Exif()
    exif[0x0112] = 3
    ramp = np.repeat(np.arange(32, dtype=np.uint16)[None] * 257, 32, 0)
    np.testing.assert_array_equal(look(encode(Image.fromarray(ramp), exif=exif))[0, :, 0], np.arange(32)[::-1])


def test_damaged_exif_data_is_passed_over():
    data = encode(quarters(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    close(corners(look(data)), [RED, GREEN, BLUE, WHITE])


def test_the_centre_square_of_an_oblong_image_is_seen():
    image = Image.new("RGB", (128, 64), BLACK)
    image.paste(quarters(64), (32, 0))
    close(corners(look(encode(image))), [RED, GREEN, BLUE, WHITE])
    close(corners(look(encode(image.rotate(90, expand=True)))), [GREEN, WHITE, RED, BLUE])


def test_shrinking_averages_and_does_not_pick():
    checkered = np.indices((320, 320)).sum(0) % 2 * 255
    close(look(encode(Image.fromarray(checkered.astype(np.uint8)))), np.full((32, 32, 3), 127), 6)


def test_a_big_photo_is_seen_like_its_small_copy():
    photo = Image.open(io.BytesIO(picture_bytes(size=(3000, 2000))))
    small = photo.crop((500, 0, 2500, 2000)).resize((32, 32), Image.Resampling.BICUBIC)
    close(look(encode(photo, "JPEG", quality=95)), np.asarray(small), 8)
    close(look(encode(photo)), np.asarray(small), 4)


# JSON forms


def test_base64_and_nested_lists_are_seen_like_the_file():
    data = picture_bytes()
    rows = json.loads(json.dumps(np.asarray(Image.open(io.BytesIO(data))).tolist()))
    wanted = decode_image(data, BUNDLE)
    np.testing.assert_array_equal(read_base64(base64.b64encode(data).decode(), BUNDLE), wanted)
    np.testing.assert_array_equal(read_pixels(rows, BUNDLE), wanted)


def test_nested_lists_of_another_size_are_resized_like_a_file():
    data = picture_bytes(size=(50, 40))
    rows = np.asarray(Image.open(io.BytesIO(data))).tolist()
    np.testing.assert_array_equal(read_pixels(rows, BUNDLE), decode_image(data, BUNDLE))


def test_fractions_are_rounded():
    np.testing.assert_array_equal(seen(read_pixels([[[0.4, 254.6, 7]]], BUNDLE))[0, 0], (0, 255, 7))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        pytest.param([], r"shape is \[0\]", id="empty"),
        pytest.param([[1, 2, 3]], r"shape is \[1, 3\]", id="flat"),
        pytest.param([[[1, 2]]], r"shape is \[1, 1, 2\]", id="two channels"),
        pytest.param([[[1, 2, 3, 4]]], r"shape is \[1, 1, 4\]", id="four channels"),
        pytest.param([[[1, 2, 3]], [[1, 2, 3], [1, 2, 3]]], "differ in length", id="ragged"),
        pytest.param([[[1, 2, 256]]], "it holds 256", id="over"),
        pytest.param([[[1, -1, 3]]], "it holds -1", id="under"),
        pytest.param([[[1, float("nan"), 3]]], "it holds nan", id="NaN"),
        pytest.param([[[1, float("inf"), 3]]], "it holds inf", id="infinite"),
        pytest.param([[["1", "2", "3"]]], "not a number", id="strings"),
        pytest.param([[[None, 1, 2]]], "not a number", id="null"),
        pytest.param([[[10**40, 1, 2]]], "not a number", id="huge"),
        pytest.param(None, "not a number", id="no list"),
        pytest.param({"a": 1}, "not a number", id="object"),
    ],
)
def test_wrong_lists_are_refused(rows, says):
    with pytest.raises(UnprocessableImage, match=says):
        read_pixels(rows, BUNDLE)


@pytest.mark.parametrize("text", ["%%%", "abc", "aGVsbG8", "aGVs\nbG8=", "ä"], ids=repr)
def test_broken_base64_is_refused(text):
    with pytest.raises(UnprocessableImage, match="not base64"):
        read_base64(text, BUNDLE)


@pytest.mark.parametrize("value", ["", None, 7, []], ids=repr)
def test_base64_must_be_a_string_with_something_in_it(value):
    with pytest.raises(BadRequest, match="non-empty string"):
        read_base64(value, BUNDLE)


# What is refused


@pytest.mark.parametrize("data", [b"cat.png", b"<svg/>", b"II*\0tiff", b"%PDF-1.7", b"\0" * 100], ids=repr)
def test_other_bytes_are_unsupported_whatever_they_are_called(data):
    with pytest.raises(Unsupported, match="no PNG, JPEG, WebP, GIF or BMP"):
        decode_image(data, BUNDLE)


def test_no_bytes_are_nothing_to_read():
    with pytest.raises(BadRequest, match="0 bytes"):
        decode_image(b"", BUNDLE)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "BMP"])
def test_an_image_cut_short_is_undecodable(fmt, share):
    data = picture_bytes(size=(200, 200), fmt=fmt)
    with pytest.raises(UnprocessableImage, match=f"{fmt} image of .* damaged or cut short"):
        decode_image(data[: max(12, int(len(data) * share))], BUNDLE)


def claims(fmt: str, side: int, **options: Any) -> bytes:
    """A small picture whose header claims to be side x side."""
    options |= {"lossless": True} if fmt == "WEBP" else {}
    data = bytearray(picture_bytes(fmt=fmt, **options))
    if fmt == "JPEG":
        at = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", side, side)
    elif fmt == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
        at = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1)) + 5
        data[at : at + 4] = struct.pack("<HH", side, side)
    elif fmt == "BMP":
        data[18:26] = struct.pack("<ii", side, side)
    else:
        data[21:25] = struct.pack("<I", (side - 1) | (side - 1) << 14)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [png_of(20_000, 20_000)] + [claims(fmt, 16_000) for fmt in ("JPEG", "GIF", "BMP", "WEBP")],
    ids=["PNG", "JPEG", "GIF", "BMP", "WEBP"],
)
def test_a_decompression_bomb_is_refused_by_its_header(data):
    assert len(data) < 100_000
    with pytest.raises(UnprocessableImage, match=r"\d+ x \d+ pixels; at most 24 million") as caught:
        decode_image(data, BUNDLE)
    assert "scale it down" in caught.value.detail


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("size", [(1300, 1100), (150, 400), (20, 30)], ids=str)
def test_resizing_in_bands_has_pillows_own_pixels(mode, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 4), np.uint8)
    whole = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        whole = Image.fromarray(pixels[..., 0])
    elif mode == "P":
        image = whole.convert("RGB").quantize(50)
        whole = image.convert("RGB")
    else:
        image = whole.convert(mode)
        whole = image.convert({"1": "RGB", "LA": "RGBA"}.get(mode, mode))
    left, top = (size[0] - min(size)) // 2, (size[1] - min(size)) // 2
    box = (left, top, left + min(size), top + min(size))
    wanted = whole.resize((32, 32), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
    np.testing.assert_array_equal(np.asarray(resized(image, (32, 32), box)), np.asarray(wanted))


def test_the_largest_image_allowed_is_read():
    assert MAX_PIXELS == 6000 * 4000
    close(look(png_of(6000, 4000)), np.zeros((32, 32, 3)))


@pytest.mark.parametrize("fmt", IMAGE_TYPES.values())
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on damaged metadata
def test_damaged_bytes_end_in_an_image_or_a_problem(fmt, seed):
    rng, data = random.Random(seed), bytearray(picture_bytes(size=(48, 40), fmt=fmt))
    for _ in range(rng.randint(1, 20)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    try:
        assert np.isfinite(decode_image(bytes(data), BUNDLE)).all()
    except Problem as problem:
        assert 400 <= problem.status < 500


# Previews


def shown(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_small_file_is_its_own_preview():
    data = picture_bytes(fmt="GIF")
    assert preview_uri(data) == "data:image/gif;base64," + base64.b64encode(data).decode()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_large_one_is_shown_small_and_upright(mode):
    noise = np.random.default_rng(1).integers(0, 256, (900, 1500, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    uri = preview_uri(encode(Image.fromarray(noise).convert(mode), exif=exif, compress_level=1))
    assert uri.startswith("data:image/jpeg;base64,")
    assert shown(uri).size == (PREVIEW_PX * 900 // 1500, PREVIEW_PX)
