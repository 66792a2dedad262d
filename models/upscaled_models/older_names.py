"""Rename the weights of ESRGAN files as their first releases named them.

Most community models of ESRGAN's x4 network carry one of two older sets of names. The network is
the same, operation for operation: RRDBNet of https://github.com/xinntao/ESRGAN (2018) became
BasicSR's, which gave it today's names. Loads no torch.

    2018, "model.1.sub.7.RDB2.conv3.0.weight"     2019, "RRDB_trunk.7.RDB2.conv3.weight"
    today, "body.7.rdb2.conv3.weight"

The 2018 files of scales 1, 2 and 8 have another number of upsampling layers than BasicSR's network,
which folds or unfolds pixels instead: they keep their names, and are refused by them.
"""

import re
from collections.abc import Collection, Mapping
from typing import Final

_FIRST_BLOCK: Final = re.compile(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0\.(weight|bias)")
_FIRST_END: Final = re.compile(r"model\.1\.sub\.(\d+)\.(weight|bias)")
_FIRST_LAYER: Final = re.compile(r"model\.(\d+)\.(weight|bias)")
# Where the x4 network's convolutions stand in its list of layers; between them are upsamplings and
# activations, which have no weights.
_FIRST_LAYERS: Final[Mapping[str, str]] = {
    "0": "conv_first",
    "3": "conv_up1",
    "6": "conv_up2",
    "8": "conv_hr",
    "10": "conv_last",
}
_SECOND_BLOCK: Final = re.compile(r"RRDB_trunk\.(\d+)\.RDB([123])\.conv([1-5])\.(weight|bias)")
_SECOND_LAYER: Final = re.compile(r"(conv_first|trunk_conv|upconv1|upconv2|HRconv|conv_last)\.(.+)")
_SECOND_LAYERS: Final[Mapping[str, str]] = {
    "conv_first": "conv_first",
    "trunk_conv": "conv_body",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "HRconv": "conv_hr",
    "conv_last": "conv_last",
}


def find_new_names(names: Collection[str]) -> dict[str, str]:
    """Map each name of an older ESRGAN file to today's; empty for every other set of names.

    All names must be of one set, and of the x4 network: a file with one more is left as it is.
    """
    for rename in (_rename_first, _rename_second):
        renamed = {name: new for name in names if (new := rename(name))}
        if len(renamed) == len(names) and "conv_up2.weight" in renamed.values():
            return renamed
    return {}


def _rename_first(name: str) -> str | None:
    if found := _FIRST_BLOCK.fullmatch(name):
        return "body.{}.rdb{}.conv{}.{}".format(*found.groups())
    if found := _FIRST_END.fullmatch(name):
        return f"conv_body.{found[2]}"
    found = _FIRST_LAYER.fullmatch(name)
    layer = _FIRST_LAYERS.get(found[1]) if found else None
    return f"{layer}.{found[2]}" if found and layer else None


def _rename_second(name: str) -> str | None:
    if found := _SECOND_BLOCK.fullmatch(name):
        return "body.{}.rdb{}.conv{}.{}".format(*found.groups())
    found = _SECOND_LAYER.fullmatch(name)
    return f"{_SECOND_LAYERS[found[1]]}.{found[2]}" if found else None
