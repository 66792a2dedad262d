"""Draw and encode the kit's pictures."""

import io
import struct
import zlib
from typing import Any

from PIL import Image, ImageDraw


def drawing(width_px: int, height_px: int) -> Image.Image:
    """A smooth picture that is not symmetric: a turned or mirrored one differs a lot."""
    picture = Image.linear_gradient("L").resize((width_px, height_px))
    sideways = Image.linear_gradient("L").transpose(Image.Transpose.ROTATE_90)
    sideways = sideways.resize((width_px, height_px))
    rgb = Image.merge("RGB", (picture, sideways, picture.transpose(Image.Transpose.ROTATE_180)))
    pen = ImageDraw.Draw(rgb)
    third = min(width_px, height_px) // 3
    pen.rectangle((4, 4, 4 + third, 4 + third // 2), fill=(230, 40, 40))
    pen.ellipse((width_px - third - 3, 6, width_px - 4, 6 + third), fill=(30, 60, 200))
    return rgb


def with_alpha(width_px: int, height_px: int, *, opaque: bool = False) -> Image.Image:
    """The drawing with a hole in its middle; `opaque` keeps the channel but fills the hole."""
    rgba = drawing(width_px, height_px).convert("RGBA")
    if not opaque:
        mask = Image.new("L", rgba.size, 255)
        quarter = (width_px // 4, height_px // 2, width_px // 2, height_px - height_px // 8)
        ImageDraw.Draw(mask).rectangle(quarter, fill=0)
        rgba.putalpha(mask)
    return rgba


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    checksum = zlib.crc32(kind + payload)
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", checksum)


def png_header_only(width_px: int, height_px: int) -> bytes:
    """A PNG of a hundred bytes that declares any size."""
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 64)
    chunks = (b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, payload) for kind, payload in chunks)


def padded_png(image: Image.Image, size_bytes: int) -> bytes:
    """A valid PNG of exactly `size_bytes`: the padding is a private chunk that no decoder reads."""
    plain = encoded(image, "PNG")
    padding = size_bytes - len(plain) - 12
    end = plain.index(b"IEND") - 4
    return plain[:end] + png_chunk(b"paDd", b"\0" * padding) + plain[end:]


def padded_jpeg(image: Image.Image, size_bytes: int) -> bytes:
    """A valid JPEG of exactly `size_bytes`: bytes after its end, as some cameras write them."""
    plain = encoded(image, "JPEG", quality=95)
    return plain + b"\0" * (size_bytes - len(plain))


def exif(orientation: int, *, private: bool = False) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    if private:
        tags[0x010F] = "KITCAMERA"
        tags.get_ifd(0x8825)[0x001D] = "1999:12:31"
    return tags.tobytes()


_TURNED_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def lying(upright: Image.Image, orientation: int) -> Image.Image:
    """The pixels as a camera stores them, that `orientation` turns upright again."""
    turn = _TURNED_BACK.get(orientation)
    return upright if turn is None else upright.transpose(turn)


def animated(kind: str) -> bytes:
    first = with_alpha(80, 72)
    others = [Image.new("RGBA", first.size, colour) for colour in ("lime", "black")]
    return encoded(first, kind, save_all=True, append_images=others, duration=100, lossless=True)


def as_shown(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGBA")


def ftyp_header(brand: bytes) -> bytes:
    box = b"ftyp" + brand + b"\0\0\0\0" + brand + b"mif1"
    return struct.pack(">I", len(box) + 4) + box + b"\0\0\0\x08mdat" * 8


def avif() -> bytes:
    try:
        return encoded(drawing(80, 64), "AVIF")
    except (KeyError, OSError):  # a Pillow built without it: the header alone is recognised too
        return ftyp_header(b"avif")
