import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.counting import assert_linear
from upscaled.api.request.reader import MediaRange, parse_accept, wants_image

# More than the conformance kit has in `rows/accept.py`.
JSON = [
    None, "", " ", ",", "application/*", "image/*;q=0.5, application/json",
    "image/png;q=0.3, */*;q=0.3", "image/png;q=0, image/jpeg;q=0.0, image/*;q=0.000",
    "application/json;charset=utf-8, image/png;q=0.9", "application/json, */*;q=0.1, image/*;q=0.9",
]  # fmt: skip
IMAGE = [
    "IMAGE/*", "image/*;Q=1.000", " image/png ,application/json;q=0.9",
    "image/png,,application/json;q=0.5,",
    "text/html,application/xhtml+xml,image/avif,image/webp,*/*;q=0.8",
    "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "application/json;q=0, */*",
    "application/json;q=0.1, */*;q=0.5", 'image/png;note="a, b; q=0", application/json;q=0.5',
    "image/*;q=0, image/png",
]  # fmt: skip
# One illegal member: the header is ignored whole.
ILLEGAL = [
    "image/*, 'image/*'x/y/z", "image", "image/", "/png", "image/*, *", "*/png", "image/*;q=2",
    "image/*;q=1.001", "image/*;q=.5", "image/*;q=-1", "image/*;q=0.1234", "image/*;q=",
    "image/*;q=nan", "image/* application/json", "image /*", 'image/png;a="open',
    "image/png, \u00e9", "image/png a=b", "image/png;a=b c=d", "image/png;a", "image/png;a =b",
    "image/png; =b", 'image/png;a="b"c', "a/b; ; ; ; @",
]  # fmt: skip


@pytest.mark.parametrize("accept", JSON)
def test_json_is_chosen_where_no_image_range_weighs_more(accept: str | None) -> None:
    assert not wants_image(accept)


@pytest.mark.parametrize("accept", IMAGE)
def test_the_image_is_chosen_where_its_best_range_weighs_more_than_json(accept: str) -> None:
    assert wants_image(accept)


@pytest.mark.parametrize("accept", ILLEGAL)
def test_a_header_with_an_illegal_member_is_ignored_whole(accept: str) -> None:
    assert parse_accept(accept) == []
    assert not wants_image(accept)


def test_the_most_specific_range_counts_rather_than_the_heaviest() -> None:
    assert not wants_image("image/*;q=0.9, application/*;q=0.95, */*;q=0.1")
    assert wants_image("image/*;q=0.9, application/json;q=0.5, application/*;q=1")


def test_of_a_range_given_twice_the_heavier_counts() -> None:
    assert wants_image("image/png;q=0.2, image/png, application/json;q=0.5")
    assert not wants_image("application/json, image/png, application/json;q=0.2")


# The grammar of RFC 9110 (5.6.1, 5.6.4, 5.6.6, 12.4.2, 12.5.1) as it stands there, slow and plain.
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
NAME = r"[0-9A-Za-z][0-9A-Za-z!#$&\-^_.+]*"  # RFC 6838, 4.2: narrower, on purpose
QUOTED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
VALUE = rf"(?:{TOKEN}|{QUOTED})"
QVALUE = r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)"
PARAMETER = rf"(?:[qQ]={QVALUE}(?![^ \t;,])|(?![qQ]=){TOKEN}={VALUE})"
MEMBER = rf"(?:\*/\*|{NAME}/\*|{NAME}/{NAME})(?:[ \t]*;[ \t]*{PARAMETER}|[ \t]*;)*"
LEGAL = re.compile(rf"[ \t]*(?:{MEMBER})?(?:[ \t]*,[ \t]*(?:{MEMBER})?)*[ \t]*")


