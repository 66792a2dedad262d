"""Rewrite the XMP packet of a source for its result, where the request keeps metadata.

The packet is filtered while it is parsed, by the names of its properties: elements and attributes
stay as they are, with their own prefixes, or are left out. So whatever a program added is kept,
except what describes the source's file: its pixels, its thumbnail, the pictures and films appended
to it. A packet with a document type, the only place of entities, is dropped, as is one that is no
XML, nested too deep or too large.

XMP is specified in ISO 16684-1.
"""

import re
from contextlib import suppress
from typing import Final
from xml.parsers import expat

from upscaled.image.types import MetadataPlan

MAX_XMP_BYTES: Final = 65_502
"""Limits a packet, before and after: one JPEG segment holds so much (XMP, part 3, 1.1.3)."""

_MAX_DEPTH: Final = 64
# Not `xml.sax.saxutils`: it imports an HTTP client, a tenth of the start of a decoder process.
_IN_TEXT: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_IN_ATTRIBUTES: Final = _IN_TEXT | str.maketrans(
    {'"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)
_SEPARATOR: Final = " "
_HEAD: Final = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
_TAIL: Final = '<?xpacket end="w"?>'

_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_META: Final = "adobe:ns:meta/"
_XMP: Final = "http://ns.adobe.com/xap/1.0/"
_TIFF: Final = "http://ns.adobe.com/tiff/1.0/"
_EXIF: Final = "http://ns.adobe.com/exif/1.0/"
_GOOGLE: Final = "http://ns.google.com/photos/"
_PANORAMA: Final = f"{_GOOGLE}1.0/panorama/"
_WGS84: Final = "http://www.w3.org/2003/01/geo/wgs84_pos#"
_REGIONS: Final = "http://www.metadataworkinggroup.com/schemas/regions/"
_MICROSOFT_PHOTO: Final = "http://ns.microsoft.com/photo/1.2/"

# Coordinates, of whatever program: GPSLatitude, but also Latitude and LRFTargetLat of drones.
_COORDINATE: Final = re.compile(r"(?i:^gps|latitude|longt?itude|^(lat|lon|lng)$)|[a-z](Lat|Lon)$")

_ROOTS: Final = frozenset({(_META, "xmpmeta"), (_META, "xapmeta"), (_RDF, "RDF")})
# What else is in the file: gain maps, and packets behind this one.
_OF_THE_FILE: Final = frozenset(
    {
        "http://ns.adobe.com/hdr-gain-map/1.0/",
        "http://ns.apple.com/HDRGainMap/1.0/",
        "http://ns.adobe.com/xmp/note/",
    }
)
_KEPT_OF_TIFF: Final = frozenset(
    {
        *("ImageDescription", "Make", "Model", "Software", "Artist", "Copyright", "DateTime"),
        *("ImageWidth", "ImageLength"),
    }
)
_LEFT_OUT: Final = frozenset(
    {
        (_XMP, "Thumbnails"),
        (_REGIONS, "Regions"),
        (_MICROSOFT_PHOTO, "RegionInfo"),
        *((_EXIF, name) for name in ("MakerNote", "NativeDigest", "ColorSpace")),
        *((_EXIF, name) for name in ("ComponentsConfiguration", "CompressedBitsPerPixel")),
        *((_EXIF, name) for name in ("SubjectArea", "SubjectLocation")),
        *((_EXIF, f"FocalPlane{name}") for name in ("XResolution", "YResolution")),
        (_EXIF, "FocalPlaneResolutionUnit"),
    }
)

Name = tuple[str, str]
"""(namespace, local name) of an element or an attribute."""


def keep_xmp(packet: bytes, plan: MetadataPlan, gain: float) -> bytes:
    """Return the packet for a result `gain` times as wide, in UTF-8; b"" where none is kept."""
    if not packet or len(packet) > MAX_XMP_BYTES:
        return b""
    # A packet that is malformed, or in an encoding that Python does not have, is no packet.
    with suppress(expat.ExpatError, ValueError, LookupError):
        kept = _Filter(plan, gain).rewrite(packet.rstrip(b"\x00"))
        return kept if len(kept) <= MAX_XMP_BYTES else b""
    return b""


class _Filter:
    """Writes what is kept of one packet as it is parsed."""

    def __init__(self, plan: MetadataPlan, gain: float) -> None:
        self._plan = plan
        self._gain = gain
        self._written: list[str] = []
        self._names: list[Name] = []  # of the open elements
        self._declared: dict[str, str] = {}  # by the element that comes next
        self._left_out = 0  # how many open elements are, with those around them

    def rewrite(self, packet: bytes) -> bytes:
        """Return the packet in its wrapper; raises ExpatError or ValueError over a broken one."""
        parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
        parser.namespace_prefixes = True
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse_document_type
        parser.StartNamespaceDeclHandler = self._declare
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._add_text
        parser.Parse(packet, True)
        return "".join((_HEAD, *self._written, _TAIL)).encode()

    def _refuse_document_type(self, *_: object) -> None:
        raise ValueError("a document type")

    def _declare(self, prefix: str | None, uri: str | None) -> None:
        self._declared[f"xmlns:{prefix}" if prefix else "xmlns"] = uri or ""

    def _begin(self, expanded: str, attributes: dict[str, str]) -> None:
        declared, self._declared = self._declared, {}
        name, tag = _split(expanded)
        if not self._names and name not in _ROOTS:
            raise ValueError(f"a packet of {name}")
        self._names.append(name)
        if len(self._names) > _MAX_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DEPTH}")
        if self._left_out or self._is_left_out(name):
            self._left_out += 1
            return
        kept = {}
        for expanded_key, value in attributes.items():
            attribute, key = _split(expanded_key)
            if not self._is_left_out(attribute):
                kept[key] = self._correct(attribute, value)
        pairs = [
            f' {key}="{value.translate(_IN_ATTRIBUTES)}"'
            for key, value in (declared | kept).items()
        ]
        self._written.append(f"<{tag}{''.join(pairs)}>")

    def _end(self, expanded: str) -> None:
        self._names.pop()
        if self._left_out:
            self._left_out -= 1
        else:
            self._written.append(f"</{_split(expanded)[1]}>")

    def _add_text(self, text: str) -> None:
        if not self._left_out:
            text = self._correct(self._names[-1], text)
            self._written.append(text.translate(_IN_TEXT))

    def _is_left_out(self, name: Name) -> bool:
        namespace, local = name
        if _COORDINATE.search(local) or namespace == _WGS84:
            return not self._plan.has_gps
        if namespace == _TIFF:
            return local not in _KEPT_OF_TIFF
        if namespace.startswith(_GOOGLE):  # depth maps, films, how the file is put together
            return namespace != _PANORAMA
        return namespace in _OF_THE_FILE or name in _LEFT_OUT

    def _correct(self, name: Name, text: str) -> str:
        """Return the value of a property, where it counts pixels that of the result."""
        if not text.isdecimal():
            return text
        if name in ((_TIFF, "ImageWidth"), (_EXIF, "PixelXDimension")):
            return str(self._plan.width_px)
        if name in ((_TIFF, "ImageLength"), (_EXIF, "PixelYDimension")):
            return str(self._plan.height_px)
        if name[0] == _PANORAMA and name[1].endswith("Pixels"):
            return str(round(int(text[:9]) * self._gain))
        return text


def _split(expanded: str) -> tuple[Name, str]:
    """Split what the parser calls a name: its namespace, and the tag with the packet's prefix."""
    match expanded.split(_SEPARATOR):
        case [namespace, local, prefix]:
            return (namespace, local), f"{prefix}:{local}"
        case [namespace, local]:
            return (namespace, local), local
        case _:
            return ("", expanded), expanded
