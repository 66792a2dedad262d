import shutil
import subprocess
import threading
import time
from concurrent.futures import wait
from contextlib import suppress
from io import BytesIO

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from tests.service.image.samples import encode, picture, save, srgb_profile
from tests.service.image.sinks import KeptFile, Unreachable
from upscaled.image.decode import decode_file
from upscaled.image.encode import Encoder, OverlappedEncoder
from upscaled.image.formats.jpeg.writer import JpegWriter
from upscaled.image.formats.png.structure import iterate_chunks
from upscaled.image.formats.table import sniff
from upscaled.image.output import decide_output
from upscaled.image.types import Credit, Image


def with_alpha() -> Image:
    pixels = picture(channels=4)
    return Image(rgb=pixels[..., :3].copy(), alpha=pixels[..., 3].copy())


def test_an_opaque_image_is_jpeg_without_chroma_subsampling() -> None:
    data = encode(Image(picture()))
    with PillowImage.open(BytesIO(data)) as opened:
        assert opened.format == "JPEG"
        assert opened.size == (64, 48)
        factors = [layer[1:3] for layer in opened.layer]  # type: ignore[attr-defined]
    assert factors == [(1, 1)] * 3


def test_a_higher_jpeg_quality_makes_a_larger_file() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sizes = [len(encode(Image(noise), jpeg_quality=quality)) for quality in (1, 50, 95, 100)]
    assert sizes == sorted(set(sizes))


def test_a_png_with_a_profile_is_valid_to_libpng_and_holds_nothing_else() -> None:
    image = with_alpha()
    data = encode(Image(image.rgb, image.alpha, icc=srgb_profile()))
    names = [chunk.name for chunk in iterate_chunks(data)]
    assert names[:2] == [b"IHDR", b"iCCP"]
    assert set(names[2:-1]) == {b"IDAT"}
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert np.array_equal(pixels[..., 2::-1], image.rgb)


def test_the_longest_sides_are_encoded_exactly() -> None:
    for rgb in (np.zeros((6000, 1, 3), np.uint8), np.full((1, 6000, 3), 255, np.uint8)):
        for alpha in (None, np.zeros(rgb.shape[:2], np.uint8)):
            data = encode(Image(rgb, alpha))
            assert decode_file(data).rgb.shape == rgb.shape


def noise(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (height, width, channels), np.uint8)


SIDES = [(1, 1), (7, 9), (64, 8), (65, 17), (128, 64), (700, 33), (1200, 40)]


def whole_jpeg(rgb: NDArray[np.uint8], quality: int) -> bytes:
    """Encode an image in one piece, by Pillow."""
    return save(rgb, "JPEG", quality=quality, subsampling="4:4:4")


def by_pillow(data: bytes) -> NDArray[np.uint8]:
    with PillowImage.open(BytesIO(data)) as opened:
        return np.asarray(opened)


