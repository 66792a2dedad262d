"""Files of WebP, AVIF and HEIC cut at 20 places, bare or filled up to their full length.

What is missing is refused when it is cut off and when it is zeros. Random bytes in its place are
mostly as good a bitstream as any other: none of these formats has a checksum. Of 100 tails a kind,
at the same 20 places, so many passed that gave other pixels: AVIF 100 (8 bits), 93 (10 and 12), 85
(alpha), 0 (a grid, or data in `idat`, whose file goes on behind them); HEIC 100, as a grid 5, with
alpha 0; WebP lossless 100, lossy 90, with alpha 69, coarse 10, with EXIF behind it 0, animated 0.
They are held to what they were probed as.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from io import BytesIO

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.service.image.iso_samples import Item, build, encode_avif, encode_heic, grid, items_of
from tests.service.image.samples import (
    count_refused,
    decode_checked,
    exif_with_orientation,
    save,
    save_frames,
)
from tests.service.image.webp_samples import chunks_of, webp
from upscaled.errors import MalformedImage
from upscaled.image.decode import decode_file

pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")

FORMATS = {"AVIF", "HEIC", "WEBP"}
PLACES = 20


def photo(channels: int = 3, number: int = 0) -> NDArray[np.uint8]:
    """Draw waves with noise on them; alpha is a disc."""
    chance = np.random.default_rng(number)
    y, x = np.mgrid[0:160, 0:192]
    waves = (np.sin(x / 9 + y / 17), np.cos(y / 11), np.sin((x + y) / 23))
    pixels = 128 + 80 * np.stack(waves, axis=-1) + chance.normal(0, 12, (160, 192, 3))
    disc = 255 * ((x - 96) ** 2 + (y - 80) ** 2 < 70**2)
    every = np.dstack([pixels.clip(0, 255), disc]).astype(np.uint8)
    return np.ascontiguousarray(every[..., :channels])


def animation(channels: int, **options: object) -> bytes:
    return save_frames("WEBP", *(photo(channels, number) for number in range(3)), **options)


def deep_avif(bits: int) -> bytes:
    parameters = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_SPEED, 9]
    is_done, encoded = cv2.imencode(".avif", photo().astype(np.uint16) << (bits - 8), parameters)
    assert is_done
    return encoded.tobytes()


def deep_heic() -> bytes:
    from pillow_heif import from_bytes

    file = BytesIO()
    deep = (photo().astype("<u2") << 2).tobytes()
    from_bytes("RGB;10", (192, 160), deep).save(file, quality=70)
    return file.getvalue()


def avif_grid() -> bytes:
    """Make a grid of two tiles, each with an alpha image; the first tile's is last in the file."""
    items, alphas = [grid(1, 2, 192, 160, 2, 3)], list[Item]()
    for number, left in enumerate((0, 96)):
        tile = np.ascontiguousarray(photo(4)[:, left : left + 96])
        colour, alpha = items_of(encode_avif(tile, quality=75))
        items.append(colour)
        alphas.insert(0, Item(alpha.kind, alpha.data, alpha.properties, {b"auxl": [2 + number]}))
    return build([*items, *alphas])


KINDS: Mapping[str, Callable[[], bytes]] = {
    "webp lossy": lambda: save(photo(), "WEBP"),
    "webp lossy, exif last": lambda: save(photo(), "WEBP", exif=exif_with_orientation(1)),
    "webp lossy, coarse": lambda: save(photo(), "WEBP", quality=5, method=0),
    "webp lossy alpha": lambda: save(photo(4), "WEBP"),
    "webp lossless": lambda: save(photo(), "WEBP", lossless=True),
    "webp lossless, fast": lambda: save(photo(), "WEBP", lossless=True, quality=0, method=0),
    "webp lossless alpha": lambda: save(photo(4), "WEBP", lossless=True, exact=True),
    "webp animated": lambda: animation(3),
    "webp animated alpha": lambda: animation(4),
    "webp animated lossless": lambda: animation(3, lossless=True),
    "avif": lambda: encode_avif(photo(), quality=75, subsampling="4:2:0"),
    "avif 4:4:4": lambda: encode_avif(photo(), quality=90),
    "avif alpha": lambda: encode_avif(photo(4), quality=75),
    "avif 10 bits": lambda: deep_avif(10),
    "avif 12 bits": lambda: deep_avif(12),
    "avif grid alpha": avif_grid,
    "avif in idat": lambda: build(items_of(encode_avif(photo(4), quality=75)), idat=True),
    "heic": lambda: encode_heic(photo(), quality=70, chroma=420),
    "heic lossless": lambda: encode_heic(photo()),
    "heic alpha": lambda: encode_heic(photo(4), quality=70),
    "heic 10 bits": deep_heic,
    "heic grey": lambda: encode_heic(photo()[..., 0].copy(), quality=70),
    "heic grid": lambda: encode_heic(photo(), quality=70, tile_size=64),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_cut_file_is_refused_bare_and_filled_with_zeros(kind: str) -> None:
    source = KINDS[kind]()
    whole = decode_file(source, FORMATS)
    chance = np.random.default_rng(9)
    refused = 0
    for part in range(1, PLACES + 1):
        at = len(source) * part // (PLACES + 1)
        rest = len(source) - at
        refused += count_refused([source[:at], source[:at] + bytes(rest)], whole, FORMATS)
        with suppress(MalformedImage):
            decode_checked(source[:at] + chance.bytes(rest), FORMATS)
    # Of an animation the first picture may be there.
    assert refused >= (PLACES + 5 if "animated" in kind else 2 * PLACES)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_bytes_behind_a_whole_file_are_ignored(kind: str) -> None:
    source = KINDS[kind]()
    whole = decode_file(source, FORMATS)
    assert np.array_equal(decode_file(source + bytes(5000), FORMATS).rgb, whole.rgb)


@pytest.mark.parametrize("kind", sorted(each for each in KINDS if "animated" not in each))
def test_data_that_end_early_are_refused_however_well_their_lengths_are_mended(kind: str) -> None:
    source = KINDS[kind]()
    decode_file(source, FORMATS)
    for part in range(1, PLACES + 1):
        for cut in cut_data(kind, source, part / (PLACES + 1)):
            with pytest.raises(MalformedImage):
                decode_file(cut, FORMATS)


def cut_data(kind: str, source: bytes, share: float) -> Iterator[bytes]:
    """Iterate over sound files, in each of which another image's data are cut to a share."""
    if kind.startswith("webp"):
        chunks = chunks_of(source)
        for name in chunks.keys() & {b"ALPH", b"VP8 ", b"VP8L"}:
            shorter = {**chunks, name: chunks[name][: int(len(chunks[name]) * share)]}
            yield webp(*shorter.items())
        return
    items = items_of(source)
    for number, item in enumerate(items):
        if item.kind != b"grid":
            data = item.data[: int(len(item.data) * share)]
            yield build(
                [*items[:number], replace(item, data=data), *items[number + 1 :]],
                brand=source[8:12],
            )
