"""The key: request header `X-API-KEY`, any letter case, nothing else."""

from dataclasses import replace

from tests.conformance.table import AT_ONCE_S, KEY, Refused, Request, Row, Upscaled, form

LINE = (
    "key: request header X-API-KEY (any letter case), nothing else: no Bearer, no query parameter"
)
ABSENT = "401 invalid_auth_token: key missing, empty or unknown: the same body, API Token not found"
UNAUTHORISED = Refused("invalid_auth_token", within_s=AT_ONCE_S)


def with_headers(*headers: tuple[str, str]) -> Request:
    return replace(form().without_key(), headers=headers)


def in_query(name: str) -> Request:
    # The key under test never goes into a URL: a made-up one shows that queries are not read.
    return replace(form().without_key(), path=f"/v1/upscale?{name}=made-up")


KEYS = (
    Row("a key in X-API-KEY is taken", LINE, form(), Upscaled()),
    Row("a key in x-api-key is taken", LINE, with_headers(("x-api-key", KEY)), Upscaled()),
    Row("a key in X-Api-Key is taken", LINE, with_headers(("X-Api-Key", KEY)), Upscaled()),
    *(
        Row(
            f"white space around the key is none of it: {key!r}",
            LINE,
            with_headers(("X-API-KEY", key)),
            Upscaled(),
            "seen",
        )
        for key in (f"{KEY} ", f"{KEY}\t", f"  {KEY}", f" \t{KEY} \t")
    ),
    Row("no key is 401", ABSENT, form().without_key(), UNAUTHORISED),
    Row("an empty key is 401", ABSENT, with_headers(("X-API-KEY", "")), UNAUTHORISED),
    Row("a key of blanks is 401", ABSENT, with_headers(("X-API-KEY", " \t ")), UNAUTHORISED),
    Row("an unknown key is 401", ABSENT, with_headers(("X-API-KEY", "sk_unknown")), UNAUTHORISED),
    Row(
        "the key with a letter more is 401",
        ABSENT,
        with_headers(("X-API-KEY", KEY + "x")),
        UNAUTHORISED,
    ),
    Row(
        "a key of bytes outside ASCII is 401",
        ABSENT,
        with_headers(("X-API-KEY", "schl\u00fcssel\u00ff")),
        UNAUTHORISED,
        "ours",
    ),
    Row(
        "a key of 8000 letters is 401",
        ABSENT,
        with_headers(("X-API-KEY", "k" * 8000)),
        UNAUTHORISED,
    ),
    Row(
        "a Bearer token is no key",
        LINE,
        with_headers(("Authorization", f"Bearer {KEY}")),
        UNAUTHORISED,
    ),
    Row("a cookie is no key", LINE, with_headers(("Cookie", f"X-API-KEY={KEY}")), UNAUTHORISED),
    Row("X-Auth-Token is no key", LINE, with_headers(("X-Auth-Token", KEY)), UNAUTHORISED),
    Row("api_key in the query is no key", LINE, in_query("api_key"), UNAUTHORISED),
    Row("X-API-KEY in the query is no key", LINE, in_query("X-API-KEY"), UNAUTHORISED),
)
