"""The pictures that the kit sends, drawn when first needed: small, and each of one kind.

A picture knows what a right answer looks like: its upright size, and whether it has alpha.
"""

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.conformance.drawing import (
    animated,
    as_shown,
    avif,
    drawing,
    encoded,
    exif,
    ftyp_header,
    lying,
    padded_jpeg,
    padded_png,
    png_header_only,
    with_alpha,
)

MEGABYTE = 1024 * 1024
MAX_FILE_BYTES = 25 * MEGABYTE

# How far an answer may lie from what was sent, in levels of 255 on average. Networks smooth and
# shift colours by up to 9; a picture that is mirrored, turned or another one is off by 30 and more.
TOLERANCE = 12.0


@dataclass(frozen=True)
class Picture:
    """One file to send.

    `width_px` and `height_px` are upright. `tolerance` is how far, in levels of 255, the answer
    shrunk back to this size may lie from `looks_like()` on average; None where the file cannot be
    shown.
    """

    name: str
    file_name: str
    media_type: str
    width_px: int
    height_px: int
    has_alpha: bool
    tolerance: float | None
    build: Callable[[], bytes]
    looks_like: Callable[[], Image.Image]

    @property
    def data(self) -> bytes:
        return _built(self.name)


PICTURES: dict[str, Picture] = {}


@functools.lru_cache(maxsize=8)
def _built(name: str) -> bytes:
    return PICTURES[name].build()


def doubled(picture: Picture) -> Picture:
    """Return the result at 2x of `picture`, as a picture."""
    width_px, height_px = picture.width_px * 2, picture.height_px * 2
    return Picture(
        f"{picture.name} at 2x",
        picture.file_name,
        picture.media_type,
        width_px,
        height_px,
        picture.has_alpha,
        picture.tolerance,
        picture.build,
        lambda: picture.looks_like().resize((width_px, height_px)),
    )


def _add(
    name: str,
    build: Callable[[], bytes],
    size: tuple[int, int] = (0, 0),
    *,
    file_name: str = "photo.jpg",
    media_type: str = "image/jpeg",
    has_alpha: bool = False,
    tolerance: float | None = TOLERANCE,
    looks_like: Callable[[], Image.Image] | None = None,
) -> None:
    shown = looks_like or (lambda: (with_alpha if has_alpha else drawing)(*size))
    shown_tolerance = tolerance if size != (0, 0) else None
    PICTURES[name] = Picture(
        name, file_name, media_type, *size, has_alpha, shown_tolerance, build, shown
    )


def _add_png(name: str, image: Callable[[], Image.Image], **about: Any) -> None:
    options = about.pop("options", {})
    size = about.pop("size", (80, 64))
    about.setdefault("file_name", "photo.png")
    about.setdefault("media_type", "image/png")
    _add(name, lambda: encoded(image(), "PNG", **options), size, **about)


def _add_kinds() -> None:
    """Each kind of file that the contract takes."""
    _add("photo", lambda: encoded(drawing(80, 64), "JPEG", quality=95), (80, 64))
    _add("odd_sides", lambda: encoded(drawing(65, 97), "JPEG", quality=95), (65, 97))
    grey = functools.partial(lambda: drawing(80, 64).convert("L"))
    _add(
        "grey_jpeg", lambda: encoded(grey(), "JPEG"), (80, 64),
        looks_like=lambda: grey().convert("RGB"),
    )  # fmt: skip
    _add(
        "progressive_jpeg",
        lambda: encoded(drawing(80, 64), "JPEG", progressive=True, quality=95),
        (80, 64),
    )
    # Ink to light has no one formula without a profile: only a wrong picture is refused.
    _add(
        "cmyk_jpeg",
        lambda: encoded(drawing(80, 64).convert("CMYK"), "JPEG", quality=95),
        (80, 64),
        tolerance=40,
    )
    webp = {"file_name": "photo.webp", "media_type": "image/webp"}
    _add("webp", lambda: encoded(drawing(80, 64), "WEBP", quality=95), (80, 64), **webp)  # type: ignore[arg-type]
    _add(
        "webp_alpha",
        lambda: encoded(with_alpha(80, 64), "WEBP", lossless=True),
        (80, 64),
        has_alpha=True,
        **webp,  # type: ignore[arg-type]
    )
    _add("webp_named_jpg", lambda: encoded(drawing(80, 64), "WEBP", quality=95), (80, 64))
    _add("animated_webp", lambda: animated("WEBP"), (80, 72), has_alpha=True, **webp)  # type: ignore[arg-type]


