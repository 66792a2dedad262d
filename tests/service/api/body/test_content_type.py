import pytest

from upscaled.api.body.content_type import BodyKind, choose_body_kind
from upscaled.errors import UnsupportedContentType


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        " application/json ",
        "application/json ; x=y",
    ],
)
def test_json_in_any_letter_case_and_with_parameters(content_type: str) -> None:
    assert choose_body_kind(content_type) is BodyKind.JSON


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data; boundary=x", "MULTIPART/Form-Data", "multipart/form-data"],
)
def test_multipart_with_or_without_its_boundary(content_type: str) -> None:
    assert choose_body_kind(content_type) is BodyKind.MULTIPART


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        ";",
        "application/x-www-form-urlencoded",
        "text/plain",
        "text/json",
        "image/jpeg",
        "application/jsonx",
        "application/vnd.api+json",
        "application/json, text/plain",
        "multipart/mixed; boundary=x",
        "application/octet-stream",
        "json",
    ],
)
def test_anything_else_is_unsupported(content_type: str | None) -> None:
    with pytest.raises(UnsupportedContentType):
        choose_body_kind(content_type)
