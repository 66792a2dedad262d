"""The two kinds of body, and what of them is ignored."""

from dataclasses import replace

from tests.conformance.table import (
    BOUNDARY,
    SOURCE,
    Part,
    Refused,
    Request,
    Row,
    Upscaled,
    fields,
    form,
    json_body,
)

JSON = "JSON body: Content-Type application/json (parameters and any letter case): image_url, scale"
FORM = "form body: multipart/form-data: image (file) or image_url, scale. Both given: image wins"
IGNORED = "unknown fields, query strings: ignored"

PLAIN_JSON = {"image_url": SOURCE, "scale": 2}


def other_form_type(content_type: str) -> Request:
    return replace(form(), content_type=content_type)


KINDS = (
    Row("a JSON body is taken", JSON, json_body(PLAIN_JSON), Upscaled()),
    Row(
        "application/json with a charset is JSON",
        JSON,
        json_body(PLAIN_JSON, "application/json; charset=utf-8"),
        Upscaled(),
    ),
    Row(
        "Application/JSON;charset=UTF-8 is JSON",
        JSON,
        json_body(PLAIN_JSON, "Application/JSON;charset=UTF-8"),
        Upscaled(),
    ),
    Row("a form with a file is taken", FORM, form(), Upscaled()),
    Row(
        "a form with image_url is taken", FORM, form("", "2", Part("image_url", SOURCE)), Upscaled()
    ),
    Row(
        "a form with the scale first is taken",
        FORM,
        fields(Part("scale", "2"), Part("image", picture="photo")),
        Upscaled(),
    ),
    Row(
        "Multipart/Form-Data is a form",
        FORM,
        other_form_type(f"Multipart/Form-Data; Boundary={BOUNDARY}"),
        Upscaled(),
    ),
    Row(
        "a quoted boundary is understood",
        FORM,
        other_form_type(f'multipart/form-data; boundary="{BOUNDARY}"'),
        Upscaled(),
        "seen",
    ),
    Row("a chunked form is taken", FORM, replace(form(), is_chunked=True), Upscaled(), "seen"),
    Row(
        "a chunked JSON body is taken",
        JSON,
        replace(json_body(PLAIN_JSON), is_chunked=True),
        Upscaled(),
        "seen",
    ),
    Row(
        "of image and image_url the image wins",
        FORM,
        form("photo", "2", Part("image_url", "https://nobody.invalid/photo.jpg")),
        Upscaled(),
    ),
)

IGNORES = (
    Row(
        "an unknown form field is ignored",
        IGNORED,
        form("photo", "2", Part("mode", "fast")),
        Upscaled(),
        "seen",
    ),
    Row(
        "format=png does not change a form's output",
        IGNORED,
        form("photo", "2", Part("format", "png")),
        Upscaled(),
        "seen",
    ),
    Row(
        "format=png does not change a JSON body's output",
        IGNORED,
        json_body({**PLAIN_JSON, "format": "png"}),
        Upscaled(),
        "seen",
    ),
    Row(
        "an unknown file part is ignored",
        IGNORED,
        form("photo", "2", Part("mask", picture="png")),
        Upscaled(),
        "seen",
    ),
    Row(
        "a query string is ignored",
        IGNORED,
        replace(form(), path="/v1/upscale?scale=4&format=png"),
        Upscaled(),
        "seen",
    ),
    Row(
        "a scale in the query is no scale",
        IGNORED,
        replace(form("photo", None), path="/v1/upscale?scale=2"),
        Refused("missing_parameter", ("scale",)),
        "seen",
    ),
    Row(
        "an unknown JSON field is ignored",
        IGNORED,
        json_body({**PLAIN_JSON, "mode": [1]}),
        Upscaled(),
        "seen",
    ),
)


BODY = (*KINDS, *IGNORES)
