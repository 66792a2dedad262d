import pytest

from service.config import load_settings
from service.pool import jobs
from service.pool.jobs import count_places


@pytest.mark.parametrize(("is_gpu", "places"), [(False, 4), (True, 8)])
def test_a_gpu_takes_more_images_at_once_than_a_processor(
    is_gpu: bool, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "has_free_cores", lambda settings: is_gpu)
    assert count_places(load_settings({})) == places


@pytest.mark.parametrize("wanted", [1, 5, 64])
def test_whoever_sets_a_number_of_places_gets_it(wanted: int) -> None:
    assert count_places(load_settings({}, device="cpu", jobs_per_worker=wanted)) == wanted
