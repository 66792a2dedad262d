# ruff: noqa: E501 - a row of the table is a line
"""Bodies that cannot be read, that lack something, or that are of another type."""

from dataclasses import replace

from tests.conformance.table import (
    AT_ONCE_S,
    BOUNDARY,
    SOURCE,
    Part,
    Refused,
    Request,
    Row,
    fields,
    form,
    json_body,
    raw,
)

BROKEN = (
    "400 invalid_request_body: empty body, broken JSON, JSON that is no object, broken or truncated "
    "multipart, missing boundary"
)
MISSING = (
    "400 missing_parameter: neither image nor image_url, or no scale; the text names what is missing. "
    "JSON with image as base64 or data: URI counts as no image"
)
INVALID = "400 invalid_parameter: image as a text part"
OTHER_TYPE = "400 unsupported_content_type: any other or no Content-Type"

NOT_READ = Refused("invalid_request_body", within_s=AT_ONCE_S)
DATA_URI = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="


def whole_form() -> bytes:
    lines = [f"--{BOUNDARY}", 'Content-Disposition: form-data; name="scale"', "", "2"]
    return "\r\n".join([*lines, f"--{BOUNDARY}--", ""]).encode()


def broken_json(claim: str, text: str | bytes) -> Row:
    body = text if isinstance(text, bytes) else text.encode()
    return Row(claim, BROKEN, raw(body, "application/json"), NOT_READ)


def broken_form(claim: str, body: bytes, content_type: str | None = None) -> Row:
    kind = content_type or f"multipart/form-data; boundary={BOUNDARY}"
    return Row(claim, BROKEN, raw(body, kind), NOT_READ)


UNREADABLES = (
    broken_json("an empty JSON body is unreadable", ""),
    broken_json("a JSON body of blanks is unreadable", "  \n"),
    broken_json(
        "half a JSON object is unreadable", '{"image_url": "https://example.com/a.jpg", "sc'
    ),
    broken_json("a form's fields are no JSON", "image_url=https://example.com/a.jpg&scale=2"),
    broken_json("a JSON array is unreadable", '["https://example.com/a.jpg", 2]'),
    broken_json("a JSON text is unreadable", '"https://example.com/a.jpg"'),
    broken_json("a JSON number is unreadable", "2"),
    broken_json("a JSON null is unreadable", "null"),
    broken_json("JSON of broken UTF-8 is unreadable", b'{"image_url": "\xff\xfe", "scale": 2}'),
    broken_json("JSON nested 100 000 deep is unreadable", "[" * 100_000),
    broken_json("JSON objects nested 50 000 deep are unreadable", '{"a":' * 50_000),
    broken_json("two JSON objects are unreadable", '{"scale": 2}{"scale": 4}'),
    broken_json("a JSON object with single quotes is unreadable", "{'scale': 2}"),
    broken_form("an empty form is unreadable", b""),
    broken_form("a form of garbage is unreadable", bytes(range(256)) * 8),
    broken_form(
        "a form without its last boundary is unreadable", whole_form()[: -len(BOUNDARY) - 6]
    ),
    broken_form("a form cut inside a part's head is unreadable", whole_form()[:40]),
    broken_form(
        "a form with another boundary is unreadable",
        whole_form(),
        "multipart/form-data; boundary=x",
    ),
    broken_form("a form without a boundary is unreadable", whole_form(), "multipart/form-data"),
    broken_form(
        "a form with an empty boundary is unreadable",
        whole_form(),
        "multipart/form-data; boundary=",
    ),
    broken_form("a JSON body sent as a form is unreadable", b'{"scale": 2}'),
    broken_form(
        "a part without a name is unreadable",
        f"--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\n2\r\n--{BOUNDARY}--\r\n".encode(),
    ),
)


def lacks(claim: str, request: Request, *naming: str) -> Row:
    return Row(claim, MISSING, request, Refused("missing_parameter", naming, within_s=AT_ONCE_S))


