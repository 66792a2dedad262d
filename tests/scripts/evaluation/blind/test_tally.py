"""Votes are counted, stored and continued, and never mixed with another comparison's."""

from pathlib import Path

import pytest

from scripts.evaluation.blind.tally import Tally, Vote, sign_test

PLAN = {"upscalers": ["a", "b"], "seed": 1}


def vote(preferred: str, track: str = "clean") -> Vote:
    return Vote("face", track, left="b", right="a", preferred=preferred)


def test_votes_are_counted_in_all_and_by_track(tmp_path: Path) -> None:
    tally = Tally.open(tmp_path / "tally.json", PLAN)
    for number, each in enumerate((vote("a"), vote("a", "jpeg"), vote("b"), vote(""))):
        tally.add(number, each)
    summary = tally.summary()
    assert summary["wins"] == {"a": 2, "b": 1}
    assert summary["ties"] == 1
    assert summary["by_track"]["jpeg"]["wins"] == {"a": 1, "b": 0}


def test_a_second_vote_on_a_pair_replaces_the_first(tmp_path: Path) -> None:
    tally = Tally.open(tmp_path / "tally.json", PLAN)
    tally.add(3, vote("a"))
    tally.add(3, vote("b"))
    assert tally.summary()["wins"] == {"a": 0, "b": 1}


def test_a_later_run_continues_from_the_stored_votes(tmp_path: Path) -> None:
    Tally.open(tmp_path / "tally.json", PLAN).add(7, vote("a"))
    again = Tally.open(tmp_path / "tally.json", dict(PLAN))
    assert again.votes == {7: vote("a")}
    assert [path.name for path in tmp_path.iterdir()] == ["tally.json"]


def test_another_comparisons_file_and_a_foreign_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tally.json"
    Tally.open(path, PLAN).add(0, vote("a"))
    with pytest.raises(ValueError, match="another comparison"):
        Tally.open(path, {**PLAN, "seed": 2})
    for text in ("no JSON", "[]", '{"plan": {}}', '{"plan": {}, "votes": {"x": {}}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="holds no votes"):
            Tally.open(path, PLAN)


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(0, 0, 1.0), (5, 5, 1.0), (10, 0, 0.00195), (8, 2, 0.1094)]
)
def test_the_p_value_is_that_of_the_two_sided_sign_test(
    first: int, second: int, expected: float
) -> None:
    assert sign_test(first, second) == pytest.approx(expected, abs=1e-4)
    assert sign_test(second, first) == sign_test(first, second)
