import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.models.ncnn.pairs import random_state, write_pair
from tests.models.specs import set_official, spec_of
from upscaled_models import files
from upscaled_models.errors import ModelError, ModelRefused, UnknownModel, WeightsError
from upscaled_models.families import Shape
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.files import FileState, hash_file
from upscaled_models.registry import official_models
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network, load_network

SHAPE: Shape = srvgg_shape(upscale=2, num_conv=1, num_feat=4)


def write_pair_files(folder: Path, shape: Shape) -> tuple[Path, Path]:
    """Write the ncnn pair of a small compact network."""
    files = folder / "theirs.param", folder / "theirs.bin"
    pair = write_pair("srvgg", shape, random_state("srvgg", shape))
    for file, content in zip(files, pair, strict=True):
        file.write_bytes(content)
    return files


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    """A user's own weights: a tiny compact network."""
    path = tmp_path / "theirs.safetensors"
    save_file(build_network("srvgg", SHAPE).state_dict(), path)
    return path


@pytest.fixture
def official_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of `tiny-official`, a model that is official for this test."""
    path = tmp_path / "carried" / "download(1).pth"
    path.parent.mkdir()
    torch.save({"params": build_network("srvgg", SHAPE).state_dict()}, path)
    spec = spec_of(
        "tiny-official",
        "srvgg",
        SHAPE,
        file_name="Tiny_Official.pth",
        size_bytes=path.stat().st_size,
        sha256=hash_file(path),
        licence="BSD-3-Clause",
        source="official",
        url="https://example.com/Tiny_Official.pth",
    )
    set_official(monkeypatch, *official_models(), spec)
    return path


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def states(store: ModelStore) -> dict[str, FileState]:
    return dict(store.verify())


def test_names_are_the_shipped_then_the_official_then_the_users_own(
    store: ModelStore, own_file: Path
) -> None:
    store.add("zebra", own_file)
    store.add("Ant.2", own_file)
    official = [spec.name for spec in official_models()]
    assert store.names() == ("upscaled-x4", *official, "Ant.2", "zebra")
    assert [store.find(name).name for name in store.names()] == list(store.names())


def test_an_empty_store_has_only_the_shipped_files(store: ModelStore) -> None:
    present = [name for name in store.names() if store.path(store.find(name))]
    assert present == ["upscaled-x4"]
    assert not store.models_dir.exists()


def test_an_unknown_name_is_answered_with_near_ones(store: ModelStore) -> None:
    with pytest.raises(UnknownModel, match="no model 'realesrgan-x4'; there is: realesrgan-x4plus"):
        store.find("realesrgan-x4")
    with pytest.raises(UnknownModel, match="there is: upscaled-x4, realesrgan-x4plus, "):
        store.find("qqq")


@pytest.mark.parametrize(
    "name", ["", "../own/mine", "own/mine", "/etc/passwd", "mine.json", "a\0b", "*"]
)
def test_no_name_leads_to_a_file_outside_of_the_folder(
    name: str, store: ModelStore, own_file: Path
) -> None:
    store.add("mine", own_file)
    for look in (store.find, store.remove):
        with pytest.raises(UnknownModel):
            look(name)
    assert states(store)["mine"] is FileState.OK


def test_a_users_own_file_is_recognised_copied_and_loads(store: ModelStore, own_file: Path) -> None:
    added = store.add("mine", own_file)
    own_file.unlink()
    spec = ModelStore(store.models_dir, store.default_dir).find("mine")
    assert spec == added
    assert (spec.family, spec.shape, spec.source) == ("srvgg", SHAPE, "user")
    assert (spec.native_scale, spec.halo_px) == (2, 3)
    path = store.path(spec)
    assert path is not None
    assert load_network(spec, path)(torch.rand(1, 3, 5, 6)).shape == (1, 3, 10, 12)
    assert files_under(store.models_dir) == {"own/mine.json", "own/mine.safetensors"}
    assert states(store)["mine"] is FileState.OK


def test_an_added_model_is_readable_by_every_user(store: ModelStore, own_file: Path) -> None:
    """The service often runs as a user of its own."""
    own_file.chmod(0o600)
    store.add("mine", own_file)
    modes = {path.stat().st_mode & 0o777 for path in (store.models_dir / "own").iterdir()}
    assert modes == {0o644}


def test_a_published_third_party_file_is_accepted(store: ModelStore, shared_dir: Path) -> None:
    file = shared_dir / "weights" / "4xLSDIRCompactC3.fp16.safetensors"
    if not file.is_file():
        pytest.skip(f"no {file}")
    spec = store.add("4xLSDIRCompactC3", file)
    assert spec.shape == srvgg_shape(upscale=4, num_conv=16)
    path = store.path(spec)
    assert path is not None
    image = torch.rand(1, 3, 8, 8)
    assert load_network(spec, path)(image).shape == (1, 3, 32, 32)


UNSAFE = ("", ".hidden", "-x", "a/b", "..", "a b", "ä", "a\n", "a" * 65, "a\0", "~")
IN_USE = ("upscaled-x4", "auto", "Auto", "RealESRGAN-x4plus", "mine.int8")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, "cannot be a model's name") for name in UNSAFE),
        *((name, "is in use") for name in IN_USE),
    ],
)
def test_a_name_that_is_unsafe_or_in_use_in_any_case_is_refused(
    name: str, reason: str, store: ModelStore, own_file: Path
) -> None:
    with pytest.raises(ModelRefused, match=reason):
        store.add(name, own_file)
    assert not store.models_dir.exists()


@pytest.mark.parametrize("name", ["a", "4xLSDIR_Compact-C3.v2", "a" * 64])
def test_a_safe_name_is_accepted(name: str, store: ModelStore, own_file: Path) -> None:
    assert store.add(name, own_file).name == name


def test_the_8_bits_of_a_users_own_model_are_no_model(store: ModelStore, own_file: Path) -> None:
    store.add("mine", own_file)
    record = store.models_dir / "own" / "mine.int8.json"
    record.write_text("{}")
    assert [name for name in store.names() if name.startswith("mine")] == ["mine"]
    assert states(store)["mine"] is FileState.OK


def test_another_file_under_a_users_name_is_refused_and_the_first_kept(
    store: ModelStore, own_file: Path
) -> None:
    first = store.add("mine", own_file)
    save_file(build_network("srvgg", SHAPE).state_dict(), own_file)
    with pytest.raises(ModelRefused, match=r"already names another file.*mine\.json"):
        store.add("mine", own_file)
    assert store.find("mine") == first
    assert states(store)["mine"] is FileState.OK
    assert files_under(store.models_dir) == {"own/mine.json", "own/mine.safetensors"}


def test_adding_the_same_file_again_repairs_a_damaged_copy(
    store: ModelStore, own_file: Path
) -> None:
    target = store.target(store.add("mine", own_file))
    target.write_bytes(target.read_bytes()[:-1] + b"x")
    assert states(store)["mine"] is FileState.WRONG_HASH
    store.add("mine", own_file)
    assert states(store)["mine"] is FileState.OK


def test_a_refused_file_leaves_nothing_behind(store: ModelStore, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pth"
    junk.write_bytes(b"not weights")
    with pytest.raises(WeightsError, match=rf"^{junk}: not a weights file"):
        store.add("mine", junk)
    with pytest.raises(ModelRefused, match=r"there is no such file"):
        store.add("mine", tmp_path / "absent.pth")
    with pytest.raises(ModelRefused, match=r"there is no such file"):
        store.add("mine", tmp_path)
    assert files_under(store.models_dir) == set()


def test_an_ncnn_pair_is_kept_as_one_file_of_the_same_weights(
    store: ModelStore, tmp_path: Path
) -> None:
    state = random_state("srvgg", SHAPE)
    param, weights = write_pair_files(tmp_path, SHAPE)
    added = store.add("mine", weights, param)
    assert (added.family, added.shape, added.source) == ("srvgg", SHAPE, "user")
    path = store.path(added)
    assert path is not None
    loaded = load_network(added, path).state_dict()
    assert loaded.keys() == state.keys()
    assert all(np.array_equal(loaded[key].numpy(), state[key]) for key in state)
    assert states(store)["mine"] is FileState.OK
    path.write_bytes(b"x")
    assert store.add("mine", param, weights) == added
    assert states(store)["mine"] is FileState.OK


def test_a_pair_keeps_what_its_weights_do_not_state(store: ModelStore, tmp_path: Path) -> None:
    """ReLU has no weights, so a weights file alone would be taken for LeakyReLU's."""
    shape = srvgg_shape(upscale=4, num_conv=1, num_feat=4, act_type="relu")
    param, weights = write_pair_files(tmp_path, shape)
    assert store.add("mine", param, weights).shape == shape
    assert store.find("mine").shape == shape


