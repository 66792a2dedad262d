import pytest
import torch

from upscaled.config import load_settings
from upscaled.worker import jobs
from upscaled.worker.jobs import count_slots
from upscaled_models.backends.device import Device


@pytest.mark.parametrize(("kind", "slots"), [("cpu", 4), ("mps", 4), ("cuda", 8)])
def test_a_worker_on_cuda_has_more_slots(
    kind: str, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(torch.device(kind), torch.float32, threads=1)
    monkeypatch.setattr(jobs, "choose_device", lambda settings: device)
    assert count_slots(load_settings({})) == slots


@pytest.mark.parametrize("wanted", [1, 5, 64])
def test_the_settings_number_of_jobs_wins_over_the_device(wanted: int) -> None:
    assert count_slots(load_settings({}, device="cpu", jobs_per_worker=wanted)) == wanted
