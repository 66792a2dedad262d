# ruff: noqa: E501 - a row of the table is a line
"""The image itself is the answer only by the Accept header, and never for an error."""

from tests.conformance.table import Refused, Row, Upscaled, form

JSON_WHEN = "Accept: absent, */*, application/json, text/plain, */*: JSON"
IMAGE_WHEN = (
    "Accept: image/*, image/png, image/jpeg, image/webp: the image, in the alpha rule's format"
)
WEIGHED = (
    "Accept mixed or weighted: RFC 9110; binary only when the best image range weighs more than "
    "JSON's; a tie is JSON; q=0 refuses"
)
ILLEGAL = "Accept: a header with an illegal member is ignored whole: JSON"
NEVER_406 = "Accept: text/html alone: JSON, never 406"
ERRORS_JSON = "Accept: errors are always JSON"

JSON_ANSWERS = (
    (JSON_WHEN, "*/*"),
    (JSON_WHEN, "application/json"),
    (JSON_WHEN, "application/json, text/plain, */*"),
    (JSON_WHEN, ""),
    (WEIGHED, "image/*, application/json"),
    (WEIGHED, "application/json, image/png"),
    (WEIGHED, "image/png, */*"),
    (WEIGHED, "image/*;q=0.8, */*"),
    (WEIGHED, "image/*;q=0.5, application/json;q=0.5"),
    (WEIGHED, "image/png;q=0.5, application/json"),
    (WEIGHED, "image/*;q=0.5, application/*;q=0.6"),
    (WEIGHED, "image/*;q=0"),
    (WEIGHED, "image/png;q=0, image/*;q=0.0, */*"),
    (WEIGHED, "image/*;q=0.000, application/json;q=0.001"),
    (WEIGHED, "application/json;q=0"),
    (WEIGHED, "*/*;q=0"),
    (ILLEGAL, "image/*, 'image/*'"),
    (ILLEGAL, "image/png, image"),
    (ILLEGAL, "image/png, image/"),
    (ILLEGAL, "image/png, /png"),
    (ILLEGAL, "image/png;q=2"),
    (ILLEGAL, "image/png;q=-1"),
    (ILLEGAL, "image/png;q=high"),
    (ILLEGAL, "image/png, image/we bp"),
    (NEVER_406, "text/html"),
    (NEVER_406, "text/plain"),
    (NEVER_406, "video/mp4"),
    (NEVER_406, "text/html, */*;q=0.5"),
)
IMAGE_ANSWERS = (
    (IMAGE_WHEN, "image/*"),
    (IMAGE_WHEN, "image/jpeg"),
    (IMAGE_WHEN, "image/png"),
    (IMAGE_WHEN, "image/webp"),
    (IMAGE_WHEN, "IMAGE/PNG"),
    (IMAGE_WHEN, "image/avif"),
    (WEIGHED, "image/png, image/jpeg"),
    (WEIGHED, "image/*;q=0.5"),
    (WEIGHED, "image/*;q=0.001"),
    (WEIGHED, "image/*, */*;q=0.8"),
    (WEIGHED, "image/png, application/json;q=0.9"),
    (WEIGHED, "application/json;q=0.9,image/png"),
    (WEIGHED, "image/png, application/json;q=0"),
    (WEIGHED, "image/png;q=0.3, image/jpeg;q=0.9, application/json;q=0.5"),
    (WEIGHED, "application/json;q=0.2, */*;q=0.9, image/*;q=0.5"),
    (WEIGHED, "application/*;q=0.9, image/*;q=0.95"),
    (WEIGHED, "image/png ; q=0.9 , text/html"),
    (WEIGHED, "image/png;Q=0.9, application/json;q=0.8"),
    (WEIGHED, 'image/png;note="a, b", application/json;q=0.5'),
    (WEIGHED, ", image/png"),
    (WEIGHED, "text/html, image/avif, image/webp, image/apng, */*;q=0.8"),
)

ACCEPT = (
    Row("without Accept the answer is JSON", JSON_WHEN, form(), Upscaled()),
    *(
        Row(f"Accept {text!r} is answered JSON", line, form().plus(("Accept", text)), Upscaled(), "seen")
        for line, text in JSON_ANSWERS
    ),
    *(
        Row(
            f"Accept {text!r} is answered the image",
            line,
            form().plus(("Accept", text)),
            Upscaled(is_binary=True),
        )
        for line, text in IMAGE_ANSWERS
    ),
    Row(
        "two Accept lines are one list",
        WEIGHED,
        form().plus(("Accept", "application/json;q=0.5"), ("Accept", "image/png")),
        Upscaled(is_binary=True),
        "ours",
    ),
    Row(
        "image/jpeg never turns a picture with alpha into JPEG",
        IMAGE_WHEN,
        form("rgba_png").plus(("Accept", "image/jpeg")),
        Upscaled(is_binary=True),
        "ours",
    ),
    Row(
        "image/png never turns a picture without alpha into PNG",
        IMAGE_WHEN,
        form("png").plus(("Accept", "image/png")),
        Upscaled(is_binary=True),
        "ours",
    ),
    *(
        Row(f"a refusal under Accept {text} is JSON", ERRORS_JSON, form("garbage").plus(("Accept", text)), Refused("malformed_image"))
        for text in ("image/*", "image/png", "text/html")
    ),
    Row(
        "a refused key under Accept image/png is JSON",
        ERRORS_JSON,
        form().without_key().plus(("Accept", "image/png")),
        Refused("invalid_auth_token"),
    ),
)  # fmt: skip
