"""What a JPEG's segments say, read without decoding: its scans, its orientation, and whether it is complete."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from service.errors import UnprocessableImage
from service.schema import MAX_SCANS

MAX_SEGMENTS = 4096  # 16 MiB of colour profile are 260

# Markers: 0xFF, then the code; 0xFF00 and restart markers are part of a scan's data. Fill bytes, any number of 0xFF
# before it, are not of the pattern: it would go through those of a padded file again from each of them.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_START, _END, _SCAN, _COMMENT, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0xFE, 0x01
_RESTARTS = range(0xD0, 0xD8)
_FRAMES = {0xC0, 0xC1, 0xC2}
_UNREAD = {
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "arithmetic-coded"),
    **{0xC3: "lossless", 0xF7: "a JPEG-LS image"},
    **dict.fromkeys((0xC5, 0xC6, 0xC7), "hierarchical"),
}
_METADATA = {*range(0xE1, 0xF0), _COMMENT} - {0xEE}  # all but JFIF's and Adobe's, which say how colours are coded
_END_MARKER = b"\xff\xd9"
# What a file that is cut short might have gone on with. libjpeg takes missing data for bits of 0: this begins with 1.
_MORE_DATA = bytes(range(0xFE, 4, -7))


@dataclass
class JpegFile:
    """A JPEG up to its end marker, without its metadata."""

    data: bytes = b""  # with an end marker, also where the file had none
    metadata: dict[str, bytes] = field(default_factory=dict)  # what may hold the orientation, by Pillow's names
    scans: list[bytes] = field(default_factory=list)  # their headers
    frame: bytes = b""  # the header that lists the components
    # For a file without an end marker: the same with more data. Where pixels are missing, it has other pixels.
    longer: bytes = b""


def read_jpeg(data: bytes) -> JpegFile:
    """Raises UnprocessableImage over the limits, or where scans are missing.

    Follows segments by their lengths, as libjpeg does, so that no marker can be hidden from it.
    """
    jpeg, kept, kept_until, position, segments, scan_start = JpegFile(), [], 0, 2, 0, 0
    end = None
    while marker := _MARKER.search(data, position):
        before, position, code = position, marker.end(), marker[1][0]
        if code == _END:
            end = position
            break
        if code in (_START, _TEMPORARY):  # without a length
            continue
        segments += 1
        if segments > MAX_SEGMENTS:
            raise UnprocessableImage(f"the JPEG has over {MAX_SEGMENTS} segments; save it again without its metadata")
        if code in _UNREAD:
            raise UnprocessableImage(f"the JPEG is {_UNREAD[code]}, which is not read; save it as a baseline JPEG")
        start, position = position + 2, position + int.from_bytes(data[position : position + 2])
        if code == _SCAN:
            jpeg.scans.append(data[start:position])
            scan_start = position
        elif code in _FRAMES:
            jpeg.frame = data[start:position]
            if jpeg.frame[:1] not in (b"", b"\x08"):
                found = f"the JPEG has {jpeg.frame[0]} bits a channel, which is not read"
                raise UnprocessableImage(f"{found}; save it with 8, or as a 16-bit PNG")
        elif code in _METADATA and not jpeg.scans:
            _keep_orientation(jpeg.metadata, data[start:position])
            fill_start = before + len(data[before : marker.start()].rstrip(b"\xff"))
            kept.append(data[kept_until:fill_start])
            kept_until = position
    scans = len(jpeg.scans)
    if scans > MAX_SCANS:
        raise UnprocessableImage(f"the JPEG has {scans} scans; at most {MAX_SCANS} are read, so save it again")
    jpeg.data = b"".join([*kept, data[kept_until:end]]) if kept or end != len(data) else data
    if end is None:
        _add_end(jpeg, max(data.rfind(bytes((0xFF, code)), scan_start) for code in _RESTARTS), data)
    return jpeg


def _add_end(jpeg: JpegFile, last_restart: int, data: bytes) -> None:
    """Complete a file without an end marker. last_restart: where the last scan has its last restart marker, or -1."""
    if not _start_every_coefficient(jpeg):
        found = f"breaks off after {len(jpeg.scans)} scans" if jpeg.scans else "breaks off before its pixels"
        raise UnprocessableImage(f"the JPEG image of {len(data)} bytes is cut short: it {found}; send the whole file")
    restart = _RESTARTS[(data[last_restart + 1] + 1) % 8 if last_restart >= 0 else 0]
    content = jpeg.data.rstrip(b"\0")  # as of a download whose file got its size at once
    content += b"\0" * content.endswith(b"\xff")  # half a marker, or an escaped byte
    jpeg.data = content + _END_MARKER
    jpeg.longer = content + _MORE_DATA + bytes((0xFF, restart)) + _MORE_DATA + _END_MARKER


def _start_every_coefficient(jpeg: JpegFile) -> bool:
    """Whether the scans that have started hold all coefficients of all components, down to the last bit."""
    missing = {component: set(range(64)) for component in jpeg.frame[6::3]}
    for scan in jpeg.scans:
        if len(scan) >= 6 and scan[-1] & 15 == 0:
            for component in scan[1 : 1 + 2 * scan[0] : 2]:
                missing.get(component, set()).difference_update(range(scan[-3], scan[-2] + 1))
    return bool(missing) and not any(missing.values())


def _keep_orientation(metadata: dict[str, bytes], segment: bytes) -> None:
    """Keep the first EXIF and the first XMP segment."""
    for name, prefix in (("exif", b"Exif\0\0"), ("xmp", b"http://ns.adobe.com/xap/1.0/\0")):
        if segment.startswith(prefix):
            metadata.setdefault(name, segment.removeprefix(prefix))
