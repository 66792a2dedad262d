"""Files as cameras and editors write them: EXIF with thumbnail, maker note and GPS, and XMP."""

import struct
from collections.abc import Mapping
from io import BytesIO

from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from tests.service.image.samples import picture, save

GPS_WORDS = ("51,28.5N", "2026:11:22")
THUMBNAIL = b"\xff\xd8thumbnail\xff\xd9"
MAKER_NOTE = b"Maker\x00" + struct.pack("<II", 3000, 4000) * 20
ARTIST = "Änn Éxample 例"

_XMP = (
    """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<!-- a comment -->
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="a toolkit">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:own="urn:own"
    xmlns:dji="http://www.dji.com/drone-dji/1.0/"
    xmp:Rating="4" tiff:Orientation="6" tiff:Make="Maker &amp; Söhne" tiff:ImageWidth="64"
    exif:PixelXDimension="64" exif:PixelYDimension="48" exif:GPSLatitude="51,28.5N"
    dji:GpsLongtitude="51,28.5N" own:Note="kept &lt;as&gt; it &quot;is&quot;">
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Häuser &amp; Gärten</rdf:li></rdf:Alt></dc:title>
   <exif:GPSTimeStamp>2026:11:22</exif:GPSTimeStamp>
   <tiff:ImageLength>48</tiff:ImageLength>
   <xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType="Resource">
     <own:image>L3RodW1ibmFpbA</own:image></rdf:li></rdf:Alt></xmp:Thumbnails>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
    + " " * 2000
)


def xmp() -> bytes:
    return _XMP.encode()


def exif(orientation: int = 1, order: str = "<", gps: bool = True) -> bytes:
    """Make a block with all that a camera writes, values byte by byte in either order."""
    details = {
        0x829A: (5, 1, struct.pack(order + "II", 1, 250)),
        0x9003: (2, 20, b"2026:11:22 10:11:12\x00"),
        0x927C: (7, len(MAKER_NOTE), MAKER_NOTE),
        0x9286: (7, 14, b"ASCII\x00\x00\x00a note"),
        0x9214: (3, 4, struct.pack(order + "4H", 1, 2, 3, 4)),
        0xA001: (3, 1, struct.pack(order + "H", 0xFFFF)),
        0xA002: (4, 1, struct.pack(order + "I", 64)),
        0xA003: (3, 1, struct.pack(order + "H", 48)),
        0xA434: (2, 9, b"Lens 35mm"),
    }
    place = {
        1: (2, 2, b"N\x00"),
        2: (5, 3, struct.pack(order + "6I", 51, 1, 28, 1, 30, 1)),
        29: (2, 11, b"2026:11:22\x00"),
    }
    artist = ARTIST.encode() + b"\x00"
    first = {
        0x010F: (2, 6, b"Maker\x00"),
        0x0112: (3, 1, struct.pack(order + "H", orientation)),
        0x011A: (5, 1, struct.pack(order + "II", 72, 1)),
        0x011B: (5, 1, struct.pack(order + "II", 72, 1)),
        0x0128: (3, 1, struct.pack(order + "H", 2)),
        0x013B: (2, len(artist), artist),
        0x014A: (4, 1, struct.pack(order + "I", 8)),
        0x4746: (3, 1, struct.pack(order + "H", 4)),
        0x9C9B: (1, 6, "Äb\x00".encode("utf-16-le")),
        0xC4A5: (7, 8, b"PrintIM\x00"),
    }
    return block(order, first, details, place if gps else {})


Values = Mapping[int, tuple[int, int, bytes]]


def block(order: str, first: Values, details: Values, place: Values) -> bytes:
    """Write a block, with the thumbnail in a second directory as cameras have it."""
    values = dict(first)
    for tag, others in ((0x8769, details), (0x8825, place)):
        if others:
            values[tag] = (4, 1, bytes(4))
    start = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", 8)
    at = 8 + len(_directory(order, values, 8, 0))
    parts = []
    for tag, others in ((0x8769, details), (0x8825, place)):
        if others:
            values[tag] = (4, 1, struct.pack(order + "I", at))
            parts.append(_directory(order, others, at, 0))
            at += len(parts[-1])
    small = {
        0x0201: (4, 1, struct.pack(order + "I", at + 30)),
        0x0202: (4, 1, struct.pack(order + "I", len(THUMBNAIL))),
    }
    parts.append(_directory(order, small, at, 0) + THUMBNAIL)
    return b"".join((start, _directory(order, values, 8, at), *parts))


def _directory(order: str, values: Values, at: int, following: int) -> bytes:
    entries, behind = b"", b""
    data_at = at + 2 + 12 * len(values) + 4
    for tag, (kind, count, data) in sorted(values.items()):
        entries += struct.pack(order + "HHI", tag, kind, count)
        if len(data) > 4:
            entries += struct.pack(order + "I", data_at + len(behind))
            behind += data
        else:
            entries += data.ljust(4, b"\x00")
    head = struct.pack(order + "H", len(values))
    return head + entries + struct.pack(order + "I", following) + behind


def camera_file(kind: str, orientation: int = 1, order: str = "<", channels: int = 3) -> bytes:
    """Make a file of 64 x 48 stored pixels in a format of Pillow's, or BigTIFF (HEIF for HEIC)."""
    pixels = picture(48, 64, channels)
    own = exif(orientation, order)
    if kind == "PNG":
        texts = PngInfo()
        texts.add_itxt("Comment", "another")
        texts.add_itxt("XML:com.adobe.xmp", xmp().decode())
        return save(pixels, kind, exif=own, pnginfo=texts)
    if kind in ("TIFF", "BigTIFF"):
        shown = PillowImage.fromarray(pixels)
        return _camera_tiff(shown, orientation=orientation, is_big=kind == "BigTIFF")
    options: dict[str, object] = {"exif": b"Exif\x00\x00" + own, "xmp": xmp()}
    return save(pixels, kind, **options)


def _camera_tiff(shown: PillowImage.Image, *, orientation: int, is_big: bool) -> bytes:
    tags = ImageFileDirectory_v2()
    tags[0x010F], tags[0x0112], tags[700] = "Maker", orientation, xmp()
    tags.tagtype[700] = 1
    tags[0x8769] = {0xA434: "Lens 35mm", 0xA002: 64, 0x927C: MAKER_NOTE}
    tags[0x8825] = {1: "N", 2: (51.0, 28.0, 30.0), 29: GPS_WORDS[1]}
    file = BytesIO()
    shown.save(file, "TIFF", tiffinfo=tags, big_tiff=is_big)
    return file.getvalue()
