import pytest
import torch

from service.config import Settings, SettingsError
from service.engine.device import choose_device, count_cores


def test_the_cpu_computes_in_float32() -> None:
    device = choose_device(Settings(device="cpu"))

    assert (device.torch_device.type, device.dtype) == ("cpu", torch.float32)


def test_auto_takes_cuda_where_it_is_and_the_cpu_elsewhere() -> None:
    device = choose_device(Settings(device="auto"))

    assert device.is_cuda == torch.cuda.is_available()


def test_a_device_that_is_not_there_stops_the_start() -> None:
    absent = f"cuda:{torch.cuda.device_count()}"

    with pytest.raises(SettingsError, match=f"UPSCALED_DEVICE='{absent}'"):
        choose_device(Settings(device=absent))


def test_cores_are_shared_out_among_workers_and_each_gets_one() -> None:
    cores = count_cores()

    assert choose_device(Settings(device="cpu", workers=1)).threads == cores
    assert choose_device(Settings(device="cpu", workers=min(64, 2 * cores))).threads == 1
    assert choose_device(Settings(device="cpu", threads=7)).threads == 7
