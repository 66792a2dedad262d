import pytest
import torch

from upscaled_models.backends.device import choose_device
from upscaled_models.errors import DeviceUnavailable


def test_the_cpu_computes_in_float32() -> None:
    device = choose_device("cpu", is_exact=False, threads=3)

    assert (device.torch_device.type, device.dtype) == ("cpu", torch.float32)
    assert (device.threads, device.is_cpu, device.describe()) == (3, True, "cpu")


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "chosen"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_chooses_the_gpu_if_there_is_one_and_else_the_cpu(
    monkeypatch: pytest.MonkeyPatch, has_cuda: bool, has_mps: bool, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(has_cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)

    device = choose_device("auto", is_exact=False, threads=1)

    assert device.torch_device.type == chosen
    assert device.dtype == (torch.float32 if chosen == "cpu" else torch.float16)
    assert choose_device("auto", is_exact=True, threads=1).dtype == torch.float32


def test_an_apple_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    with pytest.raises(DeviceUnavailable, match="no Apple GPU"):
        choose_device("mps", is_exact=False, threads=1)
