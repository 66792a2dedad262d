from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.errors import WeightsError
from models.graphs.layers import Convolution, Layers, Quantisation
from models.quantised import (
    QuantisedProof,
    QuantisedRecord,
    parse_layers,
    quantised_path,
    read_quantised,
    record_path,
    serialise_layers,
)
from models.registry import ModelSpec, describe_model, plain_shape
from models.store import hash_file

SPEC = describe_model(
    "mine",
    "plain",
    plain_shape(scale=4, layers=1, features=4),
    file_name="mine.safetensors",
    size_bytes=1,
    sha256="a" * 64,
    licence="",
    source="user",
)


def make_layers() -> Layers:
    rng = np.random.default_rng(1)
    scale = rng.random(4, dtype=np.float32)
    whole = rng.integers(-127, 128, (4, 12, 3, 3)).astype(np.int8)
    floats = rng.random((3, 4, 3, 3), dtype=np.float32)
    convolutions = {
        "head": Convolution(whole, rng.random(4, dtype=np.float32), Quantisation(scale, -0.5, 1.0)),
        "tail": Convolution(floats, None),
    }
    return Layers(convolutions, {"body.1": rng.random(4, dtype=np.float32)})


def place(folder: Path, spec: ModelSpec = SPEC) -> Path:
    """A whole 8-bit model of `spec` in `folder`; returns where its weights would be."""
    weights = folder / "mine.safetensors"
    quantised_path(weights).write_bytes(serialise_layers(make_layers()))
    proof = QuantisedProof(
        psnr_db=48.1,
        largest=20,
        pictures=12,
        flat_largest=0,
        are_flats_kept=True,
        float_layers=["tail"],
    )
    record = QuantisedRecord(
        model=spec.name,
        weights_sha256=spec.sha256,
        sha256=hash_file(quantised_path(weights)),
        size_bytes=quantised_path(weights).stat().st_size,
        proof=proof,
        versions={"torch": "2"},
    )
    record_path(weights).write_text(record.model_dump_json())
    return weights


def test_layers_come_back_as_they_were() -> None:
    layers = make_layers()
    again = parse_layers(serialise_layers(layers), Path("any"))
    assert again.convolutions.keys() == layers.convolutions.keys()
    for name, layer in layers.convolutions.items():
        other = again.convolutions[name]
        assert other.weight.dtype == layer.weight.dtype
        np.testing.assert_array_equal(other.weight, layer.weight)
    head = again.convolutions["head"].quantised
    assert head is not None
    assert (head.low, head.high) == (-0.5, 1.0)
    np.testing.assert_array_equal(again.slopes["body.1"], layers.slopes["body.1"])
    assert again.convolutions["tail"].quantised is None


def test_a_whole_model_is_read(tmp_path: Path) -> None:
    assert read_quantised(SPEC, place(tmp_path)).convolutions.keys() == {"head", "tail"}


def test_a_file_from_other_weights_is_refused_by_name(tmp_path: Path) -> None:
    weights = place(tmp_path, replace(SPEC, sha256="b" * 64))
    with pytest.raises(WeightsError, match=r"mine\.int8\.json: was made from other weights"):
        read_quantised(SPEC, weights)


def test_a_changed_file_is_refused_by_name(tmp_path: Path) -> None:
    weights = place(tmp_path)
    data = bytearray(quantised_path(weights).read_bytes())
    data[-1] ^= 1
    quantised_path(weights).write_bytes(data)
    with pytest.raises(WeightsError, match=r"mine\.int8\.safetensors: SHA-256 is"):
        read_quantised(SPEC, weights)


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"model": "mine"}'])
def test_a_missing_or_damaged_record_is_refused_by_name(
    tmp_path: Path, content: bytes | None
) -> None:
    weights = place(tmp_path)
    record_path(weights).unlink()
    if content is not None:
        record_path(weights).write_bytes(content)
    with pytest.raises(WeightsError, match=r"mine\.int8\.json: not a readable record"):
        read_quantised(SPEC, weights)


@pytest.mark.parametrize("data", [b"", b"no safetensors", b"\xff" * 100])
def test_bytes_that_hold_no_layers_are_refused(data: bytes) -> None:
    with pytest.raises(WeightsError, match="not a file of 8-bit layers"):
        parse_layers(data, Path("any"))
