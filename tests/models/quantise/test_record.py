from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.specs import spec_of
from upscaled_models.backends.openvino.layers import Convolution, Layers, Quantisation
from upscaled_models.errors import WeightsError
from upscaled_models.files import hash_file
from upscaled_models.quantise.files import (
    digest_layers,
    parse_layers,
    quantised_path,
    read_quantised,
    record_path,
    serialise_layers,
)
from upscaled_models.quantise.record import (
    TRACKS,
    Pair,
    QuantisedAccuracy,
    QuantisedRecord,
    TrackAccuracy,
    TruthAccuracy,
    why_not,
)
from upscaled_models.registry import ModelSpec

SPEC = spec_of("mine", sha256="a" * 64)


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


def make_proof(psnr_db: float = 48.1, *, are_flats_kept: bool = True) -> QuantisedAccuracy:
    return QuantisedAccuracy(
        psnr_db=psnr_db,
        largest=20,
        pictures=12,
        flat_largest=0,
        are_flats_kept=are_flats_kept,
        float_layers=[],
    )


def write_int8(
    weights: Path, spec: ModelSpec, proof: QuantisedAccuracy | None = None, *, sha256: str = ""
) -> Path:
    """Write a whole 8-bit model of `spec` beside where its weights would be, and return that."""
    file = quantised_path(weights)
    file.write_bytes(serialise_layers(make_layers()))
    record = QuantisedRecord(
        model=spec.name,
        weights_sha256=spec.sha256,
        sha256=sha256 or hash_file(file),
        size_bytes=file.stat().st_size,
        proof=proof or make_proof(),
        versions={"torch": "2"},
    )
    record_path(weights).write_text(record.model_dump_json())
    return weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_int8(tmp_path / "mine.safetensors", SPEC)


def test_layers_are_read_back_unchanged() -> None:
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


def test_all_layers_of_a_model_are_read(weights: Path) -> None:
    assert read_quantised(SPEC, weights).convolutions.keys() == {"head", "tail"}


def test_a_file_from_other_weights_is_refused_by_name(weights: Path) -> None:
    write_int8(weights, replace(SPEC, sha256="b" * 64))
    with pytest.raises(WeightsError, match=r"mine\.int8\.json: was made from other weights"):
        read_quantised(SPEC, weights)


def test_a_changed_file_is_refused_by_name(weights: Path) -> None:
    data = bytearray(quantised_path(weights).read_bytes())
    data[-1] ^= 1
    quantised_path(weights).write_bytes(data)
    with pytest.raises(WeightsError, match=r"mine\.int8\.safetensors: SHA-256 is"):
        read_quantised(SPEC, weights)


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"model": "mine"}'])
def test_a_missing_or_damaged_record_is_refused_by_name(
    weights: Path, content: bytes | None
) -> None:
    record_path(weights).unlink()
    if content is not None:
        record_path(weights).write_bytes(content)
    with pytest.raises(WeightsError, match=r"mine\.int8\.json: not a readable record"):
        read_quantised(SPEC, weights)


@pytest.mark.parametrize("data", [b"", b"no safetensors", b"\xff" * 100])
def test_bytes_that_hold_no_layers_are_refused(data: bytes) -> None:
    with pytest.raises(WeightsError, match="not a file of 8-bit layers"):
        parse_layers(data, Path("any"))


def proof_by_truth(**changes: float) -> QuantisedAccuracy:
    """Return a proof equal to float32 but for `changes`."""

    def pair(name: str, value: float) -> Pair:
        return Pair(int8=value + changes.get(name, 0), float32=value)

    track = TrackAccuracy(
        pictures=3,
        mean_db=changes.get("mean_db", 40.0),
        worst_db=33.0,
        psnr_db=pair("psnr_db", 28.0),
        niqe=pair("niqe", 6.0),
        feature=pair("feature", 0.4),
    )
    smooth_share = changes.get("smooth_share", 0.9999)
    truth = TruthAccuracy(tracks=dict.fromkeys(TRACKS, track), smooth_share=smooth_share)
    return make_proof(36.0).model_copy(update={"truth": truth})


@pytest.mark.parametrize(
    ("name", "good", "bad", "bad_for_fast"),
    [
        ("mean_db", 39.0, 38.9, 36.9),
        ("psnr_db", -0.09, -0.11, -0.21),
        ("niqe", 0.14, -0.16, None),
        ("feature", 0.0029, 0.0031, 0.0101),
        ("smooth_share", 0.999, 0.9989, 0.98),
    ],
)
def test_a_network_that_invents_texture_is_allowed_by_its_distance_to_the_truth(
    name: str, good: float, bad: float, bad_for_fast: float | None
) -> None:
    assert why_not(proof_by_truth(**{name: good}), "auto") == ""
    assert why_not(proof_by_truth(**{name: bad}), "auto") != ""
    assert why_not(proof_by_truth(**{name: bad}), "fast") == ""
    if bad_for_fast is not None:
        assert why_not(proof_by_truth(**{name: bad_for_fast}), "fast") != ""


def test_an_unmeasured_metric_allows_no_precision() -> None:
    proof = proof_by_truth()
    assert proof.truth is not None
    unmeasured = proof.truth.tracks["jpeg"].model_copy(update={"feature": None})
    for tracks in ({"clean": proof.truth.tracks["clean"]}, dict.fromkeys(TRACKS, unmeasured)):
        truth = proof.truth.model_copy(update={"tracks": tracks})
        assert "not" in why_not(proof.model_copy(update={"truth": truth}), "fast")
    assert why_not(proof.model_copy(update={"truth": None}), "fast").endswith("must be 40")


@pytest.mark.parametrize(
    ("psnr_db", "allowed"),
    [(46.0, {"auto", "fast"}), (45.9, {"fast"}), (40.0, {"fast"}), (39, set())],
)
def test_any_network_is_allowed_by_its_pixels(psnr_db: float, allowed: set[str]) -> None:
    proof = proof_by_truth().model_copy(update={"psnr_db": psnr_db, "truth": None})
    assert {each for each in ("auto", "fast") if not why_not(proof, each)} == allowed
    unlike = proof.model_copy(update={"are_flats_kept": False})
    assert "flat colours" in why_not(unlike, "fast")


def test_levels_by_channel_are_read_back_unchanged() -> None:
    layers = make_layers()
    head = layers.convolutions["head"]
    assert head.quantised is not None
    scale = np.linspace(0.5, 2, 12).astype(np.float32)
    divided = replace(head, quantised=replace(head.quantised, input_scale=scale))
    layers = replace(layers, convolutions={**layers.convolutions, "head": divided})
    again = parse_layers(serialise_layers(layers), Path("any"))
    found = again.convolutions["head"].quantised
    assert found is not None
    assert found.input_scale is not None
    np.testing.assert_array_equal(found.input_scale, scale)
    assert digest_layers(again) == digest_layers(layers) != digest_layers(make_layers())
