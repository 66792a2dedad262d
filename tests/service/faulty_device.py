"""A worker whose network makes what a broken device would.

    python faulty_device.py ORDER --fd N

Everything is the product's own but the network, which reads the file ORDER at each window: the
fault and where it shows: `fast`, where float32 would be right, or `both`. And its decoders are
those of crashing_decoder.py.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import upscaled.decoder.pool as decoder
import upscaled.upscale.engines as choice
import upscaled.worker.main as worker
from upscaled.config import Settings
from upscaled.decoder.pool import Decoder
from upscaled_models.backends.base import Engine
from upscaled_models.backends.torch.engine import TorchEngine


def make_nan(result: Tensor) -> None:
    result[0, 1, result.shape[2] // 2, result.shape[3] // 2] = torch.nan


def make_black(result: Tensor) -> None:
    result[:, :, : result.shape[2] // 2] = 0


def shift_mean(result: Tensor) -> None:
    result.add_(0.25)


FAULTS = {"nan": make_nan, "black tile": make_black, "shifted mean": shift_mean}
WRONG_SIZE = "wrong size"
DEADLY_DECODER = str(Path(__file__).with_name("crashing_decoder.py"))


class Spoilt(nn.Module):
    """`network`, whose results are wrong as long as ORDER says so."""

    def __init__(self, network: Callable[[Tensor], Tensor], order: Path, where: set[str]) -> None:
        super().__init__()
        self.network = network
        self.order = order
        self.where = where

    def forward(self, pixels: Tensor) -> Tensor:
        result = self.network(pixels)
        fault, _, where = self.order.read_text().rpartition(" ")
        if where not in self.where or not bool(pixels.any()):  # black is what a warm-up shows
            return result
        if fault == WRONG_SIZE:
            return result[:, :, :-2]
        FAULTS[fault](result)
        return result


def open_faulty(order: Path, settings: Settings, name: str) -> Engine:
    engine = choice_open_model(settings, name)
    assert isinstance(engine, TorchEngine)
    return replace(
        engine,
        network=Spoilt(engine.network, order, {"fast", "both"}),
        exact_network=Spoilt(engine.exact_network, order, {"both"}),
    )


choice_open_model = choice.open_model


if __name__ == "__main__":
    _, order, *rest = sys.argv
    sys.argv = ["upscaled", *rest]
    vars(choice)["open_model"] = partial(open_faulty, Path(order))
    vars(decoder)["Decoder"] = partial(Decoder, command=(sys.executable, DEADLY_DECODER))
    worker.main()
