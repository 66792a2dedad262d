import contextlib
import json
import math
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upscaled.api.body.json_object import MAX_ESCAPES, MAX_STRUCTURE, parse_json
from upscaled.errors import InvalidRequestBody


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_of_json_is_read(encoding: str) -> None:
    assert parse_json('{"scale": 2, "ä": null}'.encode(encoding)) == {"scale": 2, "ä": None}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"{", b'{"scale": 2', b"{'scale': 2}", b"{scale: 2}", b'{"scale": 2,}'),
        *(b"[]", b"2", b'"text"', b"null", b"true", b"[{}]", b'{"a": 1} x', b"\xff\xfe\x00"),
        *(b'{"a": "\xff"}', b'{"a": "\n"}', b'{"a":' * 2000, b"[" * 9_000, b"\x00" * 100),
    ],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestBody):
        parse_json(body)


def test_a_number_beyond_all_bounds_is_still_a_number() -> None:
    assert math.isnan(parse_json(b'{"scale": NaN}')["scale"])
    assert parse_json(b'{"scale": 1e999}')["scale"] == math.inf
    assert parse_json(b'{"scale": ' + b"9" * 6000 + b"}")["scale"] == math.inf


def test_of_a_repeated_name_the_last_counts() -> None:
    assert parse_json(b'{"scale": 2, "scale": 4}') == {"scale": 4}


def test_a_large_text_is_read() -> None:
    assert len(parse_json(b'{"image": "' + b"A" * 5_000_000 + b'"}')["image"]) == 5_000_000


def test_many_values_are_refused_before_they_fill_the_memory() -> None:
    fits = json.dumps({"a": [0] * (MAX_STRUCTURE - 10)}).encode()
    assert len(parse_json(fits)["a"]) == MAX_STRUCTURE - 10
    bomb = b'{"a":[' + b"{}," * 5_000_000 + b"{}]}"
    tracemalloc.start()
    with pytest.raises(InvalidRequestBody, match="too many values"):
        parse_json(bomb)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_many_escapes_are_refused_before_they_are_read() -> None:
    assert len(parse_json(b'{"a": "' + b"\\/" * MAX_ESCAPES + b'"}')["a"]) == MAX_ESCAPES
    with pytest.raises(InvalidRequestBody, match="too many escapes"):
        parse_json(b'{"a": "' + b"\\/" * (MAX_ESCAPES + 1) + b'"}')


@pytest.mark.parametrize(
    "hostile",
    [
        b"\xff\xfe{\x00" + b"\x00\xd8" * 5_000_000,
        b"\xff\xfe{\x00" + b"\x00\xdc" * 5_000_000,
        b'{"a": "' + b"\xed\xa0\x80" * 3_000_000 + b'"}',
        b'{"a": "' + b"\xff" * 10_000_000 + b'"}',
        b'{"scale": ' + b"9" * 10_000_000 + b"}x",
        b'{"scale": 0.' + b"0" * 10_000_000 + b"1}x",
        b'{"scale": 1e' + b"9" * 10_000_000 + b"}x",
        b'{"scale": -' + b"-" * 10_000_000 + b"}",
        b'"' * 10_000_000,
        b" " * 10_000_000,
        b"{" * 9_999,
    ],
)
def test_hostile_bodies_take_no_time(hostile: bytes) -> None:
    started = time.process_time()
    with pytest.raises(InvalidRequestBody):
        parse_json(hostile)
    assert time.process_time() - started < 0.5


def test_a_lone_surrogate_may_be_escaped_and_not_be_encoded() -> None:
    assert parse_json(b'{"a": "\\ud800"}') == {"a": "\ud800"}
    for encoding in ("utf-8", "utf-16", "utf-32"):
        with pytest.raises(InvalidRequestBody):
            parse_json('{"a": "\ud800"}'.encode(encoding, "surrogatepass"))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidRequestBody):
        assert isinstance(parse_json(body), dict)