def by_opencv(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> NDArray[np.generic]:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    assert pixels is not None
    return pixels


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize(("height", "width"), SIDES)
def test_jpeg_strips_decode_to_what_one_piece_does(height: int, width: int, quality: int) -> None:
    rgb = noise(height, width)
    data = encode(Image(rgb), jpeg_quality=quality)
    whole = whole_jpeg(rgb, quality)
    assert np.array_equal(by_pillow(data), by_pillow(whole))
    assert np.array_equal(by_opencv(data), by_opencv(whole))


def test_jpeg_strips_are_a_sound_file_to_libjpegs_own_program() -> None:
    """Restart markers of all eight numbers, twice round."""
    if shutil.which("djpeg") is None:
        pytest.skip("djpeg is not installed")
    rgb = noise(64 * 18 + 5, 50)
    data = encode(Image(rgb, icc=srgb_profile(), dpi=(300, 300)))
    done = subprocess.run(["djpeg", "-strict"], input=data, capture_output=True, check=True)
    assert done.stderr == b""
    assert done.stdout.endswith(by_pillow(whole_jpeg(rgb, 95)).tobytes())


def test_decoders_notice_a_lost_strip_by_its_restart_marker() -> None:
    """This shows that decoders look at the restart markers."""
    rgb = noise(64 * 4, 50)
    data = encode(Image(rgb))
    second, third = (data.index(bytes((0xFF, 0xD0 + number))) for number in (0, 1))
    shorter = data[:second] + data[third:]
    try:
        pixels = by_pillow(shorter)
    except OSError:
        return
    assert not np.array_equal(pixels, by_pillow(data))


@pytest.mark.parametrize(
    ("has_alpha", "kind"), [(True, np.uint8), (True, np.uint16), (False, np.uint16)]
)
@pytest.mark.parametrize(("height", "width"), SIDES)
def test_png_strips_lose_nothing(
    height: int, width: int, has_alpha: bool, kind: type[np.unsignedinteger]
) -> None:
    highest = np.iinfo(kind).max + 1
    pixels = np.random.default_rng(1).integers(0, highest, (height, width, 4), kind)
    alpha = pixels[..., 3].copy() if has_alpha else None
    data = encode(Image(pixels[..., :3].copy(), alpha))
    assert sniff(data) == "PNG"
    read = by_opencv(data)
    assert read.dtype == kind
    assert np.array_equal(read[..., 2::-1], pixels[..., :3])
    assert not has_alpha or np.array_equal(read[..., 3], pixels[..., 3])
    with PillowImage.open(BytesIO(data)) as opened:
        opened.load()


@pytest.mark.parametrize("has_alpha", [False, True])
def test_rows_are_encoded_as_they_become_ready_and_never_before(has_alpha: bool) -> None:
    rgb = noise(500, 70)
    alpha = noise(500, 70)[..., 0].copy() if has_alpha else None
    canvas = Image(np.zeros_like(rgb), None if alpha is None else np.zeros_like(alpha))
    with Encoder(canvas, "PNG" if has_alpha else "JPEG", quality=95) as encoder:
        for ready in (0, 1, 63, 64, 65, 300, 300, 499):
            canvas.rgb[:ready] = rgb[:ready]
            if canvas.alpha is not None and alpha is not None:
                canvas.alpha[:ready] = alpha[:ready]
            encoder.advance(ready)
        canvas.rgb[:] = rgb
        if canvas.alpha is not None and alpha is not None:
            canvas.alpha[:] = alpha
        data = encoder.finish()
    assert data == encode(Image(rgb, alpha))


@pytest.mark.parametrize(("name", "early"), [("JPEG", 7), ("PNG", 8), ("WEBP", 0)])
def test_the_pieces_of_a_file_are_the_file_and_come_before_it_is_finished(
    name: str, early: int
) -> None:
    """Early are a piece for each strip but the last, and a PNG's head."""
    image = Image(noise(500, 70), dpi=(300, 300), icc=srgb_profile())
    with Encoder(image, name, quality=95) as encoder:
        file = encoder.finish()
    with Encoder(image, name, quality=95) as encoder:
        pieces = list(encoder.take_ready())
        assert pieces == []
        encoder.advance(499)
        deadline_s = time.monotonic() + 10
        while len(pieces) < early:
            assert time.monotonic() < deadline_s
            pieces += encoder.take_ready()
        assert not list(encoder.take_ready())
        pieces += encoder.take_rest()
    assert b"".join(pieces) == file


def test_what_compressing_raises_is_raised_where_pieces_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(JpegWriter, "compress", fail)
    with Encoder(Image(noise(64, 70)), "JPEG", quality=95) as encoder:
        encoder.advance(64)
        wait([encoder._strips[0]], 10)
        with pytest.raises(ZeroDivisionError):
            list(encoder.take_ready())


def test_a_file_that_is_begun_anew_is_passed_on_from_its_first_byte() -> None:
    first, second = Image(noise(300, 70)), Image(noise(300, 71))
    sink = KeptFile()
    output = decide_output(first, 1, keeps_depth=False, max_side_px=1000)
    with OverlappedEncoder(output, 95, sink) as encoder:
        encoder.advance(first, 300)
        deadline_s = time.monotonic() + 10
        while not sink.file:
            assert time.monotonic() < deadline_s
            encoder.advance(first, 300)
        encoder.advance(second, 100)
        image, rest = encoder.finish()
    assert (image, rest) == (second, b"")
    assert sink.file == encode(second)


def test_what_a_receiver_of_pieces_raises_ends_the_encoding() -> None:
    image = Image(noise(300, 70))
    output = decide_output(image, 1, keeps_depth=False, max_side_px=1000)
    before = set(threading.enumerate())
    with OverlappedEncoder(output, 95, Unreachable()) as encoder:
        with suppress(ConnectionError):  # where a strip is ready by then
            encoder.advance(image, 300)
        with pytest.raises(ConnectionError):
            encoder.finish()
    assert set(threading.enumerate()) <= before


def test_leaving_the_encoder_early_ends_its_threads() -> None:
    before = set(threading.enumerate())  # others may end meanwhile
    with Encoder(Image(noise(900, 900)), "JPEG", quality=95) as encoder:
        encoder.advance(900)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("length", [1, 65_519, 65_520, 200_000])
def test_a_profile_of_any_length_is_written_to_a_jpeg(length: int) -> None:
    icc = np.random.default_rng(2).bytes(length)
    data = encode(Image(picture(), icc=icc))
    with PillowImage.open(BytesIO(data)) as opened:
        assert opened.info["icc_profile"] == icc


@pytest.mark.parametrize("has_alpha", [False, True])
def test_resolution_profile_and_credit_are_written_and_nothing_else_of_exif(
    has_alpha: bool,
) -> None:
    image = with_alpha()
    credit = Credit(artist="Ann Möller", copyright="© 2026")
    alpha = image.alpha if has_alpha else None
    data = encode(Image(image.rgb, alpha, icc=srgb_profile(), dpi=(288.0, 600.0), credit=credit))
    with PillowImage.open(BytesIO(data)) as opened:
        opened.load()
        assert opened.info["icc_profile"] == srgb_profile()
        assert opened.info["dpi"] == pytest.approx((288, 600), abs=0.02)
        assert set(opened.getexif()) == {0x013B, 0x8298}
    assert decode_file(data).credit == credit


def test_36_megapixels_are_encoded_in_time() -> None:
    """A quarter of them, in a quarter of the time, by the processor's own clock: all threads."""
    rgb = np.asarray(
        cv2.resize(picture(300, 300), (3000, 3000), interpolation=cv2.INTER_CUBIC), dtype=np.uint8
    )
    alpha = np.full((3000, 3000), 255, np.uint8)
    alpha[:1000] = rgb[:1000, :, 0]
    for image, limit_s in ((Image(rgb), 0.5), (Image(rgb, alpha), 2.0)):
        times_s = []
        for _ in range(2):
            started = time.process_time()
            encode(image)
            times_s.append(time.process_time() - started)
        assert min(times_s) < limit_s / 4, image.alpha is None


def test_a_jpeg_of_a_transparent_image_lies_on_white() -> None:
    rgb = np.zeros((96, 64, 3), np.uint8)
    rgb[:] = (200, 0, 100)
    alpha = np.zeros((96, 64), np.uint8)
    alpha[32:64], alpha[64:] = 128, 255
    with Encoder(Image(rgb, alpha), "JPEG", quality=100) as encoder:
        pixels = by_pillow(encoder.finish()).astype(int)
    for row, colour in ((16, (255, 255, 255)), (48, (227, 127, 177)), (80, (200, 0, 100))):
        assert np.abs(pixels[row, 32] - colour).max() <= 1