def test_a_pair_that_is_refused_leaves_nothing_behind(store: ModelStore, tmp_path: Path) -> None:
    param, weights = tmp_path / "theirs.param", tmp_path / "theirs.bin"
    param.write_bytes(b"7767517\n")
    weights.write_bytes(b"")
    with pytest.raises(WeightsError, match=r"theirs\.param: line 2 must be"):
        store.add("mine", param, weights)
    with pytest.raises(WeightsError, match=r"theirs\.param: a model is one weights file, or two"):
        store.add("mine", param)
    with pytest.raises(WeightsError, match=r"one weights file, or two"):
        store.add("mine", param, weights, weights)
    write_pair_files(tmp_path, SHAPE)
    with pytest.raises(ModelRefused, match="realesrnet-x4plus is not known as an ncnn pair"):
        store.add("realesrnet-x4plus", param, weights)
    with pytest.raises(ModelRefused, match="its weights differ from the known ones"):
        store.add("realesrgan-x4plus", param, weights)
    assert files_under(store.models_dir) == set()


def test_a_torch_file_may_be_called_bin(store: ModelStore, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(build_network("srvgg", SHAPE).state_dict(), path)
    assert store.add("mine", path).shape == SHAPE


def test_a_users_own_model_is_removed_with_all_that_was_made_of_it(
    store: ModelStore, own_file: Path
) -> None:
    store.add("mine", own_file)
    store.add("other", own_file)
    own = store.models_dir / "own"
    for name in ("mine.int8.json", "mine.int8.safetensors"):
        (own / name).write_bytes(b"x")
    removed = store.remove("mine")
    assert removed[0] == own / "mine.json", "first: without its record, a model is gone"
    assert len(removed) == 4
    assert files_under(store.models_dir) == {"own/other.json", "own/other.safetensors"}
    with pytest.raises(UnknownModel):
        store.find("mine")
    with pytest.raises(UnknownModel):
        store.remove("mine")


def test_a_users_own_model_is_removed_though_its_record_is_damaged(
    store: ModelStore, own_file: Path
) -> None:
    store.add("mine", own_file)
    (store.models_dir / "own" / "mine.json").write_text("{")
    store.remove("mine")
    assert files_under(store.models_dir) == set()


def test_an_official_model_is_removed_with_a_fetch_that_broke_off(
    store: ModelStore, official_file: Path
) -> None:
    store.add("tiny-official", official_file)
    part = store.models_dir / "Tiny_Official.pth.part"
    part.write_bytes(b"x")
    assert store.remove("tiny-official") == [store.models_dir / "Tiny_Official.pth", part]
    assert states(store)["tiny-official"] is FileState.NOT_FETCHED
    with pytest.raises(ModelRefused, match="none of the files of tiny-official is here"):
        store.remove("tiny-official")


def test_a_shipped_model_is_never_removed(store: ModelStore) -> None:
    with pytest.raises(ModelRefused, match="upscaled-x4 is shipped"):
        store.remove("upscaled-x4")
    assert states(store)["upscaled-x4"] is FileState.OK


def test_an_official_file_carried_in_lies_under_its_official_name(
    store: ModelStore, official_file: Path
) -> None:
    spec = store.add("tiny-official", official_file)
    assert store.path(spec) == store.models_dir / "Tiny_Official.pth"
    assert states(store)["tiny-official"] is FileState.OK
    assert official_file.is_file()


def test_a_file_that_is_not_the_official_one_is_refused_under_its_name(
    store: ModelStore, official_file: Path, own_file: Path
) -> None:
    longer = official_file.with_name("longer.pth")
    longer.write_bytes(official_file.read_bytes() + b"x")
    other = official_file.with_name("other.pth")
    other.write_bytes(official_file.read_bytes()[:-1] + b"x")
    sha256 = hash_file(official_file)
    for file, problem in ((longer, "wrong size"), (other, "wrong hash"), (own_file, "wrong size")):
        with pytest.raises(ModelRefused, match=rf"{file.name}: .*{problem}.*{sha256}"):
            store.add("tiny-official", file)
    assert files_under(store.models_dir) == set()


def test_an_official_file_may_also_be_copied_by_hand(
    store: ModelStore, official_file: Path
) -> None:
    assert states(store)["tiny-official"] is FileState.NOT_FETCHED
    store.models_dir.mkdir()
    shutil.copy(official_file, store.target(store.find("tiny-official")))
    assert states(store)["tiny-official"] is FileState.OK


def test_verify_finds_each_way_a_file_can_be_wrong(store: ModelStore, own_file: Path) -> None:
    for name in ("fine", "shorter", "changed", "gone", "garbled"):
        store.add(name, own_file)
    own = store.models_dir / "own"
    data = own_file.read_bytes()
    (own / "shorter.safetensors").write_bytes(data[:-1])
    (own / "changed.safetensors").write_bytes(data[:-1] + b"x")
    (own / "gone.safetensors").unlink()
    (own / "garbled.json").write_text("{}")
    found = states(store)
    assert {name: found[name] for name in ("fine", "shorter", "changed", "gone", "garbled")} == {
        "fine": FileState.OK,
        "shorter": FileState.WRONG_SIZE,
        "changed": FileState.WRONG_HASH,
        "gone": FileState.MISSING,
        "garbled": FileState.DAMAGED_RECORD,
    }
    assert found["upscaled-x4"] is FileState.OK
    assert found["realesrgan-x4plus"] is FileState.NOT_FETCHED
    assert {state for state in FileState if not state.is_fault} == {
        FileState.OK,
        FileState.NOT_FETCHED,
    }


def test_a_file_that_cannot_be_read_is_a_fault_and_no_crash(
    store: ModelStore, own_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add("mine", own_file)

    def refuse(_path: Path) -> str:
        raise PermissionError

    monkeypatch.setattr(files, "hash_file", refuse)
    assert states(store)["mine"] is FileState.UNREADABLE


def test_a_missing_shipped_file_is_a_fault(store: ModelStore) -> None:
    (store.default_dir / "upscaled-x4.safetensors").unlink()
    assert states(store)["upscaled-x4"] is FileState.MISSING


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../secret.pth"},
        {"file": "/etc/passwd"},
        {"sha256": "short"},
        {"family": "unet"},
        {"shape": {}},
        {"shape": {**SHAPE, "num_conv": "many"}},
        {"shape": {**SHAPE, "num_conv": 10**9}},
        {"shape": {**SHAPE, "dilation": 2}},
        {"more": 1},
    ],
)
def test_a_record_that_was_tampered_with_is_refused_by_name(
    change: dict[str, object], store: ModelStore, own_file: Path
) -> None:
    store.add("mine", own_file)
    record = store.models_dir / "own" / "mine.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **change}))
    with pytest.raises(ModelError, match=r"own/mine\.json: not a readable record"):
        store.find("mine")


def test_a_folder_that_cannot_be_made_is_refused_by_name(
    store: ModelStore, own_file: Path, official_file: Path
) -> None:
    store.models_dir.write_text("a file where the folder should be")
    for name, file in (("mine", own_file), ("tiny-official", official_file)):
        with pytest.raises(ModelRefused, match=rf"cannot be copied into {store.models_dir}"):
            store.add(name, file)


@pytest.mark.parametrize("scale", range(1, 9))
def test_only_a_model_that_makes_both_scales_is_accepted(tmp_path: Path, scale: int) -> None:
    path = tmp_path / "theirs.safetensors"
    shape = srvgg_shape(upscale=scale, num_conv=1, num_feat=4)
    save_file(build_network("srvgg", shape).state_dict(), path)
    store = ModelStore(tmp_path / "models")
    if scale in (2, 4, 8):
        assert store.add("mine", path).native_scale == scale
        return
    with pytest.raises(ModelRefused, match=f"^mine: a model of x{scale}; x2 and x4 cannot both"):
        store.add("mine", path)
    assert not files_under(tmp_path / "models")
