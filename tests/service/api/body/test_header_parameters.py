import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.counting import assert_linear
from upscaled.api.body.header_parameters import parse_value


@pytest.mark.parametrize(
    ("header", "value", "parameters"),
    [
        ("", "", {}),
        ("Text/Plain", "text/plain", {}),
        (" a/b ; c=d", "a/b", {"c": "d"}),
        ("a/b;C=D;e=F;", "a/b", {"c": "D", "e": "F"}),
        ("a/b; c = d ; e = f g ;", "a/b", {"c": "d", "e": "f g"}),
        ('a/b; c="d; e=\\"f\\""; g=h', "a/b", {"c": 'd; e="f"', "g": "h"}),
        (r'a/b; c="C:\d\e"', "a/b", {"c": r"C:\d\e"}),
        (r'a/b; c="d\\"; e=f', "a/b", {"c": "d\\", "e": "f"}),
        ('a/b; c="open', "a/b", {"c": "open"}),
        ('a/b; c="d"e; f=g', "a/b", {"c": "d", "f": "g"}),
        ("a/b; c=1; c=2", "a/b", {"c": "2"}),
        ("a/b; c; d=; =e", "a/b", {"d": "", "": "e"}),
        ("a/b; boundary=----=_Part_0_1.2", "a/b", {"boundary": "----=_Part_0_1.2"}),
        ('a/b;;; ;c=";"', "a/b", {"c": ";"}),
    ],
)
def test_values_and_parameters(header: str, value: str, parameters: dict[str, str]) -> None:
    assert parse_value(header) == (value, parameters)


@given(st.text(alphabet='ab;= "\\\\\t*', max_size=40))
def test_any_text_is_read(header: str) -> None:
    value, parameters = parse_value(header)
    assert ";" not in value + "".join(parameters)


@pytest.mark.parametrize("filling", ["; ", "=", 'a="', 'a="\\"', "a;", "a=b;", 'a="b";', " ", "\\"])
def test_twice_the_header_takes_twice_the_steps(filling: str) -> None:
    assert_linear(parse_value, lambda count: "a/b;" + filling * count, 1000)
