"""AVIF and HEIC by their boxes: crop, turn and mirror, alpha of tiles, colours by code."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms

from tests.service.image.iso_samples import (
    BRANDS,
    Item,
    box,
    build,
    clap,
    encode,
    encode_avif,
    encode_heic,
    full_box,
    grid,
    icc_box,
    imir,
    irot,
    ispe,
    items_of,
    nclx,
)
from tests.service.image.samples import decode_checked, picture, save
from upscaled.errors import MalformedImage, ResolutionTooHigh
from upscaled.image import colour
from upscaled.image.decode import decode_file
from upscaled.image.formats.isobmff import avif, boxes
from upscaled.image.formats.table import read_header

pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")

WIDTH, HEIGHT = 96, 72
LINEAR = colour.Curve(1.0)
P3 = colour.make_rgb_profile(colour.DISPLAY_P3, colour.SRGB_CURVE)


def transformed(kind: str, pixels: NDArray[np.uint8], *properties: bytes) -> bytes:
    """Make a file whose images, that of alpha too, have these properties last."""
    items = [item.with_properties(*properties) for item in items_of(encode(kind, pixels))]
    return build(items, brand=BRANDS[kind])


def apply(pixels: NDArray[np.uint8], properties: tuple[bytes, ...]) -> NDArray[np.uint8]:
    """Apply each property as ISO/IEC 23008-12 describes it."""
    for each in properties:
        name, body = each[4:8], each[8:]
        if name == b"irot":  # anticlockwise
            pixels = np.rot90(pixels, body[0])
        elif name == b"imir":
            pixels = pixels[:, ::-1] if body[0] else pixels[::-1]
        else:
            w, _, h, _, right, _, below, _ = struct.unpack(">IIIIiIiI", body)
            height, width = pixels.shape[:2]
            left, top = (width - w) // 2 + right, (height - h) // 2 + below
            pixels = pixels[top : top + h, left : left + w]
    return pixels


CHAINS = (
    (clap(40, 30, 20, -10),),
    (clap(96, 72),),
    (clap(94, 70, 1, 1),),
    (clap(40, 30, -28, 21), irot(1)),
    (clap(40, 66, -28, 3), irot(2)),
    (clap(40, 30, 10, 20), irot(3)),
    (clap(40, 30, 10, 20), imir(0)),
    (clap(40, 30, 10, 20), imir(1)),
    (clap(40, 30, 10, 20), irot(1), imir(0)),
    (clap(40, 30, 10, 20), irot(3), imir(1)),
    (irot(1), imir(1)),
)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("kind", sorted(BRANDS))
def test_a_crop_is_applied_before_rotation_and_mirroring(
    kind: str, chain: tuple[bytes, ...]
) -> None:
    pixels = picture(HEIGHT, WIDTH, channels=4)
    source = transformed(kind, pixels, *chain)
    expected = apply(pixels, chain)
    image = decode_checked(source, BRANDS)
    assert image.rgb.shape[:2] == expected.shape[:2]
    assert np.abs(image.rgb.astype(int) - expected[..., :3]).mean() < 2
    assert image.alpha is not None
    assert np.abs(image.alpha.astype(int) - expected[..., 3]).mean() < 2


def test_heic_transforms_in_the_files_order_and_avif_in_the_standards() -> None:
    pixels, chain = picture(HEIGHT, WIDTH), (irot(1), clap(40, 30, 10, 5))
    for kind, expected in (("HEIC", apply(pixels, chain)), ("AVIF", apply(pixels, chain[::-1]))):
        source = transformed(kind, pixels, *chain)
        image = decode_checked(source, BRANDS)
        assert image.rgb.shape == expected.shape
        assert np.abs(image.rgb.astype(int) - expected).mean() < 2


def test_a_crop_between_pixels_is_rounded_as_libheif_does() -> None:
    for crop in (clap(81, 61, 3, 0, parts=2), clap(80, 61, 3, -5, parts=2)):
        sizes = {
            decode_file(transformed(kind, picture(72, 96), crop), BRANDS).rgb.shape
            for kind in BRANDS
        }
        assert len(sizes) == 1


@pytest.mark.parametrize("kind", sorted(BRANDS))
@pytest.mark.parametrize(
    "crop", [clap(40, 30, 500, 0), clap(0, 30), clap(40, 30, parts=0), box(b"clap", bytes(8))]
)
def test_a_crop_that_leaves_nothing_is_malformed(kind: str, crop: bytes) -> None:
    source = transformed(kind, picture(HEIGHT, WIDTH), crop)
    for read in (read_header, decode_file):
        with pytest.raises(MalformedImage):
            read(source, BRANDS)


@pytest.mark.parametrize("kind", sorted(BRANDS))
def test_more_transforms_than_the_limit_are_refused(kind: str) -> None:
    """A property may be named 20,000 times, and each crop costs fractions."""
    most = [irot(0)] * 16
    pixels = picture(HEIGHT, WIDTH)
    assert read_header(transformed(kind, pixels, *most), BRANDS).width_px == WIDTH
    with pytest.raises(MalformedImage):
        read_header(transformed(kind, pixels, *most, irot(0)), BRANDS)


@pytest.mark.parametrize("kind", sorted(BRANDS))
def test_the_pixel_limit_applies_before_the_crop(kind: str) -> None:
    item = items_of(encode(kind, picture(HEIGHT, WIDTH)))[0]
    crop = clap(64, 64)
    sound = build([item.with_properties(crop)], brand=BRANDS[kind])
    assert read_header(sound, BRANDS).decoded_pixels == WIDTH * HEIGHT
    huge = build(
        [item.with_properties(ispe(20_000, 20_000), crop, without=(b"ispe",))], brand=BRANDS[kind]
    )
    for read in (read_header, decode_file):
        with pytest.raises(ResolutionTooHigh):
            read(huge, BRANDS)


def tiles_with_alpha(with_alpha: int) -> bytes:
    """Make an AVIF of two tiles; the first `with_alpha` have an alpha image of their own."""
    pixels = picture(128, 64, channels=4)
    items, alphas = [grid(2, 1, 64, 128, 2, 3)], []
    for number, top in enumerate((0, 64)):
        colour, alpha = items_of(encode_avif(pixels[top : top + 64]))
        items.append(colour)
        if number < with_alpha:
            alphas.append(Item(alpha.kind, alpha.data, alpha.properties, {b"auxl": [2 + number]}))
    return build([*items, *alphas])


def test_a_grid_whose_tiles_have_alpha_is_transparent() -> None:
    pixels, source = picture(128, 64, channels=4), tiles_with_alpha(2)
    image = decode_checked(source, BRANDS)
    assert np.abs(image.rgb.astype(int) - pixels[..., :3]).mean() < 2
    assert image.alpha is not None
    assert np.abs(image.alpha.astype(int) - pixels[..., 3]).mean() < 2


@pytest.mark.parametrize("with_alpha", [0, 1])
def test_a_grid_with_alpha_for_some_tiles_is_opaque(with_alpha: int) -> None:
    source = tiles_with_alpha(with_alpha)
    assert not decode_checked(source, BRANDS).has_alpha


@pytest.mark.parametrize("kind", sorted(BRANDS))
@pytest.mark.parametrize(
    ("primaries", "transfer", "expected"),
    [
        (1, 13, None),
        (2, 2, None),
        (2, 13, None),
        (1, 2, None),
        (12, 13, P3),
        (12, 2, P3),
        (9, 13, colour.make_rgb_profile(colour.BT2020, colour.SRGB_CURVE)),
        (9, 14, colour.make_rgb_profile(colour.BT2020, colour.BT709_CURVE)),
        (9, 15, colour.make_rgb_profile(colour.BT2020, colour.BT709_CURVE)),
        (9, 16, None),
        (9, 18, None),
        (12, 16, None),
        (4, 13, None),
    ],
)
def test_colour_codes_become_the_matching_profile(
    kind: str, primaries: int, transfer: int, expected: bytes | None
) -> None:
    (item,) = items_of(encode(kind, picture(64, 64)))
    code = nclx(primaries, transfer)
    source = build([item.with_properties(code, without=(b"colr",))], brand=BRANDS[kind])
    assert decode_file(source, BRANDS).icc == expected


@pytest.mark.parametrize("kind", sorted(BRANDS))
def test_a_sound_embedded_profile_counts_before_the_colour_codes(kind: str) -> None:
    (item,) = items_of(encode(kind, picture(64, 64)))
    embedded = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for described, expected in (
        ((nclx(12, 13), icc_box(embedded)), embedded),
        ((icc_box(embedded), nclx(12, 13)), embedded),
        ((icc_box(b"no profile" * 20), nclx(12, 13)), P3),
    ):
        source = build([item.with_properties(*described, without=(b"colr",))], brand=BRANDS[kind])
        assert decode_file(source, BRANDS).icc == expected


@pytest.mark.parametrize("data", ["idat", "mdat"])
def test_without_a_colour_box_the_bitstreams_own_codes_count(data: str) -> None:
    """libavif writes them into both places."""
    plain = items_of(encode_avif(picture(64, 64)))[0].with_properties(without=(b"colr",))
    assert decode_file(build([plain], idat=data == "idat"), BRANDS).icc is None
    coded = Item(plain.kind, with_codes(plain.data, 12, 13), plain.properties)
    assert decode_file(build([coded], idat=data == "idat"), BRANDS).icc == P3
    tiles = build([grid(1, 1, 64, 64, 2), coded])
    assert decode_file(tiles, BRANDS).icc == P3


def with_codes(obus: bytes, primaries: int, transfer: int) -> bytes:
    """Put other colour codes into the sequence header of a bitstream in sRGB."""
    bits = f"{int.from_bytes(obus, 'big'):0{8 * len(obus)}b}"
    codes = f"{1:08b}{13:08b}{6:08b}"
    at = bits.index(codes)
    assert at < 8 * 30
    bits = bits[:at] + f"{primaries:08b}{transfer:08b}" + bits[at + 16 :]
    return int(bits, 2).to_bytes(len(obus), "big")


def test_grey_heic_is_converted_by_the_grey_profile_of_its_codes() -> None:
    grey = picture(64, 64)[..., 0].copy()
    (item,) = items_of(encode_heic(grey))
    source = build([item.with_properties(nclx(1, 8), without=(b"colr",))], brand=b"heic")
    rgb = decode_file(source, BRANDS).rgb
    profile = ImageCms.ImageCmsProfile(BytesIO(colour.make_grey_profile(LINEAR)))
    shown = ImageCms.profileToProfile(
        PillowImage.fromarray(grey), profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert shown is not None
    assert np.abs(rgb.astype(int) - np.asarray(shown)).mean() < 3


def test_the_files_of_the_shared_cases_are_right(shared_dir: Path) -> None:
    cases = shared_dir / "cases"
    colours = {
        file.name: decode_file(file.read_bytes(), BRANDS).icc
        for file in (cases / "nclx-colours").iterdir()
        if file.suffix in (".avif", ".heic")
    }
    assert colours.pop("avif_iccp3.avif")
    assert colours == {
        "avif_p3.avif": P3,
        "heic_p3.heic": P3,
        "avif_2020_srgb.avif": colour.make_rgb_profile(colour.BT2020, colour.SRGB_CURVE),
        "avif_srgb.avif": None,
    }
    crop = decode_file((cases / "avif-clap/blue-and-magenta-crop.avif").read_bytes(), BRANDS)
    assert crop.rgb.shape == (100, 180, 3)
    tiles = decode_file(
        (cases / "avif-grid-alpha/color_grid_alpha_nogrid.avif").read_bytes(), BRANDS
    )
    assert tiles.alpha is not None
    assert set(np.unique(tiles.alpha)) >= {0, 255}


def test_lists_without_end_are_refused() -> None:
    (item,) = items_of(encode_avif(picture(64, 64)))
    many = Item(item.kind, item.data, item.properties, {b"auxl": [1] * 30_000})
    with pytest.raises(ValueError, match="references"):
        avif.read_header(build([many]))
    entries = struct.pack(">HB", 1, 255) + bytes(255)
    associations = full_box(b"ipma", 0, struct.pack(">I", 100), entries * 100)
    with pytest.raises(ValueError, match="20000 associations"):
        avif.read_header(with_associations(build([item]), associations))
    empty = full_box(b"ipma", 0, bytes(4))
    with pytest.raises(ValueError, match="boxes of associations"):
        avif.read_header(with_associations(build([item]), empty * 5))


def with_associations(source: bytes, boxes: bytes) -> bytes:
    """Replace a file's `ipma` by other boxes."""
    at = source.index(b"ipma") - 4
    end = at + int.from_bytes(source[at : at + 4], "big")
    changed = bytearray(source[:at] + boxes + source[end:])
    for name in (b"meta", b"iprp"):
        start = changed.index(name) - 4
        length = int.from_bytes(changed[start : start + 4], "big") + len(boxes) - (end - at)
        changed[start : start + 4] = length.to_bytes(4, "big")
    return bytes(changed)


