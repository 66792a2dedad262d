"""Choices of an output by header or field; without any every answer is the contract's."""

import io
from typing import Any

import pytest
import requests
from PIL import Image
from starlette.datastructures import Headers

from tests.service.api.answers import assert_error
from tests.service.api.pictures import picture
from tests.service.api.serving import MakeService, Service
from upscaled.api.request.choices import read_choices
from upscaled.errors import InvalidParameter
from upscaled.image.output import NO_CHOICE, OutputChoice

MEDIA_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
    "lossless": "image/png",
}


def read(headers: list[tuple[str, str]], **fields: object) -> OutputChoice:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    return read_choices(Headers(raw=raw), fields)[1]


@pytest.mark.parametrize("form", ["jpeg", "WebP", "AVIF"])
@pytest.mark.parametrize("quality", ["1", "100"])
def test_headers_and_fields_have_the_same_meaning(form: str, quality: str) -> None:
    expected = OutputChoice(form.lower(), int(quality))
    headers = [("X-Upscale-Format", form), ("X-Upscale-Quality", quality)]
    assert read(headers) == expected
    assert read([], x_upscale_format=form, x_upscale_quality=quality) == expected
    assert read([], x_upscale_format=form, x_upscale_quality=int(quality)) == expected
    assert read(headers, x_upscale_format=form, x_upscale_quality=int(quality)) == expected


@pytest.mark.parametrize(("header", "field"), [("jpeg", "JPEG"), ("WebP", "webp")])
@pytest.mark.parametrize(("digits", "number"), [("80", "080"), ("080", 80)])
def test_a_header_and_a_field_may_spell_one_value_differently(
    header: str, field: str, digits: str, number: object
) -> None:
    headers = [("X-Upscale-Format", header), ("X-Upscale-Quality", digits)]
    chosen = read(headers, x_upscale_format=field, x_upscale_quality=number)
    assert chosen == OutputChoice(header.lower(), 80)


@pytest.mark.parametrize(
    ("headers", "fields", "text"),
    [
        ({"Model": "a"}, {"x_upscale_model": "A"}, "X-Upscale-Model must be sent once"),
        ({"Format": "gif"}, {}, "X-Upscale-Format must be one of jpeg, png, webp, avif, lossless"),
        ({"Format": ""}, {}, "X-Upscale-Format must be one of"),
        ({}, {"x_upscale_format": ["png"]}, "X-Upscale-Format must be one of"),
        ({}, {"x_upscale_format": True}, "X-Upscale-Format must be one of"),
        ({}, {"x_upscale_format": b"x"}, "X-Upscale-Format must be one of"),
        ({"Quality": "0"}, {}, "X-Upscale-Quality must be a whole number from 1 to 100"),
        ({"Quality": "101"}, {}, "X-Upscale-Quality must be a whole number from 1 to 100"),
        ({"Quality": "90.0"}, {}, "X-Upscale-Quality must be a whole number"),
        ({"Quality": "-1"}, {}, "X-Upscale-Quality must be a whole number"),
        ({"Quality": "9" * 5000}, {}, "X-Upscale-Quality must be a whole number"),
        ({}, {"x_upscale_quality": True}, "X-Upscale-Quality must be a whole number"),
        ({}, {"x_upscale_quality": 90.0}, "X-Upscale-Quality must be a whole number"),
        ({"Max-Side": "0"}, {}, "X-Upscale-Max-Side must be a whole number from 1 to 6000"),
        ({"Width": "6001"}, {}, "X-Upscale-Width must be a whole number from 1 to 6000"),
        ({}, {"x_upscale_height": "1e3"}, "X-Upscale-Height must be a whole number from 1 to"),
        ({"Width": "9"}, {"x_upscale_width": 10}, "X-Upscale-Width must be sent once"),
        ({"Format": "png", "Quality": "90"}, {}, "X-Upscale-Quality: png has no quality"),
        ({"Format": "lossless", "Quality": "9"}, {}, "X-Upscale-Quality: lossless has no quality"),
        ({"Format": "png"}, {"x_upscale_format": "webp"}, "X-Upscale-Format must be sent once"),
        ({"Metadata": "all"}, {}, "X-Upscale-Metadata must be one of keep, keep-all"),
        ({"Metadata": ""}, {}, "X-Upscale-Metadata must be one of keep, keep-all"),
        ({}, {"x_upscale_metadata": True}, "X-Upscale-Metadata must be one of keep, keep-all"),
        (
            {"Metadata": "keep"},
            {"x_upscale_metadata": "keep-all"},
            "X-Upscale-Metadata must be sent",
        ),
        ({"Quality": "90"}, {"x_upscale_quality": 91}, "X-Upscale-Quality must be sent once"),
        ({"Model": "a"}, {"x_upscale_model": "b"}, "X-Upscale-Model must be sent once"),
        ({}, {"x_upscale_model": 5.5}, "X-Upscale-Model must be auto or"),
    ],
)
def test_other_values_are_refused(
    headers: dict[str, str], fields: dict[str, object], text: str
) -> None:
    with pytest.raises(InvalidParameter) as refused:
        read([(f"X-Upscale-{name}", value) for name, value in headers.items()], **fields)
    assert refused.value.public_text.startswith(text)


