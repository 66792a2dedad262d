from pathlib import Path

import pytest

from upscaled.config import load_settings
from upscaled.state import ApiKey, open_state
from upscaled.state.errors import InvalidValue
from upscaled.state.key_rows import SCOPES, check_scopes, order_scopes, read_scopes, write_scopes


@pytest.mark.parametrize(
    ("scopes", "column"),
    [
        (None, None),
        (frozenset({"upscale"}), "upscale"),
        (frozenset({"credits", "jobs", "upscale"}), "upscale,jobs,credits"),
    ],
)
def test_scopes_are_read_back_from_their_column(
    scopes: frozenset[str] | None, column: str | None
) -> None:
    check_scopes(scopes)
    assert write_scopes(scopes) == column
    assert read_scopes(column) == scopes


@pytest.mark.parametrize("scopes", [frozenset(), frozenset({""}), frozenset({"upscale", "admin"})])
def test_what_is_no_scope_is_refused(scopes: frozenset[str]) -> None:
    with pytest.raises(InvalidValue, match="name one or more of upscale, jobs, credits"):
        check_scopes(scopes)


def test_scopes_are_ordered_as_in_the_table() -> None:
    assert order_scopes({"credits", "upscale"}) == ["upscale", "credits"]


def test_a_key_without_scopes_may_all_and_with_scopes_only_those() -> None:
    limited = ApiKey(1, "web", scopes=frozenset({"jobs"}))
    assert [scope for scope in SCOPES if limited.may(scope)] == ["jobs"]
    assert all(ApiKey(1, "web").may(scope) for scope in SCOPES)


def test_a_key_with_a_wrong_scope_is_not_made(tmp_path: Path) -> None:
    with open_state(load_settings({}, data_dir=tmp_path)) as state:
        with pytest.raises(InvalidValue, match="name one or more"):
            state.keys.create("web", scopes=frozenset({"admin"}))
        state.keys.create("web", scopes=frozenset({"jobs"}))
        (key,) = state.keys.list()
        assert key.scopes == frozenset({"jobs"})
