"""Files that cost far more than their bytes: what a hostile client sends. Small here; each grows with its argument."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image


def encoded(image: Image.Image, fmt: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def many_scans(scans: int, side: int = 1400) -> bytes:
    """A progressive JPEG whose last scan is appended again and again."""
    data = encoded(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]


def hidden_scans(scans: int) -> bytes:
    """The same; a comment between the scans pretends that the file has ended."""
    data = many_scans(scans)
    at = data.rindex(b"\xff\xda")
    return data[:at] + b"\xff\xfe\x00\x04\xff\xd9" + data[at:]


def jpeg_segments(segment: bytes, count: int) -> bytes:
    """A JPEG with this after its start, again and again."""
    data = encoded(Image.new("RGB", (32, 32)), "JPEG")
    return data[:2] + segment * count + data[2:]


def jpeg_padding(count: int) -> bytes:
    """Pillow reads the fill bytes before a marker one by one."""
    return jpeg_segments(b"\xff", count)


def broken_off_and_filled(count: int) -> bytes:
    """The start of a photo, and 0xFF to its end: as memory cards are where nothing is written."""
    return encoded(Image.effect_noise((640, 480), 100), "JPEG")[:-20_000] + b"\xff" * count + b"\0"


def png_profiles(count: int) -> bytes:
    """A PNG with so many colour profiles of a mebibyte of zeros."""
    return png_with(*[png_chunk(b"iCCP", b"zeros\0\0" + zlib.compress(bytes(2**20), 9))] * count)


def png_with(*chunks: bytes) -> bytes:
    """A PNG with these after its header."""
    data = encoded(Image.new("RGB", (32, 32)), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def overlapping_exif(tags: int, size: int) -> bytes:
    """A TIFF directory whose every tag points to nearly the whole of it."""
    length = 8 + 2 + 12 * tags + 4 + size
    entries = b"".join(struct.pack("<HHII", 1000 + tag, 7, length - 8, 8) for tag in range(tags))
    return b"II*\0" + struct.pack("<IH", 8, tags) + entries + bytes(4 + size)


def jpeg_with_exif(tiff: bytes) -> bytes:
    """EXIF in as many segments as it needs, which Pillow joins."""
    segments = b""
    for start in range(0, len(tiff), 65_000):
        segment = b"Exif\0\0" + tiff[start : start + 65_000]
        segments += b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    return jpeg_segments(segments, 1)


def png_16_bit(width: int, height: int) -> bytes:
    """Black, 16 bits in each of four channels."""
    squeeze, row = zlib.compressobj(9), bytes(1 + 8 * width)
    rows = b"".join([*(squeeze.compress(row) for _ in range(height)), squeeze.flush()])
    header = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def bmp_run_length_encoded(width: int, height: int, body: bytes) -> bytes:
    palette = bytes(1024)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + palette + body
