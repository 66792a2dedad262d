import pytest
import torch

from upscaled.config import Settings, SettingsError
from upscaled.cores import count_cores
from upscaled_models.backends.device import choose_device


def test_the_cpu_computes_in_float32() -> None:
    device = choose_device(Settings(device="cpu"))

    assert (device.torch_device.type, device.dtype) == ("cpu", torch.float32)


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "chosen"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_gpu_that_is_there_and_the_cpu_elsewhere(
    monkeypatch: pytest.MonkeyPatch, has_cuda: bool, has_mps: bool, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(has_cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)

    device = choose_device(Settings(device="auto"))

    assert device.torch_device.type == chosen
    assert device.dtype == (torch.float32 if chosen == "cpu" else torch.float16)
    assert choose_device(Settings(device="auto", precision="exact")).dtype == torch.float32


def test_a_device_that_is_not_there_stops_the_start() -> None:
    absent = f"cuda:{torch.cuda.device_count()}"

    with pytest.raises(SettingsError, match=f"UPSCALED_DEVICE='{absent}'"):
        choose_device(Settings(device=absent))


def test_an_apple_gpu_that_is_not_there_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    with pytest.raises(SettingsError, match="UPSCALED_DEVICE='mps'"):
        choose_device(Settings(device="mps"))


def test_cores_are_shared_out_among_workers_and_each_gets_one() -> None:
    cores = count_cores()

    assert choose_device(Settings(device="cpu", workers=1)).threads == cores
    assert choose_device(Settings(device="cpu", workers=min(64, 2 * cores))).threads == 1
    assert choose_device(Settings(device="cpu", threads=7)).threads == 7
