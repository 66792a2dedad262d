import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.quantise.test_record import make_proof, proof_by_truth, write_int8
from tests.models.specs import spec_of
from upscaled_models.accuracy import INT8_BARS, RECORDED_BAR
from upscaled_models.autotune import candidates
from upscaled_models.autotune.candidates import Candidate, list_candidates
from upscaled_models.backends.base import LoadedModel
from upscaled_models.backends.device import Device
from upscaled_models.backends.openvino.runtime import has_fast_bfloat16
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.realplksr import realplksr_shape
from upscaled_models.files import hash_file
from upscaled_models.processor import EXACT_8_BITS, InstructionSet
from upscaled_models.quantise.files import read_record
from upscaled_models.quantise.pictures import draw_pictures
from upscaled_models.quantise.prepare import quantise
from upscaled_models.quantise.record import allowed_in
from upscaled_models.registry import DEFAULT_DIR, read_default_models
from upscaled_models.weights import load_network

CPU = Device(torch.device("cpu"), torch.float32, threads=1)
SHAPE = plain_shape(scale=2, layers=1, features=4)


def ignore(*arguments: object) -> None: ...


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    """A tiny model on disk, not quantised."""
    from safetensors.torch import save_file

    from upscaled_models.weights import build_network

    torch.manual_seed(1)
    file = tmp_path / "mine.safetensors"
    save_file(build_network("plain", SHAPE).state_dict(), file)
    spec = spec_of("mine", "plain", SHAPE, file_name=file.name, sha256=hash_file(file))
    return LoadedModel(spec, load_network(spec, file), window_px=64, weights=file)


def quantised(model: LoadedModel) -> LoadedModel:
    assert model.weights is not None
    quantise(model.spec, model.weights, None, steps=0, say=ignore, progress=ignore)
    return model


def list_openvino(model: LoadedModel, device: Device, precision: str) -> list[Candidate]:
    listed = list_candidates(model, device, precision)
    return [each for each in listed if each.backend == "openvino"]


def labels(model: LoadedModel, precision: str) -> list[str]:
    return [each.label for each in list_openvino(model, CPU, precision)]


def recorded(model: LoadedModel, psnr_db: float, *, are_flats_kept: bool = True) -> LoadedModel:
    """The model with a record of 8 bits beside it, of another file than the one there."""
    assert model.weights is not None
    proof = make_proof(psnr_db, are_flats_kept=are_flats_kept)
    write_int8(model.weights, model.spec, proof, sha256="0" * 64)
    return model


def test_8_bits_are_tried_where_they_were_prepared(model: LoadedModel) -> None:
    floats = ["openvino bfloat16", "openvino float32"]
    assert labels(model, "fast") == floats
    assert labels(replace(model, weights=None), "fast") == floats
    assert labels(recorded(model, 46.0), "fast") == ["openvino int8", *floats]


@pytest.mark.parametrize(
    ("psnr_db", "are_flats_kept", "precisions"),
    [
        (46.0, True, ["auto", "fast"]),
        (45.9, True, ["fast"]),
        (40.0, True, ["fast"]),
        (39.9, True, []),
        (60.0, False, []),
    ],
)
def test_the_recorded_proof_decides_in_which_precision_8_bits_are_tried(
    model: LoadedModel, psnr_db: float, are_flats_kept: bool, precisions: list[str]
) -> None:
    recorded(model, psnr_db, are_flats_kept=are_flats_kept)
    tried = [each for each in ("auto", "fast") if "openvino int8" in labels(model, each)]
    assert tried == precisions


@pytest.mark.parametrize("instructions", InstructionSet)
def test_8_bits_of_texture_are_not_tried_where_sums_may_saturate(
    model: LoadedModel, instructions: InstructionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "find_instruction_set", lambda: instructions)
    faithful = recorded(model, 60.0)
    vivid = replace(faithful, spec=replace(faithful.spec, family="rrdb"))
    assert "openvino int8" in labels(faithful, "auto")
    assert ("openvino int8" in labels(vivid, "auto")) == (instructions in EXACT_8_BITS)
    assert faithful.weights is not None
    write_int8(faithful.weights, faithful.spec, proof_by_truth(), sha256="0" * 64)
    assert ("openvino int8" in labels(faithful, "auto")) == (instructions in EXACT_8_BITS)


