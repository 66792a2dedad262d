import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from upscaled_models.errors import WeightsError
from upscaled_models.families import find_new_names
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.weights import build_network, read_state, recognise_file

SHAPE = rrdb_shape(scale=4, num_block=3, num_feat=8, num_grow_ch=4)
FIRST_LAYERS = {"conv_first": 0, "conv_up1": 3, "conv_up2": 6, "conv_hr": 8, "conv_last": 10}
SECOND_LAYERS = {
    "conv_body": "trunk_conv",
    "conv_up1": "upconv1",
    "conv_up2": "upconv2",
    "conv_hr": "HRconv",
}


def first_name(name: str) -> str:
    """Return a weight's name in the files of 2018."""
    layer, kind = name.rsplit(".", 1)
    if found := re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv(\d)", layer):
        return f"model.1.sub.{found[1]}.RDB{found[2]}.conv{found[3]}.0.{kind}"
    if layer == "conv_body":
        return f"model.1.sub.{SHAPE['num_block']}.{kind}"
    return f"model.{FIRST_LAYERS[layer]}.{kind}"


def second_name(name: str) -> str:
    """Return a weight's name in the files of 2019."""
    layer, kind = name.rsplit(".", 1)
    if found := re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv(\d)", layer):
        return f"RRDB_trunk.{found[1]}.RDB{found[2]}.conv{found[3]}.{kind}"
    return f"{SECOND_LAYERS.get(layer, layer)}.{kind}"


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return dict(build_network("rrdb", SHAPE).state_dict())


@pytest.mark.parametrize("old_name", [first_name, second_name])
def test_a_file_with_older_names_is_the_same_network(
    tmp_path: Path, state: dict[str, Tensor], old_name: Callable[[str], str]
) -> None:
    path = tmp_path / "old.pth"
    torch.save({old_name(name): value for name, value in state.items()}, path)

    assert recognise_file(path) == ("rrdb", SHAPE)

    read = read_state(path.read_bytes(), path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


@pytest.mark.parametrize("old_name", [first_name, second_name])
def test_names_are_changed_only_where_all_are_known(
    state: dict[str, Tensor], old_name: Callable[[str], str]
) -> None:
    names = [old_name(name) for name in state]
    assert sorted(find_new_names(names).values()) == sorted(state)
    assert find_new_names([*names, "model.1.sub.0.RDB1.conv1x1.weight"]) == {}
    assert find_new_names([]) == find_new_names(list(state)) == {}


@pytest.mark.parametrize("last", [5, 7, 13])
def test_another_scale_of_the_first_release_is_refused_by_name(
    tmp_path: Path, state: dict[str, Tensor], last: int
) -> None:
    """Its layers stand at other places: x1, x2 and x8."""
    path = tmp_path / "old.pth"
    names = {name: first_name(name).replace("model.10.", f"model.{last}.") for name in state}
    torch.save({names[name]: value for name, value in state.items()}, path)
    with pytest.raises(WeightsError, match="an ESRGAN network that is not the plain one of"):
        read_state(path.read_bytes(), path)
