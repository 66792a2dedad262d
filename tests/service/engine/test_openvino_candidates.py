import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.graphs.runtime import has_fast_bfloat16
from models.quantised import quantised_path
from models.quantising.pictures import draw_pictures
from models.quantising.prepare import quantise
from models.registry import describe_model, plain_shape
from models.store import hash_file
from models.weights import load_network
from service.engine.device import Device
from service.engine.loaded import LoadedModel
from service.engine.openvino_candidates import openvino_candidates

CPU = Device(torch.device("cpu"), torch.float32, threads=1)
SHAPE = plain_shape(scale=2, layers=1, features=4)


def ignore(*arguments: object) -> None: ...


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    """A tiny model on disk, not quantised."""
    from safetensors.torch import save_file

    from models.weights import build_network

    torch.manual_seed(1)
    file = tmp_path / "mine.safetensors"
    save_file(build_network("plain", SHAPE).state_dict(), file)
    spec = describe_model(
        "mine",
        "plain",
        SHAPE,
        file_name=file.name,
        size_bytes=file.stat().st_size,
        sha256=hash_file(file),
        licence="",
        source="user",
    )
    return LoadedModel(spec, load_network(spec, file), window_px=64, weights=file)


def quantised(model: LoadedModel) -> LoadedModel:
    assert model.weights is not None
    quantise(model.spec, model.weights, None, steps=0, say=ignore, progress=ignore)
    return model


def labels(model: LoadedModel, precision: str) -> list[str]:
    return [each.label for each in openvino_candidates(model, CPU, precision)]


def test_8_bits_are_tried_in_fast_alone_and_where_they_were_prepared(model: LoadedModel) -> None:
    floats = ["openvino bfloat16", "openvino float32"]
    assert labels(model, "fast") == floats
    assert labels(quantised(model), "fast") == ["openvino int8", *floats]
    assert labels(model, "auto") == floats
    assert labels(replace(model, weights=None), "fast") == floats


def test_fast_says_that_it_is_auto_where_there_are_no_8_bits(
    model: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    labels(model, "fast")
    assert "`fast` is `auto`; `upscaled models quantise mine`" in caplog.text


def test_8_bits_of_other_weights_are_refused_by_name(
    model: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    quantised(model)
    other = replace(model, spec=replace(model.spec, sha256="0" * 64))
    assert "openvino int8" not in labels(other, "fast")
    assert "mine.int8.json: was made from other weights" in caplog.text


def test_what_is_opened_gives_nearly_the_float32_picture(model: LoadedModel) -> None:
    window = draw_pictures(None, seed=4)[1][0]
    for candidate in openvino_candidates(quantised(model), CPU, "fast"):
        if candidate.dtype == "bfloat16" and not has_fast_bfloat16():
            continue
        engine = candidate.open()
        (got,) = engine.start([window]).finish()
        (exact,) = engine.start([window], is_exact=True).finish()
        assert engine.label == candidate.label
        assert np.square(got.astype(int) - exact).mean() < 6.5  # 40 dB


def test_a_changed_8_bit_file_is_refused_when_it_is_opened(model: LoadedModel) -> None:
    path = quantised_path(quantised(model).weights or Path())
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    (candidate, *_) = openvino_candidates(model, CPU, "fast")
    with pytest.raises(Exception, match=r"mine\.int8\.safetensors: SHA-256 is"):
        candidate.open()


def test_no_candidate_is_for_a_gpu(model: LoadedModel) -> None:
    cuda = Device(torch.device("cuda"), torch.float16, threads=1)
    assert not openvino_candidates(model, cuda, "fast")


def test_a_network_that_there_is_no_graph_of_has_no_candidate(model: LoadedModel) -> None:
    spec = replace(model.spec, family="realplksr")
    assert openvino_candidates(model, CPU, "auto")
    assert not openvino_candidates(replace(model, spec=spec), CPU, "auto")
