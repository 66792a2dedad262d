"""Small files made on the spot, one for each thing a decoder can get wrong."""

import struct
import zlib
from collections.abc import Collection, Iterable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms

from upscaled.errors import MalformedImage, UnsupportedImageFormat
from upscaled.image.decode import decode_file
from upscaled.image.encode import Encoder
from upscaled.image.formats.table import ALWAYS_DECODED, read_header
from upscaled.image.output import decide_output
from upscaled.image.types import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
# (first column, first row, step across, step down) of each pass: PNG third edition, section 8.
ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
PNG_KINDS = [
    *((GREY, bits) for bits in (1, 2, 4, 8, 16)),
    *((PALETTE, bits) for bits in (1, 2, 4, 8)),
    *((colour, bits) for colour in (RGB, GREY_ALPHA, RGBA) for bits in (8, 16)),
]


def picture(height: int = 48, width: int = 64, channels: int = 3) -> NDArray[np.uint8]:
    """Draw smooth pixels without symmetry, different in every channel: `[h, w, channels]`."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = [
        40 + 170 * columns / width,
        30 + 160 * rows / height,
        220 - 90 * rows / height - 80 * columns / width,
        255 * (rows + columns) / (height + width),
    ]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def save(image: NDArray[Any] | PillowImage.Image, kind: str, **options: object) -> bytes:
    """Encode pixels as a file of Pillow's format `kind`."""
    file = BytesIO()
    if not isinstance(image, PillowImage.Image):
        image = PillowImage.fromarray(image)
    image.save(file, format=kind, **options)
    return file.getvalue()


def save_frames(kind: str, *frames: NDArray[np.uint8], **options: object) -> bytes:
    """Encode several images of pixels as one file."""
    first, *others = map(PillowImage.fromarray, frames)
    return save(first, kind, save_all=True, append_images=others, **options)


def encode(image: Image, *, jpeg_quality: int = 95) -> bytes:
    """Encode an image as the file of a result."""
    output = decide_output(image, 1, keeps_depth=True, max_side_px=max(image.rgb.shape))
    with Encoder(image, output.format, quality=jpeg_quality) as encoder:
        return encoder.finish()


def decode_checked(source: bytes, formats: Collection[str] = ALWAYS_DECODED) -> Image:
    """Decode a file, and check the image's size and transparency against its header."""
    image, header = decode_file(source, formats), read_header(source, formats)
    assert (image.width_px, image.height_px) == (header.width_px, header.height_px)
    assert image.has_alpha == header.has_alpha
    return image


def count_refused(
    files: Iterable[bytes], whole: Image, formats: Collection[str] = ALWAYS_DECODED
) -> int:
    """Count the files that are refused, and assert that all others have every pixel."""
    refused = 0
    for number, file in enumerate(files):
        try:
            assert have_equal_pixels(decode_file(file, formats), whole), number
        except (MalformedImage, UnsupportedImageFormat):
            refused += 1
    return refused


def with_zero_tails(data: bytes, places: int = 20) -> list[bytes]:
    """List the data with zeros in the place of their end, from each of so many places on."""
    cuts = (len(data) * part // (places + 1) for part in range(1, places + 1))
    return [data[:at] + bytes(len(data) - at) for at in cuts]


def have_equal_pixels(one: Image, other: Image) -> bool:
    """Return whether two images have the same colour and the same alpha, or both none."""
    if one.alpha is None or other.alpha is None:
        return one.alpha is other.alpha and np.array_equal(one.rgb, other.rgb)
    return np.array_equal(one.rgb, other.rgb) and np.array_equal(one.alpha, other.alpha)


def srgb_curve(light: NDArray[np.floating]) -> NDArray[np.floating]:
    """Convert linear light in 0..1 by the curve of sRGB (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_profile() -> bytes:
    """Make LittleCMS's profile of sRGB, the same bytes at any time.

    It stamps a profile with the second in which it is made (ICC.1:2022, 7.2.8), so two of them
    differ now and then.
    """
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:24] + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + made[36:]


def exif_with_orientation(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """Make an EXIF block of one tag, in either byte order."""
    magic = b"II*\x00" if order == "<" else b"MM\x00*"
    entry = struct.pack(f"{order}HHIHH", 0x0112, kind, 1, orientation, 0)
    return b"Exif\x00\x00" + magic + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


def stored_for(upright: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn pixels as a camera that writes `orientation` stores them, by the EXIF table's words.

    The tag names the edge of the picture that stored row 0, and stored column 0, show.
    """
    row_0_shows, column_0_shows = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    if row_0_shows in ("left", "right"):
        upright = upright.transpose(1, 0, 2)
    if row_0_shows in ("bottom", "right"):
        upright = upright[::-1]
    if column_0_shows in ("bottom", "right"):
        upright = upright[:, ::-1]
    return np.ascontiguousarray(upright)


def chunk(name: bytes, data: bytes) -> bytes:
    """Make a PNG chunk with a right checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pack_rows(samples: NDArray[np.uint16], bits: int) -> bytes:
    """Pack rows as a PNG holds them, none filtered; nothing where there are no pixels."""
    height, width = samples.shape[:2]
    if not height or not width:
        return b""
    rows = samples.reshape(height, -1)
    if bits == 16:
        packed = rows.astype(">u2").view(np.uint8)
    elif bits == 8:
        packed = rows.astype(np.uint8)
    else:
        spread = (rows[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
        packed = np.packbits(spread.reshape(height, -1).astype(np.uint8), axis=1)
    return b"".join(b"\x00" + row.tobytes() for row in packed)


def pack_passes(samples: NDArray[np.uint16], bits: int, *, interlaced: bool) -> bytes:
    """Pack all rows in the order of a PNG's stream, which is compressed next."""
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    return b"".join(
        pack_rows(samples[top::down, left::across], bits) for left, top, across, down in passes
    )


def png(
    samples: NDArray[np.uint16],
    bits: int,
    colour: int,
    *,
    before: bytes = b"",
    after: bytes = b"",
    size: tuple[int, int] | None = None,
    interlaced: bool = False,
    compressed: bytes | None = None,
) -> bytes:
    """Make a PNG of samples `[H, W, channels]` in 0..2^bits-1, without any library's help.

    `before` and `after` are chunks around the pixels; `size` (width, height) lies in the header;
    `compressed` stands in the place of the compressed pixels.
    """
    height, width = samples.shape[:2]
    if compressed is None:
        compressed = zlib.compress(pack_passes(samples, bits, interlaced=interlaced))
    header = struct.pack(
        ">IIBBBBB", *(size or (width, height)), bits, colour, 0, 0, int(interlaced)
    )
    return b"".join(
        (
            PNG_SIGNATURE,
            chunk(b"IHDR", header),
            before,
            chunk(b"IDAT", compressed),
            after,
            chunk(b"IEND", b""),
        )
    )


def deep_samples(channels: int, bits: int, height: int = 20, width: int = 30) -> NDArray[np.uint16]:
    """Make random samples of any depth, the extremes among them."""
    samples = np.random.default_rng(bits).integers(0, 1 << bits, (height, width, channels))
    samples[0, 0], samples[-1, -1] = 0, (1 << bits) - 1
    return samples.astype(np.uint16)
