import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upscaled.api.result_url import find_result_name
from upscaled.fetch.url import UnusableUrl, check_source_url, parse_url


@pytest.mark.parametrize(
    "url",
    [
        "https://upscale.example.com/public/result/a.jpg",
        "https://upscale.example.com/images/public/result/a.jpg",
        "http://127.0.0.1:8000/public/result/a.jpg?download=1#x",
        "http://x/public/result/b.jpg/public/result/a.jpg",
    ],
)
def test_a_result_is_known_by_its_path_alone(url: str) -> None:
    assert find_result_name(parse_url(url)) == "a.jpg"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/public/results/a.jpg",
        "http://127.0.0.1:8000/public/result",
        "http://127.0.0.1:8000/other",
        "http://127.0.0.1:8000/?/public/result/a.jpg",
        "http://127.0.0.1:8000",
    ],
)
def test_any_other_path_is_none(url: str) -> None:
    assert find_result_name(parse_url(url)) is None


@given(st.text(alphabet="htps:/[]@.:%80１a1\\?# -é", max_size=40))
def test_whatever_passes_for_a_url_is_looked_at(tail: str) -> None:
    for url in (tail, f"http://{tail}", f"https://upscale.example.com{tail}"):
        with contextlib.suppress(UnusableUrl):
            find_result_name(parse_url(check_source_url(url)))