def test_8_bits_that_were_proven_by_the_truth_are_not_held_to_their_pixels(
    model: LoadedModel,
) -> None:
    assert model.weights is not None
    bars = []
    for proof in (make_proof(60.0), proof_by_truth()):
        write_int8(model.weights, model.spec, proof, sha256="0" * 64)
        first = list_openvino(model, CPU, "auto")[0]
        assert first.label == "openvino int8"
        bars.append(first.bar)
    assert bars == [INT8_BARS["auto"], RECORDED_BAR]


def test_advice_to_quantise_names_the_model_of_the_file_and_is_not_given_for_a_mix(
    model: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    strong = replace(model, spec=replace(model.spec, name="mine@1.0", same_as="mine", denoise=1.0))
    list_candidates(strong, CPU, "fast")
    list_candidates(replace(strong, weights=None, denoise=0.4), CPU, "fast")
    said = [line for line in caplog.messages if "quantise" in line]
    assert said == [
        "mine@1.0: not in 8 bits here; `upscaled models quantise mine` may make the file"
    ]


@pytest.mark.parametrize("name", ["upscaled-x2", "upscaled-x4-faithful"])
def test_the_faithful_models_are_allowed_in_8_bits_for_auto(name: str) -> None:
    (spec,) = [each for each in read_default_models() if each.name == name]
    assert allowed_in(read_record(spec, DEFAULT_DIR / spec.file_name), "auto")


def test_the_model_that_invents_texture_is_allowed_in_8_bits_for_fast_alone() -> None:
    (spec,) = [each for each in read_default_models() if each.name == "upscaled-x4"]
    found = read_record(spec, DEFAULT_DIR / spec.file_name)
    assert [each for each in ("auto", "fast") if allowed_in(found, each)] == ["fast"]


def test_missing_8_bits_are_logged(model: LoadedModel, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    labels(model, "fast")
    assert "not in 8 bits here; `upscaled models quantise mine`" in caplog.text
    labels(recorded(model, 41.0), "auto")
    assert "its 8 bits are not proven near enough for `auto`" in caplog.text


def test_8_bits_of_other_weights_are_refused_by_name(
    model: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    recorded(model, 60.0)
    other = replace(model, spec=replace(model.spec, sha256="0" * 64))
    assert "openvino int8" not in labels(other, "fast")
    assert "mine.int8.json: was made from other weights" in caplog.text


@pytest.mark.slow
def test_every_candidate_gives_nearly_the_picture_of_float32(model: LoadedModel) -> None:
    window = draw_pictures(None, seed=4)[1][0]
    for candidate in list_openvino(quantised(model), CPU, "fast"):
        if candidate.dtype == "bfloat16" and not has_fast_bfloat16():
            continue
        engine = candidate.open()
        (got,) = engine.start([window]).finish()
        (exact,) = engine.start([window], is_exact=True).finish()
        assert engine.info.label == candidate.label
        assert np.square(got.astype(int) - exact).mean() < 6.5  # 40 dB


def test_a_changed_8_bit_file_is_refused_when_it_is_opened(model: LoadedModel) -> None:
    (candidate, *_) = list_openvino(recorded(model, 60.0), CPU, "fast")
    with pytest.raises(Exception, match=r"mine\.int8\.safetensors: SHA-256 is"):
        candidate.open()


def test_no_candidate_is_for_a_gpu(model: LoadedModel) -> None:
    cuda = Device(torch.device("cuda"), torch.float16, threads=1)
    assert not list_openvino(model, cuda, "fast")


def test_a_network_that_there_is_no_graph_of_has_no_candidate(model: LoadedModel) -> None:
    shape = realplksr_shape(2, 8, 1, 5, 4, upsampler="dysample")
    spec = replace(model.spec, family="realplksr", shape=shape)
    assert list_openvino(model, CPU, "auto")
    assert not list_openvino(replace(model, spec=spec), CPU, "auto")
