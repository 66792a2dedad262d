import contextlib
import json
import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.body.json_object import MAX_STRUCTURE, parse_json
from service.errors import InvalidRequestBody


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


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidRequestBody):
        assert isinstance(parse_json(body), dict)
