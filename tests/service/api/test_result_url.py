import pytest

from service.api.result_url import build_result_url, find_own_result

BASES = ["https://upscale.example.com/images", "http://127.0.0.1:8000"]


def test_what_is_built_is_found_again() -> None:
    url = build_result_url(BASES, "a.jpg")
    assert url == "https://upscale.example.com/images/public/result/a.jpg"
    assert find_own_result(url, BASES) == "a.jpg"


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
    assert find_own_result(url, BASES) == "a.jpg"


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
    assert find_own_result(url, BASES) is None
