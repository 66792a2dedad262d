# ruff: noqa: E501 - a row of the table is a line
"""Other paths, other methods, and addresses that are refused without being fetched."""

from dataclasses import replace

from tests.conformance.table import (
    AT_ONCE_S,
    SOURCE,
    Part,
    Refused,
    Request,
    Row,
    Upscaled,
    form,
    get,
    json_body,
)

PATHS = "404 not_found: any other path; no framework default body (detail) ever leaks, on any path"
SLASH = "one slash behind /v1/upscale is the same path"
METHODS = "405 method_not_allowed: any other method, with Allow"
URLS = (
    "400 invalid_parameter: image_url of a bad scheme or syntax, unreachable, refused by policy (one "
    "fixed text for all of these)"
)
URI = "400 missing_parameter / invalid_parameter: a data: URI is no image"

OTHER_PATHS = (
    "/v1", "/v1/", "/v1/upscale//", "/v1/upscales", "/v2/upscale", "/V1/upscale", "/v1/upscale/x",
    "/v1/upscale%00", "/v1/%2e%2e/v1/upscale", "/%ff%fe", "//v1/upscale", "/favicon.icO", "/.env",
    "/public", "/public/result", "/public/result/", "/public/result/x.jpg",
    "/public/result/00000000-0000-4000-8000-000000000000.jpg",
    "/public/result/00000000-0000-4000-8000-000000000000",
    "/public/result/..%2f..%2fetc%2fpasswd", "/public/result/../../../etc/passwd",
    "/public/result/%2e%2e/%2e%2e/upscaled.db", "/public/result/" + "a" * 3000,
    "/public/result/a/b", "/v1/credits/", "/healthz/", "/docs/", "/redoc", "/docs/oauth2-redirect",
    "/openapi.yaml", "//", "/assets/", "/assets/../app.py", "/assets/%2e%2e/app.py", "/%",
    "/v1/upscale%20",
)  # fmt: skip
BAD_URLS = (
    ("of no scheme", "example.com/photo.jpg"),
    ("of words", "my photo"),
    ("of a path", "/etc/passwd"),
    ("that is ftp", "ftp://example.com/photo.jpg"),
    ("that is file", "file:///etc/passwd"),
    ("that is gopher", "gopher://example.com/1"),
    ("that is a data URI", "data:image/png;base64,iVBORw0KGgo="),
    ("that is javascript", "javascript:alert(1)"),
    ("without a host", "http:///photo.jpg"),
    ("of a scheme alone", "https://"),
    ("with a port of letters", "http://example.com:port/photo.jpg"),
    ("with port 99999", "http://example.com:99999/photo.jpg"),
    ("with an open bracket", "http://[::1/photo.jpg"),
    ("with a line break", "http://example.com/a\r\nX-Evil: 1"),
    ("with a NUL", "http://example.com/\x00"),
    ("of a host that does not exist", "http://unknown.invalid/photo.jpg"),
    ("of a label too long", "http://" + "a" * 64 + ".example.com/photo.jpg"),
    ("of 100 000 letters", "http://example.com/" + "a" * 100_000),
)
NO_TEXT = (
    ("a number", 5),
    ("a list", ["https://example.com/a.jpg"]),
    ("an object", {"url": 1}),
    ("true", True),
)

UNTAKEN = Refused("invalid_parameter", within_s=15)


def without_key(method: str, path: str) -> Request:
    return get(path, method).without_key()


def method_row(method: str, path: str, allow: str) -> Row:
    claim = f"{method} {path} is 405 and allows {allow}"
    refusal = Refused("method_not_allowed", allows=allow, within_s=AT_ONCE_S)
    return Row(claim, METHODS, without_key(method, path), refusal)


ERRORS = (
    *(
        Row(f"GET {path[:60]} is 404", PATHS, without_key("GET", path), Refused("not_found", within_s=AT_ONCE_S), "ours")
        for path in OTHER_PATHS
    ),
    Row("POST on another path is 404", PATHS, without_key("POST", "/v1/nothing"), Refused("not_found")),
    *(
        method_row(method, path, "POST")
        for path in ("/v1/upscale", "/v1/upscale/")
        for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
    ),
    Row("a form sent to /v1/upscale/ is taken", SLASH, replace(form(), path="/v1/upscale/"), Upscaled(), "ours"),
    Row("a JSON body sent to /v1/upscale/?x is taken", SLASH, replace(json_body({"image_url": SOURCE, "scale": 2}), path="/v1/upscale/?x"), Upscaled(), "ours"),
    Row("no key at /v1/upscale/ is 401", SLASH, without_key("POST", "/v1/upscale/"), Refused("invalid_auth_token"), "ours"),
    *(
        Row(f"JSON image_url {what} is refused", URLS, json_body({"image_url": url, "scale": 2}), UNTAKEN)
        for what, url in BAD_URLS
    ),
    *(
        Row(f"form image_url {what} is refused", URLS, form("", "2", Part("image_url", url)), UNTAKEN)
        for what, url in BAD_URLS[:8]
    ),
    *(
        Row(f"JSON image_url as {what} is refused", URLS, json_body({"image_url": value, "scale": 2}), UNTAKEN, "ours")
        for what, value in NO_TEXT
    ),
    Row("a lone surrogate in image_url is refused", URLS, json_body('{"image_url": "http://\\ud800/", "scale": 2}'), UNTAKEN, "ours"),
    Row("a lone surrogate in the scale is refused", URLS, json_body(f'{{"image_url": "{SOURCE}", "scale": "\\ud800"}}'), UNTAKEN, "ours"),
)  # fmt: skip
