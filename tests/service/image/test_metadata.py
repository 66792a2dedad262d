"""What a file says beside its pixels: its resolution and credit are read, the rest is left."""

import random
import struct
from dataclasses import replace

import pytest
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from tests.service.image.samples import GREY, chunk, deep_samples, picture, png, save
from upscaled.image.decode import decode_file
from upscaled.image.encode import encode
from upscaled.image.metadata import Exif, write_credit
from upscaled.image.types import Credit

ARTIST, COPYRIGHT = 0x013B, 0x8298
SECRETS = ("Hauptstrasse 12", "51 deg 28 min", "serial 5550123", "jane@example.com")


def tagged_exif(chance: random.Random, orientation: int = 1) -> bytes:
    """An EXIF block as cameras write it: GPS, a serial number, a maker's note, a comment."""
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = SECRETS[0]
    exif[ARTIST], exif[COPYRIGHT] = "Ann Example", "(c) Ann Example"
    exif[0x011A], exif[0x011B], exif[0x0128] = 300.0, 300.0, 2
    details = exif.get_ifd(0x8769)
    details[0xA431], details[0x9286] = SECRETS[2], SECRETS[3].encode()
    details[0x927C] = SECRETS[1].encode() * chance.randint(1, 40)
    place = exif.get_ifd(0x8825)
    place[1], place[2] = "N", (51.0, 28.0, float(chance.randint(0, 59)))
    place[29] = "2026:11:22"
    return exif.tobytes()


def tagged_file(number: int) -> bytes:
    """One of fifty files with all that a camera or a program leaves in them, in various forms."""
    chance = random.Random(number)
    kind = ("JPEG", "PNG", "WEBP")[number % 3]
    channels = 4 if number % 2 and kind != "JPEG" else 3
    xmp = f"<x:xmpmeta><gps>{SECRETS[1]}</gps><dc>{SECRETS[3]}</dc></x:xmpmeta>".encode()
    options: dict[str, object] = {"exif": tagged_exif(chance, number % 8 + 1), "xmp": xmp}
    if kind == "JPEG":
        options["comment"] = SECRETS[number % 4]
        options["progressive"] = chance.random() < 0.5
    if kind == "PNG":
        texts = PngInfo()
        texts.add_text("Comment", SECRETS[0], zip=chance.random() < 0.5)
        texts.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options["pnginfo"] = texts
    source = save(picture(64, 80, channels), kind, **options)
    if kind == "JPEG":  # Photoshop's block, with a caption and a thumbnail
        block = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + SECRETS[0].encode()
        source = source[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + source[2:]
    return source


@pytest.mark.parametrize("is_kept", [False, True])
def test_of_fifty_tagged_files_nothing_goes_on_but_resolution_and_credit(is_kept: bool) -> None:
    for number in range(50):
        source = tagged_file(number)
        assert any(secret.encode() in source for secret in SECRETS), number
        image = decode_file(source)
        assert image.dpi == pytest.approx((300, 300)), number
        assert image.credit == Credit("Ann Example", "(c) Ann Example"), number

        data, _ = encode(image if is_kept else replace(image, credit=None), jpeg_quality=90)

        for word in (*SECRETS, "xmpmeta", "8BIM", "2026:11:22", "GPS"):
            assert word.encode() not in data, (number, word)
        assert (b"Ann Example" in data) == is_kept, number
        again = decode_file(data)
        assert again.dpi == pytest.approx((300, 300), abs=0.02), number
        assert (again.credit == image.credit) == is_kept, number


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_formats_own_resolution_counts_before_exifs(kind: str) -> None:
    exif = PillowImage.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 72.0, 72.0, 2

    assert decode_file(save(picture(), kind, dpi=(240, 240), exif=exif)).dpi == pytest.approx(
        (240, 240), abs=0.02
    )


@pytest.mark.parametrize(("unit", "dpi"), [(2, (72.0, 36.0)), (3, (182.88, 91.44)), (1, None)])
def test_exifs_resolution_is_in_inches_or_centimetres(
    unit: int, dpi: tuple[float, float] | None
) -> None:
    exif = PillowImage.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 72.0, 36.0, unit

    found = decode_file(save(picture(), "WEBP", exif=exif.tobytes())).dpi

    assert found == (None if dpi is None else pytest.approx(dpi))


def test_turning_upright_turns_the_resolution() -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6

    assert decode_file(save(picture(), "JPEG", dpi=(300, 150), exif=exif)).dpi == (150, 300)


@pytest.mark.parametrize("per_m", [(0, 0), (0, 3000), (2**32 - 1, 2**32 - 1)])
def test_a_senseless_resolution_is_none(per_m: tuple[int, int]) -> None:
    phys = chunk(b"pHYs", struct.pack(">IIB", *per_m, 1))

    assert decode_file(png(deep_samples(1, 8), 8, GREY, before=phys)).dpi is None


def test_a_file_that_says_nothing_has_neither() -> None:
    image = decode_file(save(picture(), "PNG"))

    assert (image.dpi, image.credit) == (None, None)


@pytest.mark.parametrize("text", ["a", "abc", "abcd", "Ann", "Ünï ©", "x" * 4000])
def test_texts_come_back_as_they_were_written(text: str) -> None:
    exif = Exif(write_credit(Credit(artist=text, copyright=text[::-1])))

    assert exif.text(ARTIST) == text
    assert exif.text(COPYRIGHT) == text[::-1]


def test_a_broken_block_never_raises() -> None:
    whole = tagged_exif(random.Random(0))
    chance = random.Random(1)
    for length in range(0, len(whole), 3):
        read_all(Exif(whole[:length]))
    for _ in range(1500):
        broken = bytearray(whole)
        for _ in range(4):
            broken[chance.randrange(min(160, len(broken)))] = chance.randrange(256)
        read_all(Exif(bytes(broken)))


def read_all(exif: Exif) -> None:
    for tag in (0x0112, 0x011A, 0x0128, ARTIST, COPYRIGHT):
        exif.whole(tag)
        exif.ratio(tag)
        exif.text(tag)
