"""Damaged files: each is refused in the contract's words, or decoded as its header says."""

from importlib.util import find_spec

import numpy as np
import pytest

from tests.service.image.iso_samples import encode_avif, encode_heic
from tests.service.image.samples import (
    GREY_ALPHA,
    PALETTE,
    PNG_SIGNATURE,
    RGB,
    chunk,
    decode_checked,
    deep_samples,
    exif_with_orientation,
    picture,
    png,
    save,
)
from upscaled.errors import MalformedImage, ResolutionTooHigh, UnsupportedImageFormat
from upscaled.image.decode import decode_file
from upscaled.image.formats.png.structure import iterate_chunks
from upscaled.image.formats.table import ALWAYS_DECODED, OPTIONAL

MUTATIONS = 600
ALL = ALWAYS_DECODED | OPTIONAL


def good_files() -> dict[str, bytes]:
    exif = exif_with_orientation(6)
    palette = chunk(b"PLTE", bytes(range(48))) + chunk(b"tRNS", b"\x00\x80")
    files = {
        "jpeg": save(picture(), "JPEG", exif=exif, comment=b"words"),
        "progressive jpeg": save(picture(), "JPEG", progressive=True),
        "grey jpeg": save(picture()[..., 0], "JPEG"),
        "png": save(picture(channels=4), "PNG", exif=exif),
        "deep png": png(deep_samples(3, 16), 16, RGB, before=chunk(b"tRNS", bytes(6))),
        "grey alpha png": png(deep_samples(2, 16), 16, GREY_ALPHA),
        "palette png": png(deep_samples(1, 4), 4, PALETTE, before=palette),
        "webp": save(picture(), "WEBP", exif=exif),
        "lossless webp": save(picture(channels=4), "WEBP", lossless=True, exact=True),
        "avif": encode_avif(picture(channels=4)),
        "bmp": save(picture(), "BMP"),
        "tiff": save(picture(channels=4), "TIFF"),
    }
    if find_spec("pillow_heif"):
        files["heic"] = encode_heic(picture(channels=4))
    return files


def mutate(source: bytes, chance: np.random.Generator) -> bytes:
    """Change bytes, drop a piece, repeat one elsewhere, or cut; mostly near the start."""
    data = bytearray(source)
    reach = int(chance.choice([40, 200, len(data)]))
    at = int(chance.integers(min(reach, len(data))))
    length = int(chance.integers(1, 40))
    kind = chance.integers(4)
    if kind == 0:
        for place in chance.integers(0, min(reach, len(data)), int(chance.integers(1, 6))):
            data[place] = chance.integers(256)
    elif kind == 1:
        del data[at : at + length]
    elif kind == 2:
        del data[at:]
    else:
        start = int(chance.integers(len(data)))
        data[at:at] = data[start : start + length]
    return bytes(data)


def repair(source: bytes) -> bytes:
    """Correct the checksums of a damaged PNG, so that the damage gets past them."""
    if not source.startswith(PNG_SIGNATURE):
        return source
    pieces = [source[each.start : each.start + each.length] for each in iterate_chunks(source)]
    names = [each.name for each in iterate_chunks(source)]
    return PNG_SIGNATURE + b"".join(map(chunk, names, pieces))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of broken tags
@pytest.mark.parametrize("name", sorted(good_files()))
def test_a_damaged_file_is_refused_or_decoded_to_the_size_of_its_header(name: str) -> None:
    chance = np.random.default_rng(len(name))
    source = good_files()[name]
    decode_file(source, ALL)
    refused = 0
    for _ in range(MUTATIONS):
        damaged = repair(mutate(source, chance))
        try:
            decode_checked(damaged, ALL)
        except (MalformedImage, ResolutionTooHigh, UnsupportedImageFormat):
            refused += 1
    assert 0 < refused < MUTATIONS