def test_a_header_sent_twice_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="X-Upscale-Format must be sent once"):
        read([("X-Upscale-Format", "png"), ("X-Upscale-Format", "png")])


@pytest.mark.parametrize("side_px", [1, 6000])
def test_sides_are_read_from_either_place(side_px: int) -> None:
    expected = OutputChoice(max_side_px=side_px, width_px=side_px, height_px=side_px)
    names = ("Max-Side", "Width", "Height")
    assert read([(f"X-Upscale-{name}", str(side_px)) for name in names]) == expected
    fields = {f"x_upscale_{name.lower().replace('-', '_')}": side_px for name in names}
    assert read([], **fields) == expected


def test_a_quality_without_a_format_applies_to_the_format_of_the_result() -> None:
    assert read([("X-Upscale-Quality", "80")]) == OutputChoice(quality=80)


def send(
    service: Service, place: str, image: bytes, accept: str = "*/*", **options: str
) -> requests.Response:
    """Send options (`format=`) as headers, as fields of a form or of a JSON body."""
    headers = service.headers | {"Accept": accept}
    fields = {f"x_upscale_{name}": value for name, value in options.items()}
    if place == "json":
        url = service.upload(image).json()["result_url"]
        return service.send_json({"image_url": url, "scale": 2, **fields}, headers=headers)
    if place == "form":
        return service.upload(image, headers=headers, data={"scale": "2"} | fields)
    headers |= {f"X-Upscale-{name}": value for name, value in options.items()}
    return service.upload(image, headers=headers)


@pytest.mark.parametrize("place", ["header", "form", "json"])
@pytest.mark.parametrize(("form", "media_type"), MEDIA_TYPES.items())
def test_a_result_of_a_chosen_format_is_delivered_as_what_it_is(
    service: Service, place: str, form: str, media_type: str
) -> None:
    for mode in ("RGB", "RGBA"):
        direct = send(service, place, picture(mode=mode), "image/*", format=form)
        url = send(service, place, picture(mode=mode), format=form).json()["result_url"]
        stored = requests.get(url, timeout=30)
        assert stored.content == direct.content
        for answer in (direct, stored, requests.head(url, timeout=30)):
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, media_type)
        with Image.open(io.BytesIO(direct.content)) as opened:
            assert opened.get_format_mimetype() == media_type


def test_what_was_chosen_reaches_the_executor(service: Service) -> None:
    send(service, "header", picture(), format="webp", quality="71")
    output = service.executor.requests[-1].output
    assert (output.format, output.quality) == ("WEBP", 71)


@pytest.mark.parametrize("place", ["header", "form", "json"])
@pytest.mark.parametrize("metadata", ["keep", "Keep-All"])
def test_a_choice_of_metadata_reaches_the_executor(
    service: Service, place: str, metadata: str
) -> None:
    send(service, place, picture(), metadata=metadata)
    assert service.executor.requests[-1].output.metadata == metadata.lower()


