"""The two kinds of body, what of them is ignored, and how client libraries write them."""

from collections.abc import Callable
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
    Row(
        "a blank before the parameters of application/json changes nothing",
        JSON,
        json_body(PLAIN_JSON, "application/json ; x=y"),
        Upscaled(),
        "ours",
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
        form("photo", "2", Part("image_url", "https://unknown.invalid/photo.jpg")),
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

LINE_END = b"\r\n"
DELIMITER = f"--{BOUNDARY}".encode()
PREAMBLES = (
    ("an empty line", LINE_END),
    ("a sentence", b"This is a multi-part message in MIME format.\r\n"),
    ("headers", f'MIME-Version: 1.0\r\nContent-Type: x/y; boundary="{BOUNDARY}"\r\n\r\n'.encode()),
)
# What a part's type says of a text: Retrofit, OkHttp and Spring choose it by their converters.
TYPES = (
    *("text/plain; charset=utf-8", "application/json", "application/json; charset=UTF-8"),
    *("multipart/form-data", "application/octet-stream", "image/jpeg"),
)


def rewritten(rewrite: Callable[[bytes], bytes]) -> Request:
    return replace(form(), rewrite=rewrite)


def behind(text: bytes) -> Request:
    return rewritten(lambda body: text + body)


def substituted(old: bytes, new: bytes, count: int = -1) -> Request:
    return rewritten(lambda body: body.replace(old, new, count))


TYPED = (
    *(
        Row(
            f"a form's scale {text!r} typed {media_type} is taken",
            FORM,
            fields(Part("image", picture="photo"), Part("scale", text, media_type=media_type)),
            Upscaled(),
            "seen",
        )
        for media_type in TYPES
        for text in ("2", '"2"')
    ),
    *(
        Row(
            f"a form's image_url {shown} typed {media_type} is taken",
            FORM,
            form("", "2", Part("image_url", text, media_type=media_type)),
            Upscaled(),
            "seen",
        )
        for media_type in TYPES
        for shown, text in (("as it is", SOURCE), ("in quotes", f'"{SOURCE}"'))
    ),
    *(
        Row(
            f"a form's scale sent as a file that holds {text!r} is taken",
            FORM,
            fields(Part("image", picture="photo"), Part("scale", text, file_name="scale.txt")),
            Upscaled(),
            "seen",
        )
        for text in ("2", "2\n", "2\r\n")
    ),
    Row(
        "a form's image_url sent as a file is taken",
        FORM,
        form("", "2", Part("image_url", SOURCE + "\n", file_name="url.txt")),
        Upscaled(),
        "ours",
    ),
    *(
        Row(
            f"a form's scale {text!r} typed application/json is refused",
            FORM,
            fields(
                Part("image", picture="photo"), Part("scale", text, media_type="application/json")
            ),
            Refused("invalid_parameter", ("scale",)),
            "ours",
        )
        for text in ("3", '" 2 "', "true", "[2]", "{")
    ),
    *(
        Row(
            f"a file as the image typed {media_type} is taken",
            FORM,
            form("photo", "2", media_type=media_type, file_name="blob"),
            Upscaled(),
            "seen",
        )
        for media_type in ("application/json", "multipart/form-data", "text/plain; charset=utf-8")
    ),
)

MIME = (
    *(
        Row(f"a form behind {shown} is taken", FORM, behind(text), Upscaled(), "seen")
        for shown, text in PREAMBLES
    ),
    Row(
        "text behind a form is ignored",
        FORM,
        rewritten(lambda body: body + b"an epilogue\r\n"),
        Upscaled(),
        "seen",
    ),
    *(
        Row(
            f"folded headers of a part are read: {fold!r}",
            FORM,
            substituted(b"; ", b";\r\n" + fold),
            Upscaled(),
            "seen",
        )
        for fold in (b" ", b"\t")
    ),
    *(
        Row(
            f"white space behind a boundary is ignored: {padding!r}",
            FORM,
            substituted(DELIMITER + LINE_END, DELIMITER + padding + LINE_END),
            Upscaled(),
            "seen",
        )
        for padding in (b" ", b"\t", b"  \t")
    ),
    Row(
        "a form whose lines end in LF alone is taken",
        FORM,
        replace(
            form("", "2", Part("image_url", SOURCE)),
            rewrite=lambda body: body.replace(LINE_END, b"\n"),
        ),
        Upscaled(),
        "ours",
    ),
    *(
        Row(
            f"Content-Transfer-Encoding: {encoding} changes nothing",
            FORM,
            substituted(
                b"\r\n\r\n", f"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode(), 1
            ),
            Upscaled(),
            "seen",
        )
        for encoding in ("binary", "8bit", "7bit")
    ),
)

BODY = (*KINDS, *IGNORES, *TYPED, *MIME)
