from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageCms

from service.image.decode import decode
from service.image.encode import encode
from service.image.png_chunks import iterate_chunks
from service.image.types import Image
from tests.service.image.samples import exif_with_orientation, picture, save


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def with_alpha() -> Image:
    pixels = picture(channels=4)
    return Image(rgb=pixels[..., :3].copy(), alpha=pixels[..., 3].copy())


def test_an_opaque_image_is_jpeg_without_chroma_subsampling() -> None:
    data, media_type = encode(Image(picture()), jpeg_quality=95)

    assert media_type == "image/jpeg"
    with PillowImage.open(BytesIO(data)) as opened:
        assert opened.format == "JPEG"
        assert opened.size == (64, 48)
        factors = [layer[1:3] for layer in opened.layer]  # type: ignore[attr-defined]
    assert factors == [(1, 1)] * 3


def test_alpha_makes_it_png_and_nothing_is_lost() -> None:
    image = with_alpha()

    data, media_type = encode(image, jpeg_quality=1)

    assert media_type == "image/png"
    with PillowImage.open(BytesIO(data)) as opened:
        assert opened.mode == "RGBA"
        assert np.array_equal(np.asarray(opened)[..., :3], image.rgb)
        assert image.alpha is not None
        assert np.array_equal(np.asarray(opened)[..., 3], image.alpha)


def test_an_opaque_alpha_plane_is_still_png() -> None:
    image = Image(picture(), alpha=np.full((48, 64), 255, np.uint8))

    assert encode(image, jpeg_quality=95)[1] == "image/png"


def test_quality_is_heeded() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    sizes = [len(encode(Image(noise), jpeg_quality=quality)[0]) for quality in (1, 50, 95, 100)]

    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("has_alpha", [False, True])
def test_the_profile_is_embedded_byte_for_byte(has_alpha: bool) -> None:
    image = with_alpha()
    alpha = image.alpha if has_alpha else None

    data, _ = encode(Image(image.rgb, alpha, icc=profile()), jpeg_quality=95)

    with PillowImage.open(BytesIO(data)) as opened:
        opened.load()
        assert opened.info["icc_profile"] == profile()
    assert decode(data).icc == profile()


def test_a_png_with_a_profile_is_one_that_libpng_takes_and_holds_nothing_else() -> None:
    image = with_alpha()

    data, _ = encode(Image(image.rgb, image.alpha, icc=profile()), jpeg_quality=95)

    names = [chunk.name for chunk in iterate_chunks(data)]
    assert names[:2] == [b"IHDR", b"iCCP"]
    assert set(names[2:-1]) == {b"IDAT"}
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert np.array_equal(pixels[..., 2::-1], image.rgb)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_nothing_a_camera_or_a_program_wrote_reaches_the_output(kind: str) -> None:
    secret = b"51.4778N-0.0014W"
    exif = exif_with_orientation(6) + secret
    comment = {"JPEG": {"comment": secret}}.get(kind, {})
    source = save(picture(), kind, exif=exif, xmp=b"<x>" + secret + b"</x>", **comment)
    assert secret in source

    for alpha in (None, np.full((64, 48), 255, np.uint8)):
        data, _ = encode(Image(decode(source).rgb, alpha), jpeg_quality=95)
        assert secret not in data
        assert b"Exif" not in data
        assert b"eXIf" not in data


def test_the_longest_sides_are_encoded_exactly() -> None:
    for rgb in (np.zeros((6000, 1, 3), np.uint8), np.full((1, 6000, 3), 255, np.uint8)):
        for alpha in (None, np.zeros(rgb.shape[:2], np.uint8)):
            data, _ = encode(Image(rgb, alpha), jpeg_quality=95)
            assert decode(data).rgb.shape == rgb.shape