PIECES = [
    *("a/b", "*/*", "a/*", "*/b", "a", "/", "*", ",", ";", " ", "\t", "q=0", "Q=0.25", "q=1.0"),
    *("q=2", "q=", "c=d", 'c="d"', 'c="\\""', 'c="', "c=", "=", '"', "\\", "'", "\u00e9", "@"),
    *("; ", ", "),
]  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_exactly_the_grammar_of_the_rfc_is_accepted(accept: str) -> None:
    if len(re.findall("[qQ]=", accept)) < 2:  # behind the first, another is a parameter like others
        is_legal = accept.strip(" \t,") != "" and LEGAL.fullmatch(accept) is not None
        assert (parse_accept(accept) != []) == is_legal


blanks = st.text(alphabet=" \t", max_size=2)
tokens = st.text(alphabet="abz09!#$%&'*+-.^_`|~", min_size=1, max_size=4)
names = st.from_regex(NAME, fullmatch=True).map(lambda name: name[:8])
quoted = st.from_regex(QUOTED, fullmatch=True).map(lambda text: text if len(text) < 20 else '""')
weights = st.sampled_from(["0", "0.", "0.5", "0.125", "1", "1.0", "1.000"])


@st.composite
def headers(draw: st.DrawFn) -> tuple[str, list[MediaRange]]:
    """A header put together by the grammar, and what it says."""
    text, ranges = draw(st.sampled_from(["", ",", " ,\t,"])), []
    for number in range(draw(st.integers(1, 4))):
        main, subtype = draw(
            st.one_of(st.just(("*", "*")), st.tuples(names, st.just("*")), st.tuples(names, names))
        )
        text += (draw(blanks) + "," + draw(blanks) if number else "") + f"{main}/{subtype}"
        for name in draw(st.lists(tokens.filter(lambda token: token != "q"), max_size=2)):
            value = draw(st.one_of(tokens, quoted))
            text += f"{draw(blanks)};{draw(blanks)}{name}={value}"
        weight = draw(st.none() | weights)
        if weight is not None:
            text += f"{draw(blanks)};{draw(blanks)}{draw(st.sampled_from('qQ'))}={weight}"
        text += draw(st.sampled_from(["", ";", " ; ;", " "]))
        ranges.append(MediaRange(main.lower(), subtype.lower(), float(weight or 1)))
    return text + draw(st.sampled_from(["", ",", " , "])), ranges


@pytest.mark.slow
@given(headers())
def test_a_header_generated_by_the_grammar_is_parsed_to_its_members(
    header: tuple[str, list[MediaRange]],
) -> None:
    text, ranges = header
    assert parse_accept(text) == ranges


@given(st.text(alphabet='image/*,;q=01.9 json"\\tx', max_size=80))
def test_no_text_raises(accept: str) -> None:
    assert wants_image(accept) in (True, False)


ATTACKS: list[tuple[str, Callable[[int], str]]] = [
    ("blanks behind a parameter", lambda count: "a/b" + "; " * count + "@"),
    ("blanks before a semicolon", lambda count: "a/b" + "\t ;" * count + "@"),
    ("image types", lambda count: ",".join(f"image/{number:x}" for number in range(count))),
    ("image types with weights", lambda count: ",".join(f"image/{n:x};q=0" for n in range(count))),
    ("one type again and again", lambda count: "image/png," * count),
    ("parameters", lambda count: "a/b" + ";a=b" * count),
    ("quoted parameters", lambda count: "a/b" + ';a="b"' * count),
    ("an open quote", lambda count: 'a/b;a="' + '\\"' * count),
    ("escapes in quotes", lambda count: 'a/b;a="' + "\\\\" * count + '"'),
    ("empty members", lambda count: ", " * count + "@"),
    ("a long type", lambda count: "a" * count),
    ("a long parameter's name", lambda count: "a/b;" + "a" * count),
    ("a long weight", lambda count: "a/b;q=0." + "0" * count),
]


@pytest.mark.parametrize("make", [make for _, make in ATTACKS], ids=[name for name, _ in ATTACKS])
def test_the_steps_of_parsing_grow_linearly_with_the_header(make: Callable[[int], str]) -> None:
    assert_linear(wants_image, make, 1000)
