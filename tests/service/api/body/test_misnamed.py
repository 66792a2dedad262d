import pytest

from upscaled.api.body.fields import UnknownField
from upscaled.api.body.misnamed import name_expected


def expected(*unknown: UnknownField, image: bool = True, scale: bool = True) -> str:
    return name_expected(unknown, is_image_missing=image, is_scale_missing=scale)


@pytest.mark.parametrize(
    "name",
    [
        *("imageUrl", "imageURL", "image-url", "ImageUrl", "Image_Url", "image url", "url", "URL"),
        *("image_urls", "img_url", "src", "source", "uri", "link", "fileUrl", "input", "input_url"),
        *(
            "image",
            "Image",
            "image[]",
            "file",
            "photo",
            "picture",
            "data",
            "base64",
            "image_base64",
        ),
    ],
)
def test_a_text_under_another_name_belongs_into_image_url(name: str) -> None:
    assert expected(UnknownField(name)) == f"; instead of {name} send image_url"


@pytest.mark.parametrize(
    "name",
    [
        *("file", "files", "File", "files[]", "files[0]", "upload", "photo", "img", "image[]"),
        *("image_file", "imageFile", "Image", "picture", "data", "media", "url", "input"),
    ],
)
def test_a_file_under_another_name_belongs_into_image(name: str) -> None:
    want = "" if name == "files[0]" else f"; instead of {name} send image"
    assert expected(UnknownField(name, is_file=True)) == want


@pytest.mark.parametrize(
    "name", ["Scale", "scaleFactor", "scale_factor", "factor", "zoom", "upscale", "upscale-factor"]
)
def test_a_scale_under_another_name_belongs_into_scale(name: str) -> None:
    assert expected(UnknownField(name)) == f"; instead of {name} send scale"


def test_only_what_is_missing_is_named_and_each_once() -> None:
    fields = [UnknownField(name) for name in ("url", "src", "zoom", "factor", "mode", "format")]
    both = "; instead of url send image_url; instead of zoom send scale"
    assert expected(*fields) == both
    assert expected(*fields, image=False) == "; instead of zoom send scale"
    assert expected(*fields, scale=False) == "; instead of url send image_url"
    assert expected(*fields, image=False, scale=False) == ""


@pytest.mark.parametrize(
    "name",
    ["", "mode", "x" * 33, "url\r\n", "<url>", "u\u0155l", "url" + "_" * 30, "{url}", "u/rl"],
)
def test_no_other_name_is_repeated(name: str) -> None:
    assert expected(UnknownField(name)) == ""


def test_the_longest_text_stays_short() -> None:
    longest = "input_image_url" + "_" * 17, "upscale_factor" + "_" * 18
    fields = [UnknownField(name) for name in longest]
    assert len("Missing parameter: image or image_url, scale" + expected(*fields)) <= 200
