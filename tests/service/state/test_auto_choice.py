"""The thresholds of `auto` are stored once, and replaced only while no front end uses them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import MakeSettings
from upscaled.state import State, open_state
from upscaled.state.errors import UnreadableChoice
from upscaled.state.lease import DEAD_AFTER_S
from upscaled.state.schema import AUTO_CHOICE, HOLDERS
from upscaled.upscale.model_choice import AutoChoice, Rung


def choice(plan: str = "large 0123, small 4567", most_px: int = 1000) -> AutoChoice:
    ladder = (Rung(model="large", most_px=most_px, most_deep_px=10), Rung(model="small"))
    return AutoChoice(plans={4: plan, 2: "small 4567"}, ladders={2: ladder[1:], 4: ladder})


@pytest.fixture
def pair(
    server_url: str, make_settings: MakeSettings, tmp_path: Path
) -> Iterator[tuple[State, State]]:
    """Two front ends of one PostgreSQL."""
    settings = make_settings(database_url=server_url)
    folders = [settings.model_copy(update={"data_dir": tmp_path / name}) for name in "ab"]
    with ExitStack() as stack:
        first, second = (stack.enter_context(open_state(each)) for each in folders)
        yield first, second


def test_the_second_front_end_adopts_the_choice_of_the_first(pair: tuple[State, State]) -> None:
    first, second = (state.auto_choice for state in pair)
    assert second.read() is None
    assert first.settle(choice(most_px=1000)) == choice(most_px=1000)
    assert second.settle(choice(most_px=7)) == second.read() == choice(most_px=1000)


def test_a_choice_that_a_running_front_end_uses_is_not_replaced(pair: tuple[State, State]) -> None:
    first, second = pair
    first.auto_choice.settle(choice())
    assert second.auto_choice.settle(choice("other 89ab")) == choice()
    first.holder.close()
    assert second.auto_choice.settle(choice("other 89ab")) == choice("other 89ab")


def test_a_front_end_whose_lease_has_ended_prevents_no_replacement(
    pair: tuple[State, State],
) -> None:
    first, second = pair
    first.auto_choice.settle(choice())
    with second.database.write() as connection:
        aged = HOLDERS.c.seen_at_s - DEAD_AFTER_S - 1
        connection.execute(
            sa.update(HOLDERS).where(HOLDERS.c.id == first.holder.id).values(seen_at_s=aged)
        )
    assert second.auto_choice.settle(choice("other 89ab")) == choice("other 89ab")


def test_a_front_end_that_confirms_under_a_new_lease_still_counts(
    pair: tuple[State, State],
) -> None:
    first, second = pair
    first.auto_choice.settle(choice())
    first.holder.close()  # its id is another one from now on
    assert first.auto_choice.confirm(choice()) == choice()
    assert second.auto_choice.settle(choice("other 89ab")) == choice()


def test_a_reset_leaves_writing_to_the_next_that_settles(pair: tuple[State, State]) -> None:
    first, second = (state.auto_choice for state in pair)
    first.settle(choice(most_px=1000))
    assert second.reset()
    assert not second.reset()
    assert first.confirm(choice(most_px=1000)) is None
    second.settle(choice(most_px=7))
    assert first.confirm(choice(most_px=1000)) == choice(most_px=7)


@pytest.mark.parametrize(
    "damage",
    [{"plans": "[]"}, {"plans": "{"}, {"ladders": '{"4": [{"model": "large", "newer": 1}]}'}],
)
def test_a_choice_that_this_version_cannot_read_is_named_until_it_is_reset(
    state: State, damage: dict[str, str]
) -> None:
    shared = state.auto_choice
    shared.settle(choice())
    with state.database.write() as connection:
        connection.execute(sa.update(AUTO_CHOICE).values(damage))
    for use in (shared.read, lambda: shared.settle(choice()), lambda: shared.confirm(choice())):
        with pytest.raises(UnreadableChoice, match=r"cannot be read: [A-Z]"):
            use()
    assert shared.reset()
    assert shared.settle(choice(most_px=7)) == shared.read() == choice(most_px=7)


def test_on_sqlite_a_choice_of_other_models_replaces_the_stored_one(state: State) -> None:
    state.auto_choice.settle(choice())
    assert state.auto_choice.settle(choice(most_px=7)) == choice()
    assert state.auto_choice.settle(choice("other 89ab")) == state.auto_choice.read()
    assert state.auto_choice.read() == choice("other 89ab")