def test_a_field_names_the_model_as_the_header_does(service: Service) -> None:
    answer = send(service, "form", picture(), model="upscaled-x4")
    assert answer.headers["X-Upscale-Model"] == "upscaled-x4"
    refused = send(service, "form", picture(), model="no-such-model")
    assert_error(refused, 400, "invalid_parameter")


@pytest.mark.parametrize("place", ["header", "form", "json"])
def test_a_bad_choice_is_answered_in_the_contracts_words(service: Service, place: str) -> None:
    answer = send(service, place, picture(), format="tiff")
    assert_error(answer, 400, "invalid_parameter")
    assert answer.json()["error"].startswith("X-Upscale-Format must be one of jpeg")


def test_a_missing_scale_is_reported_before_a_bad_choice(service: Service) -> None:
    answer = service.upload(data={"x_upscale_format": "tiff"})
    assert_error(answer, 400, "missing_parameter")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"format": "webp", "quality": "10", "max_side": "70", "width": "70", "metadata": "keep"},
        {"x_upscale_other": "webp", "x_upscale_format": "", "X_Upscale_Format": "webp"},
        {"x-upscale-format": "webp"},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_without_a_choice_every_byte_follows_the_contract(
    service: Service, fields: dict[str, str], mode: str
) -> None:
    headers = service.headers | {"Accept": "image/webp", "X-Upscale-Other": "1", "Format": "webp"}
    plain = service.upload(picture(mode=mode), headers=service.headers | {"Accept": "image/*"})
    answer = service.upload(picture(mode=mode), headers=headers, data={"scale": "2"} | fields)
    assert answer.content == plain.content
    assert answer.headers["Content-Type"] == {"RGB": "image/jpeg", "RGBA": "image/png"}[mode]
    assert service.executor.requests[-1].output == service.executor.requests[-2].output


def test_a_dry_run_answers_the_chosen_format_and_size(service: Service) -> None:
    headers: dict[str, Any] = service.headers | {"X-Upscale-Dry-Run": "true"}
    fields = {"scale": "2", "x_upscale_format": "avif", "x_upscale_max_side": "100"}
    answer = service.upload(headers=headers, data=fields).json()
    assert answer["media_type"] == "image/avif"
    assert (answer["width"], answer["height"]) == (100, 80)


@pytest.mark.parametrize("place", ["header", "form", "json"])
def test_a_chosen_size_is_that_of_the_result(service: Service, place: str) -> None:
    name = "width" if place != "header" else "Width"
    answer = send(service, place, picture(), "image/*", **{name: "121"})
    with Image.open(io.BytesIO(answer.content)) as opened:
        assert opened.size == (121, 97)


def test_a_width_that_the_scale_does_not_reach_is_refused_and_not_charged(
    make_service: MakeService,
) -> None:
    service = make_service(metering=True, credits=1)
    refused = send(service, "header", picture(), Width="161")
    assert_error(refused, 400, "invalid_parameter")
    assert refused.json()["error"].startswith("The result at scale 2 is 160x128 pixels")
    assert send(service, "header", picture(), Width="160").status_code == 200


def test_no_choice_leaves_the_fingerprint_of_an_idempotency_key_as_it_was(service: Service) -> None:
    headers = service.headers | {"Idempotency-Key": "choices"}
    plain = service.upload(headers=headers)
    assert service.upload(headers=headers).json() == plain.json()
    for chosen in (
        {"X-Upscale-Format": "webp"},
        {"X-Upscale-Quality": "90"},
        {"X-Upscale-Metadata": "keep"},
    ):
        assert_error(service.upload(headers=headers | chosen), 400, "invalid_parameter")
    named = service.headers | {"Idempotency-Key": "webp", "X-Upscale-Format": "webp"}
    first, second = service.upload(headers=named), service.upload(headers=named)
    assert first.json() == second.json()
    assert first.json()["result_url"].endswith(".webp")
    assert NO_CHOICE.changes() == {}