LACKING = (
    lacks("a form with neither image nor image_url names the image", form("", "2"), "image"),
    lacks("a form without a scale names the scale", form("photo", None), "scale"),
    lacks("a form with an empty scale names the scale", form("photo", ""), "scale"),
    lacks(
        "a form with a foreign field alone names the image",
        fields(Part("file", picture="photo"), Part("scale", "2")),
        "image",
    ),
    lacks("a JSON body without image_url names the image", json_body({"scale": 2}), "image"),
    lacks(
        "a JSON null image_url names the image", json_body({"image_url": None, "scale": 2}), "image"
    ),
    lacks("an empty JSON object names what is missing", json_body({}), "image"),
    lacks("a JSON body without a scale names the scale", json_body({"image_url": SOURCE}), "scale"),
    lacks(
        "a JSON null scale names the scale",
        json_body({"image_url": SOURCE, "scale": None}),
        "scale",
    ),
    lacks(
        "an empty JSON scale names the scale",
        json_body({"image_url": SOURCE, "scale": ""}),
        "scale",
    ),
    lacks(
        "a data URI as JSON image is no image", json_body({"image": DATA_URI, "scale": 2}), "image"
    ),
    lacks(
        "base64 as JSON image is no image", json_body({"image": DATA_URI[22:], "scale": 2}), "image"
    ),
)

# Names of other APIs: the text says under which one the field is expected.
MISNAMED = tuple(replace(row, mark="ours") for row in (
    *(
        lacks(f"a JSON body with {name} names image_url", json_body({name: SOURCE, "scale": 2}), name, "send image_url")
        for name in ("imageUrl", "imageURL", "url", "image", "file", "src")
    ),
    *(
        lacks(f"a form with the file as {name} names image", fields(Part(name, picture="photo"), Part("scale", "2")), name, "send image")
        for name in ("file", "Image", "image[]", "photo", "upload")
    ),
    *(
        lacks(f"a form with the URL as {name} names image_url", form("", "2", Part(name, SOURCE)), name, "send image_url")
        for name in ("imageUrl", "url", "file")
    ),
    lacks("a form with scaleFactor names scale", form("photo", None, Part("scaleFactor", "2")), "scaleFactor", "send scale"),
))  # fmt: skip

TEXT_IMAGE = tuple(
    Row(
        f"image as a text part of {what} is refused",
        INVALID,
        fields(Part("image", text), Part("scale", "2")),
        Refused("invalid_parameter"),
    )
    for what, text in (
        ("a URL", "https://example.com/photo.jpg"),
        ("a data URI", DATA_URI),
        ("words", "photo.jpg"),
    )
)

OTHER_TYPES = tuple(
    Row(f"Content-Type {shown} is not supported", OTHER_TYPE, raw(body, kind), Refused("unsupported_content_type", within_s=AT_ONCE_S))
    for shown, kind, body in (
        ("absent", None, b'{"scale": 2}'),
        ("absent and no body", None, b""),
        ("empty", "", b'{"scale": 2}'),
        ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded", b"scale=2"),
        ("text/plain", "text/plain", b'{"scale": 2}'),
        ("image/jpeg", "image/jpeg", b"\xff\xd8\xff\xe0"),
        ("application/octet-stream", "application/octet-stream", b"\xff\xd8\xff\xe0"),
        ("multipart/mixed", f"multipart/mixed; boundary={BOUNDARY}", whole_form()),
        ("application/jsonp", "application/jsonp", b'{"scale": 2}'),
        ("text/json", "text/json", b'{"scale": 2}'),
        ("application/vnd.api+json", "application/vnd.api+json", b'{"scale": 2}'),
        ("of two types", "application/json, text/plain", b'{"scale": 2}'),
        ("of nonsense", "nonsense", b'{"scale": 2}'),
        ("of a slash alone", "/", b'{"scale": 2}'),
    )
)  # fmt: skip

UNREADABLE = (*UNREADABLES, *LACKING, *MISNAMED, *TEXT_IMAGE, *OTHER_TYPES)
