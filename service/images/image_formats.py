"""Which image format a body's first bytes are, or why they are none that is read, and what to send instead."""

from __future__ import annotations

from service.errors import BadRequest, Unsupported, quoted_start

READ = "PNG, JPEG, WebP, GIF or BMP"
_SAVE = "save it as PNG or JPEG"
_UNPACK = "send the image that is in it"
_FRAME = "send one frame of it as PNG or JPEG"
_PAGE = "export the page as PNG or JPEG"
_AS_BYTES = "read the file as bytes and send those unchanged"
_AS_JSON = 'send it with Content-Type: application/json, as {"image": "<base64>"}'

_PNG = b"\x89PNG\r\n\x1a\n"
_IMAGES = {_PNG: "PNG", b"\xff\xd8\xff": "JPEG", b"GIF87a": "GIF", b"GIF89a": "GIF"}

# Offset, bytes there -> what that is, and the cure. Where several match, the first counts.
_FOREIGN = (
    (0, b"\x89PNG", "a PNG whose line ends were changed, as `curl -d` does", "send it with `curl --data-binary @FILE`"),
    *(
        (n, b"WEBP", "a WebP that lost its bytes 0, as with `curl -d`", "send it with `curl --data-binary @FILE`")
        for n in range(4, 8)
    ),
    (0, b"\xef\xbf\xbd", "a file that was read as text, which destroys it", _AS_BYTES),
    (0, b"\xc2\x89PNG", "a PNG that was read as text and encoded as UTF-8", _AS_BYTES),
    (0, b"\xc3\xbf\xc3\x98", "a JPEG that was read as text and encoded as UTF-8", _AS_BYTES),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image", _SAVE),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", _SAVE),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image", _SAVE),
    (0, b"\xff\x0a", "a JPEG XL image", _SAVE),
    (0, b"II\xbc", "a JPEG XR image", _SAVE),
    (8, b"CR\x02", "a Canon raw image", _SAVE),
    (0, b"II*\0", "a TIFF image, or a camera's raw image", _SAVE),
    (0, b"MM\0*", "a TIFF image, or a camera's raw image", _SAVE),
    (0, b"II+\0", "a BigTIFF image", _SAVE),
    (0, b"MM\0+", "a BigTIFF image", _SAVE),
    (0, b"IIRO", "an Olympus raw image", _SAVE),
    (0, b"IIU\0", "a Panasonic raw image", _SAVE),
    (0, b"FUJIFILM", "a Fujifilm raw image", _SAVE),
    (0, b"8BPS", "a Photoshop document", _SAVE),
    (0, b"gimp xcf", "a GIMP document", _SAVE),
    (0, b"\0\0\x01\0", "an ICO icon", _SAVE),
    (0, b"\0\0\x02\0", "a CUR cursor", _SAVE),
    (0, b"icns", "an ICNS icon", _SAVE),
    (0, b"qoif", "a QOI image", _SAVE),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image", _SAVE),
    (0, b"#?RADIANCE", "a Radiance HDR image", _SAVE),
    (0, b"DDS ", "a DDS texture", _SAVE),
    (0, b"SIMPLE  =", "a FITS image", _SAVE),
    (0, b"\x01\xda", "an SGI image", _SAVE),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster image", _SAVE),
    (0, b"BPG\xfb", "a BPG image", _SAVE),
    (0, b"FLIF", "a FLIF image", _SAVE),
    (0, b"\x8bJNG", "a JNG image", _SAVE),
    (0, b"\x8aMNG", "an MNG animation", _FRAME),
    (0, b"AT&TFORM", "a DjVu document", _PAGE),
    (128, b"DICM", "a DICOM image", _SAVE),
    (0, b"%PDF", "a PDF document", _PAGE),
    (0, b"%!PS", "a PostScript document", _PAGE),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS document", _PAGE),
    (0, b"\xd0\xcf\x11\xe0", "an Office document", _PAGE),
    (0, b"\xd7\xcd\xc6\x9a", "a WMF drawing", _SAVE),
    (40, b" EMF", "an EMF drawing", _SAVE),
    (0, b"\x1f\x8b", "gzip data", "send the image itself, without Content-Encoding"),
    (0, b"PK\x03\x04", "a ZIP archive or a document that is one", _UNPACK),
    (0, b"BZh", "bzip2 data", _UNPACK),
    (0, b"\xfd7zXZ", "xz data", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard data", "send the image itself, without Content-Encoding"),
    (0, b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x1a\x45\xdf\xa3", "a WebM or Matroska video", _FRAME),
    (0, b"OggS", "an Ogg video or sound", _FRAME),
    *((4, atom, "a QuickTime video", _FRAME) for atom in (b"moov", b"mdat", b"wide")),
    (0, b"\x30\x26\xb2\x75", "a WMV video", _FRAME),
    (0, b"FLV", "an FLV video", _FRAME),
    (0, b"\0\0\x01\xba", "an MPEG video", _FRAME),
    (8, b"AVI ", "an AVI video", _FRAME),
    (8, b"WAVE", "a WAV sound", "send an image"),
    (0, b"ID3", "an MP3 sound", "send an image"),
    (0, b"\x93NUMPY", "a NumPy array", "save it as PNG, or send its lists as JSON in 'img'"),
    (0, b"\x89HDF", "an HDF5 file", _UNPACK),
    *((0, b"P%d%c" % (n, end), f"a Netpbm image (P{n})", _SAVE) for n in range(1, 8) for end in b" \t\r\n"),
    (0, b"SQLite format 3", "an SQLite database", _UNPACK),
)
# The brands of ISO media files; any other is a video
_BRANDS = {
    "an AVIF image": (b"avif", b"avis"),
    "a HEIC image, as iPhones take": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
    "a Canon raw image": (b"crx ",),
}
# Beginnings of text -> the same
_TEXTS = (
    ((b"data:",), "a data: URI", _AS_JSON),
    ((b"ivborw0kggo", b"/9j/", b"r0lgod", b"uklgr"), "an image in base64", _AS_JSON),
    ((b"{\\rtf",), "an RTF document", _PAGE),
    ((b"[object ",), "the text that JavaScript makes of an object", "send the File or Blob itself"),
    ((b"b'", b'b"'), "the text that Python makes of bytes", _AS_BYTES),
    ((b"89504e47", b"ffd8ff", b"47494638", b"52494646"), "an image in hexadecimal", _AS_BYTES),
    ((b"{", b"["), "JSON", "send it with Content-Type: application/json"),
    ((b"http://", b"https://"), "an address, and none is fetched", "send the bytes of the image"),
    ((b"<?xml",), "an XML document", _UNPACK),
    ((b"<!doctype html", b"<html"), "a web page", "check the address that the file came from"),
)
_HEAD_BYTES = 1024  # that are looked through


def sniff(data: bytes) -> str:
    """Pillow's name of the format, by the first bytes. Raises Unsupported with what they are instead."""
    if not data:
        raise BadRequest(f"the image has 0 bytes; send a {READ} file")
    if name := image_format(data):
        if data[12:16] == b"CgBI":
            raise Unsupported(
                "this is a PNG in Apple's own form, as in iPhone apps, which is not read; save it as an ordinary PNG"
            )
        return name
    found, cure = _foreign(data) or _text(data) or _shifted(data) or (None, None)
    if found:
        raise Unsupported(f"this is {found}, which is not read; {cure}")
    start = f"they begin with {text}, so " if (text := quoted_start(data)) else ""
    raise Unsupported(f"the {len(data)} bytes are no {READ} image; {start}check what is sent")


def image_format(data: bytes) -> str | None:
    """The same, or None for what is not read."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM"):
        return "BMP"
    return next((name for magic, name in _IMAGES.items() if data.startswith(magic)), None)


def looks_like_json(data: bytes) -> bool:
    return data[:_HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def _foreign(data: bytes) -> tuple[str, str] | None:
    """What another format's file is, and the cure."""
    if data[4:8] == b"ftyp":
        for name, brands in _BRANDS.items():
            if any(data.find(brand, 8, 64) > 0 for brand in brands):
                return name, _SAVE
        return "an MP4 or QuickTime video", _FRAME
    for offset, magic, name, cure in _FOREIGN:
        if data.startswith(magic, offset):
            return name, cure
    return None


def _text(data: bytes) -> tuple[str, str] | None:
    """The same of text."""
    head = data[:_HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if head.startswith(b"--") and b"content-disposition:" in head:
        return "a form without its Content-Type", "let the HTTP client set that, with the boundary"
    if head.startswith(b"<") and b"<svg" in head:
        return "an SVG drawing", "render it as PNG"
    return next(((name, cure) for starts, name, cure in _TEXTS if head.startswith(starts)), None)


def _shifted(data: bytes) -> tuple[str, str] | None:
    """The same of an image behind other bytes."""
    places = ((data.find(magic, 0, _HEAD_BYTES), name) for magic, name in _IMAGES.items())
    place, name = min(((place, name) for place, name in places if place > 0), default=(0, ""))
    return (f"a {name} behind {place} other bytes", "leave those out") if place else None
