from typing import Any

import pytest

from service.api.body.asked import Asked, Fields, check_fields, fields_of_json, fields_of_parts
from service.api.body.parts import Part
from service.errors import InvalidParameter, MissingParameter

URL = "https://example.com/a.jpg"


def text(name: str, value: str) -> Part:
    return Part(name, value.encode(), None, "utf-8")


def file(name: str, data: bytes, file_name: str = "a.png") -> Part:
    return Part(name, data, file_name, "utf-8")


def test_json_gives_a_url_and_never_an_image() -> None:
    fields = fields_of_json({"image": "data:image/png;base64,AA", "image_url": URL, "scale": 2})
    assert fields == Fields(None, URL, 2)


@pytest.mark.parametrize("empty", [None, ""])
def test_null_and_empty_are_absent(empty: Any) -> None:
    assert fields_of_json({"image_url": empty, "scale": empty}) == Fields(None, None, None)
    assert fields_of_json({"image_url": False, "scale": 0}) == Fields(None, False, 0)


def test_a_form_gives_a_file_and_texts() -> None:
    fields = fields_of_parts([text("scale", "2"), file("image", b"photo"), text("image_url", URL)])
    assert fields == Fields(b"photo", URL, "2")


def test_of_a_repeated_name_the_last_counts() -> None:
    parts = [file("image", b"one"), text("scale", "2"), file("image", b"two"), text("scale", "4")]
    assert fields_of_parts(parts) == Fields(b"two", None, "4")


def test_a_file_field_that_a_browser_left_empty_is_absent() -> None:
    assert fields_of_parts([file("image", b"", file_name="")]).image is None
    assert fields_of_parts([file("image", b"", file_name="a.png")]).image == b""
    assert fields_of_parts([file("image", b"photo", file_name="")]).image == b"photo"


def test_names_are_taken_letter_for_letter() -> None:
    parts = [file("Image", b"photo"), text("SCALE", "2"), text("image[]", "x")]
    assert fields_of_parts(parts) == Fields(None, None, None)


def test_the_image_wins_over_any_url() -> None:
    assert check_fields(Fields(b"photo", "nonsense", "4")) == Asked(b"photo", None, 4)
    assert check_fields(Fields(None, URL, 2)) == Asked(None, URL, 2)


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        (Fields(None, None, None), "image or image_url, scale"),
        (Fields(None, None, 3), "image or image_url"),
        (Fields("text", None, None), "scale"),
        (Fields(None, "nonsense", None), "scale"),
    ],
)
def test_missing_comes_before_invalid(fields: Fields, missing: str) -> None:
    with pytest.raises(MissingParameter) as refused:
        check_fields(fields)
    assert refused.value.public_text == f"Missing parameter: {missing}"


@pytest.mark.parametrize(
    "fields",
    [Fields("text", None, 2), Fields("text", URL, 2), Fields(b"x", None, 3), Fields(None, 5, 2)],
)
def test_what_is_there_may_be_invalid(fields: Fields) -> None:
    with pytest.raises(InvalidParameter):
        check_fields(fields)
