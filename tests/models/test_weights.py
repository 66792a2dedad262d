import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.specs import spec_of
from upscaled_models import weights
from upscaled_models.errors import WeightsError
from upscaled_models.families import Family, Shape
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.registry import ModelSpec, official_models
from upscaled_models.weights import build_network, load_network, read_state, recognise_file

TINY: list[tuple[Family, Shape]] = [
    ("rrdb", rrdb_shape(scale=2, num_block=1, num_feat=4, num_grow_ch=2)),
    ("srvgg", srvgg_shape(upscale=4, num_conv=1, num_feat=4)),
    ("plain", plain_shape(scale=4, layers=1, features=4)),
]
SRVGG = TINY[1]


def state_of(family: Family, shape: Shape) -> dict[str, Tensor]:
    return build_network(family, shape).state_dict()


def spec_for(path: Path, family: Family, shape: Shape, wdn: ModelSpec | None = None) -> ModelSpec:
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    return spec_of(
        "tiny", family, shape, file_name=path.name, size_bytes=len(data), sha256=sha256, wdn=wdn
    )


class CreatesAFile:
    """A pickle of this creates a folder if it is run, which is harmless and visible."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrapper", ["params_ema", "params", None])
@pytest.mark.parametrize(("family", "shape"), TINY, ids=[family for family, _ in TINY])
def test_a_torch_file_is_loaded_under_each_usual_key_of_its_weights(
    family: Family, shape: Shape, wrapper: str | None, tmp_path: Path
) -> None:
    state = state_of(family, shape)
    path = tmp_path / "tiny.pth"
    torch.save({wrapper: state} if wrapper else state, path)
    loaded = load_network(spec_for(path, family, shape), path).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    averaged, last = state_of(*SRVGG), state_of(*SRVGG)
    path = tmp_path / "tiny.pth"
    torch.save({"params": last, "params_ema": averaged}, path)
    loaded = load_network(spec_for(path, *SRVGG), path).state_dict()
    assert torch.equal(loaded["body.0.weight"], averaged["body.0.weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_any_precision_is_loaded_as_float32_ready_to_run(
    dtype: torch.dtype, suffix: str, tmp_path: Path
) -> None:
    state = {key: value.to(dtype) for key, value in state_of(*SRVGG).items()}
    path = tmp_path / f"tiny{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    network = load_network(spec_for(path, *SRVGG), path)
    assert not network.training
    for key, value in network.named_parameters():
        assert value.dtype == torch.float32
        assert value.device.type == "cpu"
        assert not value.requires_grad
        assert torch.equal(value, state[key].float())


def test_weights_kept_as_a_view_of_a_larger_storage_are_loaded(tmp_path: Path) -> None:
    state = state_of(*SRVGG)
    stretched = {key: torch.stack([value, value], dim=-1)[..., 0] for key, value in state.items()}
    path = tmp_path / "tiny.pth"
    torch.save(stretched, path)
    network = load_network(spec_for(path, *SRVGG), path)
    assert torch.equal(network.state_dict()["body.0.weight"], state["body.0.weight"])


def test_a_file_with_another_hash_is_refused_with_both_hashes(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    torch.save(state_of(*SRVGG), path)
    spec = spec_for(path, *SRVGG)
    torch.save(state_of(*SRVGG), path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match=rf"tiny\.pth: .*{found}.*{spec.sha256}"):
        load_network(spec, path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"body.2.bias": None}, r"body\.2\.bias is missing$"),
        (
            dict.fromkeys(("x.weight", "x.bias"), (1,)),
            r"x\.bias belongs to no part .*\(and 1 more\)",
        ),
        ({"body.2.bias": (5,)}, r"body\.2\.bias has shape \(5,\), must be \(4,\)"),
    ],
    ids=["a missing key", "keys of another network", "another shape"],
)
def test_weights_that_do_not_fill_the_network_are_refused_by_name(
    changes: dict[str, tuple[int, ...] | None], reason: str, tmp_path: Path
) -> None:
    state = state_of(*SRVGG)
    for key, size in changes.items():
        if size is None:
            del state[key]
        else:
            state[key] = torch.zeros(size)
    path = tmp_path / "tiny.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError, match=rf"tiny\.safetensors: {reason}"):
        load_network(spec_for(path, *SRVGG), path)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (torch.zeros(4, dtype=torch.int64), "holds torch.int64"),
        (torch.tensor([0.0, float("nan"), 0, 0]), "not finite"),
        (torch.tensor([0.0, float("inf"), 0, 0]), "not finite"),
        ("four", "holds str"),
        ([0.0] * 4, "holds list"),
    ],
)
def test_a_value_that_is_no_weight_is_refused_by_its_key(
    value: object, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.pth"
    torch.save({**state_of(*SRVGG), "body.2.bias": value}, path)
    with pytest.raises(WeightsError, match=rf"tiny\.pth: body\.2\.bias .*{problem}"):
        load_network(spec_for(path, *SRVGG), path)


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    """With a stride of 0 one stored number claims any amount of memory."""
    path = tmp_path / "tiny.pth"
    torch.save({"body.0.weight": torch.zeros(1).expand(1 << 40)}, path)
    with pytest.raises(WeightsError, match=r"body\.0\.weight .*more values than the file holds"):
        read_state(path.read_bytes(), path)


def test_a_compressed_torch_file_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    torch.save({"body.0.weight": torch.zeros(1 << 20)}, path)
    squeezed = tmp_path / "squeezed.pth"
    with (
        zipfile.ZipFile(path) as whole,
        zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as smaller,
    ):
        for entry in whole.infolist():
            smaller.writestr(entry.filename, whole.read(entry))
    assert squeezed.stat().st_size < path.stat().st_size / 100
    with pytest.raises(WeightsError, match=r"squeezed\.pth: holds compressed tensors"):
        read_state(squeezed.read_bytes(), squeezed)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_tensor_that_is_not_plain_is_refused_by_its_key(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    for value in (torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta")):
        torch.save({"body.0.weight": value}, path)
        with pytest.raises(WeightsError, match=r"body\.0\.weight holds no plain tensor"):
            read_state(path.read_bytes(), path)


def test_a_file_of_the_old_torch_format_is_loaded(tmp_path: Path) -> None:
    state = state_of(*SRVGG)
    path = tmp_path / "tiny.pth"
    torch.save({"params": state}, path, _use_new_zipfile_serialization=False)
    loaded = read_state(path.read_bytes(), path)
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "old"])
def test_a_file_with_flipped_bytes_is_loaded_or_refused_and_never_crashes(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / ("tiny.safetensors" if kind == "safetensors" else "tiny.pth")
    if kind == "safetensors":
        save_file(state_of(*SRVGG), path)
    else:
        torch.save(state_of(*SRVGG), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    random = Random(7)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(random.choice((1, 1, 8))):
            damaged[random.randrange(min(len(damaged), 3000))] = random.randrange(256)
        try:
            read_state(bytes(damaged), path)
        except WeightsError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("content", [{}, [torch.zeros(1)], torch.zeros(1), "text", {"params": {}}])
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=r"tiny\.pth: holds no weights"):
        read_state(path.read_bytes(), path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_truncated_file_is_refused_wherever_it_ends(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"tiny{suffix}"
    state = state_of(*SRVGG)
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    whole = path.read_bytes()
    for length in {0, 1, 7, 8, 9, *range(16, len(whole), len(whole) // 40), len(whole) - 1}:
        with pytest.raises(WeightsError, match="damaged one"):
            read_state(whole[:length], path)


@pytest.mark.parametrize("is_zipped", [True, False])
def test_a_pickle_with_code_to_run_is_refused_and_does_not_run(
    is_zipped: bool, tmp_path: Path
) -> None:
    created = tmp_path / "created"
    path = tmp_path / "payload.pth"
    content = {"params": {**state_of(*SRVGG), "body.2.bias": CreatesAFile(created)}}
    torch.save(content, path, _use_new_zipfile_serialization=is_zipped)
    with pytest.raises(WeightsError, match=r"payload\.pth: not a weights file"):
        recognise_file(path)
    with pytest.raises(WeightsError, match=r"payload\.pth: not a weights file"):
        load_network(spec_for(path, *SRVGG), path)
    assert not created.exists()


@pytest.mark.parametrize(
    "content", [b"import torch\n", b"root:x:0:0:root:/root:/bin/sh\nlp:x:7\n", b"hello\n", b""]
)
def test_a_text_is_refused_as_no_weights_file_without_quoting_torch(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "some.txt"
    with pytest.raises(WeightsError) as refused:
        read_state(content, path)
    said = f"{path}: not a weights file, or a damaged one: no torch file of plain tensors"
    assert str(refused.value) == said
    assert refused.value.__cause__ is not None


def test_a_bare_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    created = tmp_path / "created"
    data = pickle.dumps(CreatesAFile(created))
    for name in ("payload.pth", "payload.pt", "payload.safetensors"):
        with pytest.raises(WeightsError, match=rf"{name}: not a "):
            read_state(data, tmp_path / name)
    assert not created.exists()
    pickle.loads(data)
    assert created.exists(), "the payload itself works, so its absence above means something"


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pth: cannot be read: No such file"):
        load_network(official_models()[0], tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="cannot be read: Is a directory"):
        load_network(official_models()[0], tmp_path)


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_what_is_no_regular_file_is_refused_without_reading_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "own.pth"
    if kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)
    with pytest.raises(WeightsError, match=r"own\.pth: is no regular file$"):
        load_network(official_models()[0], path)


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.pth"
    torch.save(state_of(*SRVGG), path)
    size_bytes = path.stat().st_size
    monkeypatch.setattr(weights, "MAX_WEIGHTS_BYTES", size_bytes)
    load_network(spec_for(path, *SRVGG), path)
    monkeypatch.setattr(weights, "MAX_WEIGHTS_BYTES", size_bytes - 1)
    with pytest.raises(WeightsError, match=f"{size_bytes} bytes are more than"):
        load_network(spec_for(path, *SRVGG), path)


def test_denoise_mixes_in_the_partner(tmp_path: Path) -> None:
    general, partner = state_of(*SRVGG), state_of(*SRVGG)
    path, wdn_path = tmp_path / "tiny.pth", tmp_path / "wdn.pth"
    torch.save(general, path)
    torch.save(partner, wdn_path)
    spec = spec_for(path, *SRVGG, wdn=spec_for(wdn_path, *SRVGG))
    mixed = load_network(spec, path, denoise=0.3, wdn_path=wdn_path).state_dict()
    key = "body.2.weight"
    assert torch.allclose(mixed[key], 0.3 * general[key] + 0.7 * partner[key], atol=1e-7)
    alone = load_network(spec, path, denoise=1.0).state_dict()
    assert torch.equal(alone[key], general[key])


def test_denoise_without_its_partner_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    torch.save(state_of(*SRVGG), path)
    (wdn,) = (spec for spec in official_models() if spec.name == "realesr-general-wdn-x4v3")
    with pytest.raises(WeightsError, match="tiny has no denoise strength"):
        load_network(spec_for(path, *SRVGG), path, denoise=0.5)
    with pytest.raises(WeightsError, match="also needs realesr-general-wdn-x4v3"):
        load_network(spec_for(path, *SRVGG, wdn=wdn), path, denoise=0.5)
    with pytest.raises(WeightsError, match="not the file of realesr-general-wdn-x4v3"):
        load_network(spec_for(path, *SRVGG, wdn=wdn), path, denoise=0.5, wdn_path=path)


def test_a_file_that_fits_its_network_but_for_one_key_is_not_recognised(tmp_path: Path) -> None:
    path, shown = tmp_path / "copy.safetensors", Path("/home/me/mine.safetensors")
    save_file({**state_of(*SRVGG), "body.9.bias": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"^/home/me/mine\.safetensors: body\.9\.bias belongs"):
        recognise_file(path, shown_as=shown)
    save_file({"something.else": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"^/home/me/mine\.safetensors: no network known here"):
        recognise_file(path, shown_as=shown)


def test_a_small_file_that_claims_a_huge_network_is_refused_without_building_it(
    tmp_path: Path,
) -> None:
    """One block of it would take 18 GB."""
    path = tmp_path / "huge.safetensors"
    sizes = {
        "conv_first.weight": (4096, 3, 1, 1),
        "body.0.rdb1.conv1.weight": (4096, 1, 1, 1),
        "conv_last.weight": (3, 1, 1, 1),
    }
    save_file({key: torch.zeros(size) for key, size in sizes.items()}, path)
    assert path.stat().st_size < 100_000
    with pytest.raises(WeightsError, match=r"body\.0\.rdb1\.conv1\.bias is missing \(and"):
        recognise_file(path)
