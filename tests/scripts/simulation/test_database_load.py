import pytest

from scripts.simulation.database_load import FRONT_ENDS, measure_database
from scripts.simulation.plan import BadPlan
from tests.service.state.conftest import MakeSettings, key_with
from upscaled.state import open_state


@pytest.fixture
def make_settings(tmp_path: object) -> MakeSettings:
    from upscaled.config import load_settings

    return lambda **values: load_settings({}, data_dir=tmp_path, **values)


@pytest.mark.slow
def test_images_of_several_front_ends_are_counted_as_the_ledger_has_them(
    server_url: str, make_settings: MakeSettings
) -> None:
    rate = measure_database(server_url, for_s=0.3)
    with open_state(make_settings(database_url=server_url)) as state:
        assert len(state.keys.list()) == FRONT_ENDS
        spent = sum(1_000_000 - state.credits.show(key.name) for key in state.keys.list())
        assert state.credits.audit() == ()
    assert spent >= FRONT_ENDS
    assert rate > 0


@pytest.mark.slow
def test_a_database_in_use_is_refused_and_left_alone(
    server_url: str, make_settings: MakeSettings
) -> None:
    with open_state(make_settings(database_url=server_url)) as state:
        key_with(state, 3)
        with pytest.raises(BadPlan, match="empty"):
            measure_database(server_url)
        assert state.keys.names() == ("web",)
