import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.result_url import build_result_url, find_own_result
from service.api.source.url import UnusableUrl, check_source_url, parse_url

BASES = ["https://upscale.example.com/images", "http://127.0.0.1:8000"]


def test_what_is_built_is_found_again() -> None:
    url = build_result_url(BASES, "a.jpg")
    assert url == "https://upscale.example.com/images/public/result/a.jpg"
    assert find_own_result(parse_url(url), BASES) == "a.jpg"


@pytest.mark.parametrize(
    "url",
    [
        "https://upscale.example.com:443/images/public/result/a.jpg",
        "HTTPS://Upscale.Example.COM/images/public/result/a.jpg",
        "http://127.0.0.1:8000/public/result/a.jpg",
        "http://127.0.0.1:8000/public/result/a.jpg?download=1#x",
    ],
)
def test_every_spelling_of_our_own(url: str) -> None:
    assert find_own_result(parse_url(url), BASES) == "a.jpg"


@pytest.mark.parametrize(
    "url",
    [
        "http://upscale.example.com/images/public/result/a.jpg",
        "https://upscale.example.com/public/result/a.jpg",
        "https://upscale.example.com:8443/images/public/result/a.jpg",
        "https://upscale.example.com.evil.example/images/public/result/a.jpg",
        "https://evil.example/images/public/result/a.jpg",
        "http://127.0.0.1/public/result/a.jpg",
        "http://127.0.0.1:8000/public/results/a.jpg",
        "http://127.0.0.1:8000/other",
    ],
)
def test_others_are_not_ours(url: str) -> None:
    assert find_own_result(parse_url(url), BASES) is None


@given(st.text(alphabet="htps:/[]@.:%80１a1\\?# -é", max_size=40))
def test_whatever_passes_for_a_url_is_compared(tail: str) -> None:
    for url in (tail, f"http://{tail}", f"https://upscale.example.com{tail}"):
        with contextlib.suppress(UnusableUrl):
            find_own_result(parse_url(check_source_url(url)), BASES)
