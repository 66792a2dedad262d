# ruff: noqa: E501 - a row of the table is a line
"""Both sides of every limit, and the size of the output."""

from dataclasses import replace

from tests.conformance.pictures import MAX_FILE_BYTES, MEGABYTE
from tests.conformance.table import AT_ONCE_S, BOUNDARY, Refused, Request, Row, Upscaled, form, raw

SIDES = "input limits: each side at least 64 px; at most 3000 px at 2x, 1500 px at 4x"
SMALL = "400 invalid_parameter: either side under 64 px (the text names 64x64)"
HIGH = "400 resolution_too_high: over the side limits, judged from the header before any pixel is decoded"
FILE = "input limits: file at most 25 MB"
LARGE = "400 file_size_too_large: over 25 MB, whether declared, chunked or in one part; reading stops early"
SIZE = "output size: exactly width x scale, height x scale"

TOO_SMALL = Refused("invalid_parameter", ("64x64",), within_s=AT_ONCE_S)
TOO_HIGH = Refused("resolution_too_high", within_s=AT_ONCE_S)
TOO_LARGE = Refused("file_size_too_large")


def declared(content_type: str, *headers: tuple[str, str]) -> Request:
    """A request that declares 100 MB and sends nothing: only the head can be checked."""
    request = replace(raw(b"", content_type), body=None)
    return request.plus(("Content-Length", "100000000"), *headers)


FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"

LIMITS = (
    Row("64x64 is taken", SIDES, form("side_64"), Upscaled()),
    Row("64x64 is taken at 4x", SIDES, form("side_64", "4"), Upscaled(4)),
    Row("63 px of width are refused", SMALL, form("width_63"), TOO_SMALL),
    Row("63 px of height are refused", SMALL, form("height_63"), TOO_SMALL),
    Row("63x63 is refused at 4x", SMALL, form("both_63", "4"), TOO_SMALL),
    Row("3000 px of width are taken at 2x", SIDES, form("wide_3000"), Upscaled()),
    Row("3000 px of height are taken at 2x", SIDES, form("tall_3000"), Upscaled(), is_slow=True),
    Row("3001 px of width are refused at 2x", HIGH, form("wide_3001"), TOO_HIGH),
    Row("3001 px of height are refused at 2x", HIGH, form("tall_3001"), TOO_HIGH),
    Row(
        "1500 px of width are taken at 4x", SIDES, form("wide_1500", "4"), Upscaled(4), is_slow=True
    ),
    Row("1500 px of height are taken at 4x", SIDES, form("tall_1500", "4"), Upscaled(4)),
    Row("1501 px of width are refused at 4x", HIGH, form("wide_1501", "4"), TOO_HIGH),
    Row("1501 px of height are refused at 4x", HIGH, form("tall_1501", "4"), TOO_HIGH),
    Row("1501 px of width are taken at 2x", SIDES, form("wide_1501"), Upscaled()),
    Row("1500x1500 is taken at 4x", SIDES, form("square_1500", "4"), Upscaled(4), is_slow=True),
    Row("3000x3000 is taken at 2x", SIDES, form("square_3000"), Upscaled(), is_slow=True),
    Row("a header of 30000x30000 is refused unread", HIGH, form("declares_30000"), TOO_HIGH),
    Row(
        "a header of 2147483647 squared is refused unread",
        HIGH,
        form("declares_two_billion"),
        TOO_HIGH,
    ),
    Row("odd sides are doubled exactly", SIZE, form("odd_sides"), Upscaled()),
    Row("odd sides are quadrupled exactly", SIZE, form("odd_sides", "4"), Upscaled(4)),
    Row("a JPEG of exactly 25 MB is taken", FILE, form("exactly_25_mb"), Upscaled()),
    Row("a PNG of exactly 25 MB is taken", FILE, form("exactly_25_mb_png"), Upscaled()),
    Row(
        "a chunked form with exactly 25 MB is taken",
        FILE,
        replace(form("exactly_25_mb"), is_chunked=True),
        Upscaled(),
    ),
    Row("a byte over 25 MB is refused", LARGE, form("a_byte_over_25_mb"), TOO_LARGE),
    Row(
        "a byte over 25 MB is refused though chunked",
        LARGE,
        replace(form("a_byte_over_25_mb"), is_chunked=True),
        TOO_LARGE,
    ),
    Row(
        "a form declared at 100 MB is refused before its body",
        LARGE,
        declared(FORM_TYPE),
        Refused("file_size_too_large", within_s=AT_ONCE_S),
    ),
    Row(
        "a form declared at 100 MB that expects 100-continue is refused",
        LARGE,
        declared(FORM_TYPE, ("Expect", "100-continue")),
        Refused("file_size_too_large", within_s=AT_ONCE_S),
    ),
    Row(
        "a JSON body declared at 100 MB is refused before its body",
        LARGE,
        declared("application/json"),
        Refused("file_size_too_large", within_s=AT_ONCE_S),
    ),
    Row(
        "a chunked JSON body of 26 MB is refused",
        LARGE,
        replace(
            raw(b'{"a": "' + b"x" * (MAX_FILE_BYTES + MEGABYTE) + b'"}', "application/json"),
            is_chunked=True,
        ),
        TOO_LARGE,
        "ours",
    ),
)