def _add_png_kinds() -> None:
    _add_png("png", lambda: drawing(80, 64))
    _add_png("rgba_png", lambda: with_alpha(80, 64), has_alpha=True)
    _add_png(
        "opaque_rgba_png", lambda: with_alpha(80, 64, opaque=True), has_alpha=True,
        looks_like=lambda: with_alpha(80, 64, opaque=True),
    )  # fmt: skip
    _add_png(
        "la_png", lambda: with_alpha(80, 64).convert("LA"), has_alpha=True,
        looks_like=lambda: with_alpha(80, 64).convert("LA").convert("RGBA"),
    )  # fmt: skip
    palette = functools.partial(lambda: drawing(80, 64).quantize(64))
    _add_png("palette_png", palette, looks_like=lambda: palette().convert("RGB"))
    _add_png(
        "palette_trns_png", palette, has_alpha=True, options={"transparency": 0},
        looks_like=lambda: as_shown(encoded(palette(), "PNG", transparency=0)),
    )  # fmt: skip
    _add_png(
        "rgb_trns_png", lambda: drawing(80, 64), has_alpha=True,
        options={"transparency": (230, 40, 40)},
        looks_like=lambda: as_shown(encoded(drawing(80, 64), "PNG", transparency=(230, 40, 40))),
    )  # fmt: skip
    _add_png(
        "grey_trns_png", lambda: drawing(80, 64).convert("L"), has_alpha=True,
        options={"transparency": 128},
        looks_like=lambda: as_shown(
            encoded(drawing(80, 64).convert("L"), "PNG", transparency=128)
        ),
    )  # fmt: skip
    bits = functools.partial(lambda: drawing(80, 64).convert("1", dither=Image.Dither.NONE))
    _add_png("one_bit_png", bits, looks_like=lambda: bits().convert("RGB"), tolerance=12)
    _add_png(
        "sixteen_bit_png",
        lambda: (
            Image.linear_gradient("L").resize((80, 64)).convert("I;16").point(lambda v: v * 257)
        ),
        looks_like=lambda: Image.linear_gradient("L").resize((80, 64)).convert("RGB"),
    )
    _add("apng", lambda: animated("PNG"), (80, 72), has_alpha=True, file_name="photo.png")


def _add_orientations() -> None:
    for value in range(1, 9):
        _add(
            f"orientation_{value}",
            lambda value=value: encoded(  # type: ignore[misc]
                lying(drawing(96, 64), value), "JPEG", quality=95, exif=exif(value)
            ),
            (96, 64),
        )
    _add_png(
        "orientation_6_png", lambda: lying(drawing(96, 64), 6), options={"exif": exif(6)},
        size=(96, 64),
    )  # fmt: skip
    _add(
        "orientation_6_webp",
        lambda: encoded(lying(drawing(96, 64), 6), "WEBP", quality=95, exif=exif(6)),
        (96, 64),
        file_name="photo.webp",
        media_type="image/webp",
    )


PRIVATE_WORDS = (b"KITCAMERA", b"1999:12:31", b"KITXMP", b"KITCOMMENT", b"Exif\0\0", b"eXIf")


def _private_png() -> Image.Image:
    return with_alpha(80, 64)


def _add_private() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">KITXMP</x:xmpmeta>'
    _add(
        "private_jpeg",
        lambda: encoded(
            drawing(80, 64), "JPEG", quality=95, comment=b"KITCOMMENT", xmp=xmp,
            exif=exif(1, private=True),
        ),
        (80, 64),
    )  # fmt: skip
    words = PngInfo()
    words.add_text("Comment", "KITCOMMENT")
    words.add_itxt("XML:com.adobe.xmp", xmp.decode())
    _add_png(
        "private_png", _private_png, has_alpha=True,
        options={"pnginfo": words, "exif": exif(1, private=True)},
    )  # fmt: skip


