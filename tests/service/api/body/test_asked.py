import pytest

from upscaled.api.body.asked import Asked, check_fields
from upscaled.api.body.fields import Fields, UnknownField
from upscaled.errors import InvalidParameter, MissingParameter

URL = "https://example.com/a.jpg"


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


def test_what_is_missing_is_named_by_the_name_it_came_under_too() -> None:
    unknown = (UnknownField("file", is_file=True), UnknownField("factor"))
    with pytest.raises(MissingParameter) as refused:
        check_fields(Fields(None, None, None, unknown))
    assert refused.value.public_text == (
        "Missing parameter: image or image_url, scale"
        "; instead of file send image; instead of factor send scale"
    )
    assert check_fields(Fields(b"photo", None, 2, unknown)) == Asked(b"photo", None, 2)
    with pytest.raises(InvalidParameter):
        check_fields(Fields(None, b"x" * 100_000, 2))
