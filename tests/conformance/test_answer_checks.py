"""The picture check itself: it distinguishes a right picture from a wrong one."""

import dataclasses

import pytest
from PIL import Image

from tests.conformance.answer_checks import check_image_reply, distance_from
from tests.conformance.drawing import drawing, encoded, with_alpha
from tests.conformance.pictures import PICTURES
from tests.conformance.raw_http import Reply

WRONG = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
)
TURNED = (
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)


def reply(image: Image.Image, kind: str = "JPEG") -> Reply:
    data = encoded(image, kind)
    media_type = {"JPEG": "image/jpeg", "PNG": "image/png"}[kind]
    headers = (("Content-Type", media_type), ("Content-Length", str(len(data))))
    return Reply(200, headers, data, 0.0, 0)


def test_the_same_picture_enlarged_is_right() -> None:
    check_image_reply(reply(drawing(80, 64).resize((160, 128))), PICTURES["photo"], 2)


@pytest.mark.parametrize("turn", WRONG)
def test_a_mirrored_picture_is_wrong(turn: Image.Transpose) -> None:
    with pytest.raises(AssertionError, match="levels off"):
        check_image_reply(reply(drawing(160, 128).transpose(turn)), PICTURES["photo"], 2)


@pytest.mark.parametrize("turn", TURNED)
def test_a_turned_picture_is_wrong(turn: Image.Transpose) -> None:
    picture = PICTURES["photo"]
    turned = drawing(128, 160).transpose(turn)
    assert distance_from(picture, turned) > 2 * (picture.tolerance or 0)


def test_swapped_colours_are_wrong() -> None:
    red, green, blue = drawing(160, 128).split()
    swapped = Image.merge("RGB", (blue, green, red))
    with pytest.raises(AssertionError, match="levels off"):
        check_image_reply(reply(swapped), PICTURES["photo"], 2)


def test_lost_transparency_is_wrong() -> None:
    opaque = with_alpha(160, 128, opaque=True)
    with pytest.raises(AssertionError, match="levels off"):
        check_image_reply(reply(opaque, "PNG"), PICTURES["rgba_png"], 2)


def test_a_picture_of_plain_grey_is_wrong() -> None:
    with pytest.raises(AssertionError, match="levels off"):
        check_image_reply(reply(Image.new("RGB", (160, 128), "grey")), PICTURES["photo"], 2)


def test_a_picture_one_pixel_too_large_is_wrong() -> None:
    with pytest.raises(AssertionError):
        check_image_reply(reply(drawing(161, 128)), PICTURES["photo"], 2)


def test_a_false_length_is_wrong() -> None:
    right = reply(drawing(160, 128))
    longer = (("Content-Type", "image/jpeg"), ("Content-Length", str(len(right.body) + 1)))
    with pytest.raises(AssertionError):
        check_image_reply(dataclasses.replace(right, headers=longer), PICTURES["photo"], 2)