def _add_limits() -> None:
    """Both sides of each limit. Strips: a side at its limit costs little when the other is 64."""
    sides = {
        "side_64": (64, 64), "width_63": (63, 80), "height_63": (80, 63), "both_63": (63, 63),
        "wide_1500": (1500, 64), "tall_1500": (64, 1500),
        "wide_1501": (1501, 64), "tall_1501": (64, 1501),
        "wide_3000": (3000, 64), "tall_3000": (64, 3000),
        "wide_3001": (3001, 64), "tall_3001": (64, 3001),
        "square_1500": (1500, 1500), "square_3000": (3000, 3000),
    }  # fmt: skip
    for name, size in sides.items():
        _add(
            name,
            lambda size=size: encoded(drawing(*size), "JPEG", quality=95),  # type: ignore[misc]
            size,
        )
    _add(
        "exactly_25_mb_png", lambda: padded_png(drawing(80, 64), MAX_FILE_BYTES), (80, 64),
        file_name="photo.png", media_type="image/png",
    )  # fmt: skip
    _add("exactly_25_mb", lambda: padded_jpeg(drawing(80, 64), MAX_FILE_BYTES), (80, 64))
    _add("a_byte_over_25_mb", lambda: padded_jpeg(drawing(80, 64), MAX_FILE_BYTES + 1))
    _add("twice_25_mb", lambda: padded_jpeg(drawing(80, 64), 2 * MAX_FILE_BYTES))
    _add("over_25_mb_of_garbage", lambda: b"\0" * (MAX_FILE_BYTES + 1))
    _add("over_1_mb", lambda: padded_jpeg(drawing(80, 64), MEGABYTE + 7), (80, 64))
    for name, side in {"declares_30000": 30_000, "declares_two_billion": 2**31 - 1}.items():
        _add(name, functools.partial(png_header_only, side, side), file_name="photo.png")


def _add_refused() -> None:
    """Add files that are no image, broken ones, and formats that are not enabled."""
    jpeg = functools.partial(lambda: PICTURES["photo"].build())
    png = functools.partial(lambda: PICTURES["png"].build())
    _add("truncated_jpeg", lambda: jpeg()[: len(jpeg()) // 2])
    _add("truncated_png", lambda: png()[: len(png()) // 2], file_name="photo.png")
    _add("truncated_webp", lambda: PICTURES["webp"].build()[:200], file_name="photo.webp")
    _add("jpeg_header_alone", lambda: jpeg()[:20])
    _add("zero_bytes", lambda: b"")
    _add("one_byte", lambda: b"\xff")
    _add("garbage", lambda: bytes(range(7, 250)) * 40)
    _add("text_file", lambda: b"This is no image, although it is called one.\n" * 20)
    _add("html_page", lambda: b"<!DOCTYPE html><html><body>Not found</body></html>")
    small = functools.partial(lambda: drawing(80, 64))
    _add("gif", lambda: encoded(small(), "GIF"), file_name="photo.gif", media_type="image/gif")
    _add("tiny_gif", lambda: encoded(small().resize((8, 8)), "GIF"), file_name="photo.gif")
    _add("gif_named_png", lambda: encoded(small(), "GIF"), file_name="photo.png")
    _add("bmp", lambda: encoded(small(), "BMP"), file_name="photo.bmp", media_type="image/bmp")
    _add("tiff", lambda: encoded(small(), "TIFF"), file_name="photo.tif", media_type="image/tiff")
    _add("avif", avif, file_name="photo.avif", media_type="image/avif")
    _add("heic", lambda: ftyp_header(b"heic"), file_name="photo.heic", media_type="image/heic")
    _add("pdf", lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\ntrailer<<>>\n%%EOF\n")
    _add(
        "psd", lambda: b"8BPS\0\1" + b"\0" * 6 + struct.pack(">HIIHH", 3, 64, 64, 8, 3) + b"\0" * 64
    )
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="80" height="64"><rect/></svg>'
    _add("svg", lambda: svg, file_name="photo.svg", media_type="image/svg+xml")
    _add("svg_with_xml_head", lambda: b'<?xml version="1.0" encoding="UTF-8"?>\n' + svg)


_add_kinds()
_add_png_kinds()
_add_orientations()
_add_private()
_add_limits()
_add_refused()
