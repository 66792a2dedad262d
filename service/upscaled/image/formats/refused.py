"""Recognise formats that are not decoded, so that a refusal can name them."""

from collections.abc import Mapping
from typing import Final

# First bytes of what is recognised and not decoded, from the formats' own specifications and the
# `file` magic database.
_SIGNATURES: Final[Mapping[str, tuple[bytes, ...]]] = {
    "GIF": (b"GIF87a", b"GIF89a"),
    # Panasonic RW2, Olympus ORF (three), Fujifilm RAF, Sigma X3F.
    "RAW": (b"IIU\x00", b"IIRO", b"IIRS", b"MMOR", b"FUJIFILMCCD-RAW", b"FOVb"),
    "PDF": (b"%PDF-",),
    "PSD": (b"8BPS",),
    "JPEG2000": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    "JXL": (b"\x00\x00\x00\x0cJXL \r\n\x87\n", b"\xff\x0a"),
    "ICO": (b"\x00\x00\x01\x00", b"\x00\x00\x02\x00"),
    "ICNS": (b"icns",),
    "QOI": (b"qoif",),
    "DDS": (b"DDS ",),
    "EPS": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "XCF": (b"gimp xcf",),
    "DJVU": (b"AT&TFORM",),
    "MNG": (b"\x8aMNG\r\n\x1a\n",),
    "JNG": (b"\x8bJNG\r\n\x1a\n",),
    "EXR": (b"v/1\x01",),
    "HDR": (b"#?RADIANCE", b"#?RGBE"),
    "FITS": (b"SIMPLE  =",),
    "FLIF": (b"FLIF",),
    "BPG": (b"BPG\xfb",),
    "JPEGXR": (b"II\xbc",),
    "WMF": (b"\xd7\xcd\xc6\x9a",),
    "SGI": (b"\x01\xda\x00\x01", b"\x01\xda\x01\x01"),
    "PCX": (b"\x0a\x05\x01\x08",),
    "SUN": (b"\x59\xa6\x6a\x95",),
    "FARBFELD": (b"farbfeld",),
    "XPM": (b"/* XPM */",),
}

_SVG_SEARCH_BYTES: Final = 4096


def sniff_refused(source: bytes) -> str | None:
    """Recognise a format that is not in the table ("GIF", "PDF" ...); None where none is known."""
    for name, signatures in _SIGNATURES.items():
        if source.startswith(signatures):
            return name
    return (
        _sniff_netpbm(source)
        or _sniff_svg(source)
        or ("TGA" if source.endswith(b"TRUEVISION-XFILE.\x00") else None)
        or ("EMF" if source[:4] == b"\x01\x00\x00\x00" and source[40:44] == b" EMF" else None)
    )


def _sniff_netpbm(source: bytes) -> str | None:
    is_netpbm = source[:1] == b"P" and source[1:2] in b"1234567fF" and source[2:3] in b" \t\r\n"
    return "PPM" if is_netpbm and len(source) >= 3 else None


def _sniff_svg(source: bytes) -> str | None:
    head = source[:_SVG_SEARCH_BYTES].removeprefix(b"\xef\xbb\xbf")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        head = head.replace(b"\x00", b"")[2:]
    return "SVG" if head.lstrip()[:1] == b"<" and b"<svg" in head.lower() else None
