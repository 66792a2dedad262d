# ruff: noqa: E501 - a row of the table is a line
"""Of two faults the cheaper one to find is answered. Rate: see test_rate.py; credit and fetch: see test_metering.py."""

from dataclasses import replace

from tests.conformance.rows.limits import declared
from tests.conformance.table import BOUNDARY, Part, Refused, Row, fields, form, get, json_body, raw

LINE = (
    "order of checks: path and method, key, rate, content type, declared length, body parse, missing, "
    "invalid, credit hold, fetch and size, format, header size, queue, work, charge"
)
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"

ORDER = tuple(
    Row(f"order: {claim}", LINE, request, Refused(code, within_s=5))
    for claim, request, code in (
        ("path before key", get("/v1/nothing").without_key(), "not_found"),
        ("method before key", get("/v1/upscale").without_key(), "method_not_allowed"),
        ("key before content type", raw(b"x", "text/plain").without_key(), "invalid_auth_token"),
        ("key before declared length", declared(FORM_TYPE).without_key(), "invalid_auth_token"),
        ("key before body", raw(b"{", "application/json").without_key(), "invalid_auth_token"),
        ("key before image", form("garbage").without_key(), "invalid_auth_token"),
        ("content type before declared length", declared("text/plain"), "unsupported_content_type"),
        ("content type before body", raw(b"{", "text/plain"), "unsupported_content_type"),
        ("declared length before body", declared("multipart/form-data"), "file_size_too_large"),
        ("body before missing", raw(b'{"scale": 2', "application/json"), "invalid_request_body"),
        (
            "body before invalid",
            raw(b'{"image_url": 5, "scale": 3', "application/json"),
            "invalid_request_body",
        ),
        ("a missing image before a bad scale", json_body({"scale": 3}), "missing_parameter"),
        (
            "a missing scale before a bad image_url",
            json_body({"image_url": "ftp://example.com/a.jpg"}),
            "missing_parameter",
        ),
        (
            "a missing scale before an image of text",
            fields(Part("image", "words")),
            "missing_parameter",
        ),
        ("a bad scale before an image of garbage", form("garbage", "3"), "invalid_parameter"),
        ("a bad scale before a side too small", form("both_63", "3"), "invalid_parameter"),
        ("a missing scale before an image of garbage", form("garbage", None), "missing_parameter"),
        ("a format before a side too small", form("tiny_gif"), "unsupported_image_format"),
        ("a size before a format", form("over_25_mb_of_garbage"), "file_size_too_large"),
        (
            "a chunked size before a format",
            replace(form("over_25_mb_of_garbage"), is_chunked=True),
            "file_size_too_large",
        ),
    )
)
