import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.accept import parse_accept, wants_image

JSON = [
    None,
    "",
    " ",
    ",",
    "*/*",
    "application/json",
    "application/json, text/plain, */*",
    "text/html",
    "application/*",
    "image/*;q=0.5, application/json",
    "image/png;q=0.3, */*;q=0.3",
    "image/*;q=0",
    "image/png;q=0, image/jpeg;q=0.0, image/*;q=0.000",
    "image/*, application/json",
    "image/png, */*",
    "application/json;charset=utf-8, image/png;q=0.9",
    "application/json, */*;q=0.1, image/*;q=0.9",
]
IMAGE = [
    "image/*",
    "image/png",
    "image/jpeg",
    "image/webp",
    "IMAGE/*",
    "image/avif",
    "image/*;q=0.001",
    "image/*;Q=1.000",
    " image/png ,application/json;q=0.9",
    "image/png,,application/json;q=0.5,",
    "image/*, */*;q=0.8",
    "text/html,application/xhtml+xml,image/avif,image/webp,*/*;q=0.8",
    "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
    "application/json;q=0, */*",
    "application/json;q=0.1, */*;q=0.5",
    'image/png;note="a, b; q=0", application/json;q=0.5',
    "image/*;q=0, image/png",
]
# One illegal member: the header is ignored whole.
ILLEGAL = [
    "image/*, 'image/*'x/y/z",
    "image/*, 'image/*'",
    "image",
    "image/",
    "/png",
    "image/*, *",
    "*/png",
    "image/*;q=2",
    "image/*;q=1.001",
    "image/*;q=.5",
    "image/*;q=-1",
    "image/*;q=0.1234",
    "image/*;q=",
    "image/*;q=nan",
    "image/* application/json",
    "image /*",
    'image/png;a="open',
    "image/png, \u00e9",
]


@pytest.mark.parametrize("accept", JSON)
def test_json_where_no_image_range_weighs_more(accept: str | None) -> None:
    assert not wants_image(accept)


@pytest.mark.parametrize("accept", IMAGE)
def test_the_image_where_its_best_range_weighs_more_than_json(accept: str) -> None:
    assert wants_image(accept)


@pytest.mark.parametrize("accept", ILLEGAL)
def test_a_header_with_an_illegal_member_is_ignored_whole(accept: str) -> None:
    assert parse_accept(accept) == []
    assert not wants_image(accept)


def test_the_most_specific_range_counts_rather_than_the_heaviest() -> None:
    assert not wants_image("image/*;q=0.9, application/*;q=0.95, */*;q=0.1")
    assert wants_image("image/*;q=0.9, application/json;q=0.5, application/*;q=1")


@given(st.text(alphabet='image/*,;q=01.9 json"\\tx', max_size=80))
def test_any_text_is_answered(accept: str) -> None:
    assert wants_image(accept) in (True, False)


@pytest.mark.parametrize("repeated", [";", '"', "a/b;", ",", ' ; x="', "\\", "image/*;q=0.5, "])
def test_a_long_header_takes_no_time(repeated: str) -> None:
    started = time.process_time()
    wants_image("image/*;a=" + repeated * (60_000 // len(repeated)))
    assert time.process_time() - started < 1