def test_a_property_is_compared_once_however_often_items_refer_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a small file makes the front end compare 20,000 properties 20,000 times."""
    looks = 0
    look = boxes._is_alpha

    def counted(box: boxes.Box) -> bool:
        nonlocal looks
        looks += 1
        return look(box)

    monkeypatch.setattr(boxes, "_is_alpha", counted)
    colour, alpha = items_of(encode_avif(picture(64, 64, channels=4)))
    many = Item(alpha.kind, alpha.data, alpha.properties, {b"auxl": [1] * 5000})
    once = 0
    for items in ([colour, alpha], [colour, many]):
        looks = 0
        assert avif.read_header(build(items)) == avif.read_header(build([colour, alpha]))
        once = once or looks
        assert looks <= 2 * once


@pytest.mark.parametrize("kind", sorted(BRANDS))
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("start", [b"XX*\x00", bytes(4), b"\xff\xff\xff\xff"])
def test_a_broken_exif_block_is_left_out(kind: str, orientation: int, start: bytes) -> None:
    tags = PillowImage.Exif()
    tags[0x0112], tags[0x013B] = orientation, "Ann Example"
    exif, pixels = tags.tobytes(), picture(HEIGHT, WIDTH)
    if kind == "AVIF":
        source = save(pixels, kind, exif=exif, quality=100)
    else:
        source = encode_heic(pixels, exif=exif)
    at = source.rindex(b"Exif\x00\x00") + 6
    sound = decode_file(source, BRANDS)
    broken = source[:at] + start + source[at + 4 :]
    assert source[at : at + 4] == b"MM\x00*"
    assert np.array_equal(decode_checked(broken, BRANDS).rgb, sound.rgb)
