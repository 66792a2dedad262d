"""A network of the shipped kind whose last layer is zero: what remains is its bilinear skip.

It costs hardly anything, for servers whose tests are about everything but the network.
"""

from pathlib import Path
from typing import Final

BILINEAR: Final = {"UPSCALED_MODEL_X2": "bilinear", "UPSCALED_MODEL_X4": "bilinear"}
"""Settings by which a server uses it, once it is in its data folder."""


def add_bilinear_model(data_dir: Path, scale: int = 2) -> None:
    """Add it to the models of a data folder, which exists."""
    from safetensors.torch import save_file
    from torch import zeros_like

    from upscaled.config import Settings
    from upscaled_models.networks.plain import PlainNet
    from upscaled_models.store import ModelStore

    weights = PlainNet(features=4, layers=1, scale=scale).state_dict()
    weights["tail.weight"] = zeros_like(weights["tail.weight"])
    path = data_dir / "bilinear.safetensors"
    save_file(weights, path)
    ModelStore(Settings(data_dir=data_dir).models_dir).add("bilinear", path)
