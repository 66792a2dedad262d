import stat
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from PIL import Image as PillowImage
from typer.testing import CliRunner, Result

from service.cli import image
from service.config import SettingsError
from tests.service.image.samples import RGB, RGBA, deep_samples, png

SIZE = (70, 66)


@pytest.fixture(autouse=True)
def _is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run that measures this machine first, and stores what it found."""
    monkeypatch.setenv("UPSCALED_PRECISION", "exact")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    PillowImage.fromarray(pixels).save(path)
    return path


def run(*arguments: str | Path) -> Result:
    app = typer.Typer()
    image.register(app)
    app.command("other")(lambda: None)  # with a single command typer would take no name
    return CliRunner().invoke(app, ["image", *map(str, arguments)])


@pytest.mark.parametrize("scale", [2, 4])
def test_a_photo_becomes_a_larger_jpeg_beside_it(photo: Path, scale: int) -> None:
    done = run(photo, "--scale", str(scale))

    target = photo.with_name(f"photo-x{scale}.jpg")
    assert (done.exit_code, done.stdout) == (0, f"{target}\n")
    with PillowImage.open(target) as result:
        assert result.format == "JPEG"
        assert result.size == (SIZE[0] * scale, SIZE[1] * scale)
    assert sorted(path.name for path in photo.parent.iterdir()) == [target.name, photo.name]


def test_transparency_becomes_png(photo: Path) -> None:
    with PillowImage.open(photo) as opened:
        opened.convert("RGBA").save(photo)

    assert run(photo, "--scale", "2").exit_code == 0
    with PillowImage.open(photo.with_name("photo-x2.png")) as result:
        assert (result.format, result.mode) == ("PNG", "RGBA")


def test_one_bad_file_does_not_stop_the_others(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    PillowImage.new("RGB", (9, 9)).save(tmp_path / "moving.gif")
    bad = ["text.jpg", "absent.jpg", "folder.png", "moving.gif"]

    done = run(*(tmp_path / name for name in bad), photo, "--scale", "2")

    assert done.exit_code == 1
    assert done.stdout == f"{photo.with_name('photo-x2.jpg')}\n"
    assert photo.with_name("photo-x2.jpg").is_file()
    for name in bad:
        assert str(tmp_path / name) in done.stderr
    assert "Traceback" not in done.stderr


def test_results_go_to_the_folder_asked_for_which_is_made(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"

    done = run(photo, "-o", folder, "--scale", "2")

    assert done.exit_code == 0
    assert [path.name for path in folder.iterdir()] == ["photo-x2.jpg"]


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("photo.png", "is a file"),
        ("photo.png/below", "Not a directory"),
        ("/proc/upscaled", "No such file or directory"),
        ("/proc", "No such file or directory"),
    ],
    ids=["a file", "below a file", "cannot be made", "takes no files"],
)
def test_a_folder_that_takes_no_result_is_told_once_before_an_engine_is_opened(
    photo: Path, monkeypatch: pytest.MonkeyPatch, folder: str, reason: str
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(image, "_open_engine", lambda *asked, **_: opened.append(asked))
    output_dir = photo.parent / folder

    done = run(photo, photo, "-o", output_dir, "--scale", "2")

    assert (done.exit_code, done.stdout, opened) == (1, "", [])
    assert done.stderr == f"upscaled: output folder {output_dir}: {reason}\n"


def test_what_cannot_be_written_is_told_by_the_name_of_the_result(photo: Path) -> None:
    target = photo.with_name("photo-x2.jpg")
    target.mkdir()

    done = run(photo, "--scale", "2")

    assert done.exit_code == 1
    assert f"upscaled: {target}: cannot be written: Is a directory\n" in done.stderr
    assert str(photo) not in done.stderr
    assert sorted(path.name for path in photo.parent.iterdir()) == [target.name, photo.name]


def test_a_second_run_replaces_its_result_and_leaves_the_source(photo: Path) -> None:
    before = photo.read_bytes()
    target = photo.with_name("photo-x2.jpg")
    target.write_text("an earlier result")

    assert run(photo, "--scale", "2").exit_code == 0
    assert photo.read_bytes() == before
    assert target.read_bytes()[:2] == b"\xff\xd8"


def test_a_result_that_is_a_link_to_the_source_does_not_touch_the_source(photo: Path) -> None:
    before = photo.read_bytes()
    target = photo.with_name("photo-x2.jpg")
    target.symlink_to(photo)

    assert run(photo, "--scale", "2").exit_code == 0
    assert photo.read_bytes() == before
    assert not target.is_symlink()


def test_two_sources_never_share_a_result(photo: Path, tmp_path: Path) -> None:
    twin = tmp_path / "photo.webp"
    with PillowImage.open(photo) as opened:
        opened.save(twin)

    done = run(photo, twin, "-o", tmp_path / "out", "--scale", "2")

    assert done.exit_code == 1
    assert done.stdout.count("\n") == 1
    assert "already the result of" in done.stderr


def test_results_are_readable_by_whom_the_umask_allows(photo: Path) -> None:
    assert run(photo, "--scale", "2").exit_code == 0
    ordinary = photo.with_name("ordinary")
    ordinary.touch()
    mode = photo.with_name("photo-x2.jpg").stat().st_mode
    assert stat.S_IMODE(mode) == stat.S_IMODE(ordinary.stat().st_mode)


@pytest.mark.parametrize("scale", ["1", "3", "0", "-2", "2.5", "x"])
def test_another_scale_is_a_usage_error(photo: Path, scale: str) -> None:
    assert run(photo, "--scale", scale).exit_code == 2


@pytest.mark.parametrize("arguments", [["--scale", "2"], []])
def test_without_files_or_scale_it_is_a_usage_error(photo: Path, arguments: list[str]) -> None:
    files = [] if arguments else [str(photo)]
    assert run(*files, *arguments).exit_code == 2


def test_an_unknown_model_is_told_before_any_work(photo: Path) -> None:
    done = run(photo, "--scale", "2", "--model", "realesrgan-x5plus")

    assert done.exit_code == 2
    assert "realesrgan-x4plus" in done.stderr
    assert not photo.with_name("photo-x2.jpg").exists()


@pytest.mark.parametrize("is_option", [True, False])
def test_a_model_that_is_not_fetched_is_told_by_what_asked_for_it(
    photo: Path, monkeypatch: pytest.MonkeyPatch, is_option: bool
) -> None:
    name = "realesrgan-x4plus"
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(photo.parent))
    monkeypatch.setenv("UPSCALED_MODEL_X2", "auto" if is_option else name)

    done = run(photo, "--scale", "2", *(["--model", name] if is_option else []))

    assert isinstance(done.exception, SettingsError)
    asked_by = "--model" if is_option else "UPSCALED_MODEL_X2"
    assert str(done.exception).startswith(f"{asked_by}='{name}': ")
    assert f"upscaled models fetch {name}" in str(done.exception)


@pytest.mark.parametrize(("width", "exit_code"), [(50, 0), (51, 1)])
def test_a_picture_may_grow_to_the_limit_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, exit_code: int
) -> None:
    monkeypatch.setattr(image, "MAX_RESULT_SIDE_PX", 200)
    path = tmp_path / "long.png"
    PillowImage.new("RGB", (width, 9)).save(path)

    assert run(path, "--scale", "4").exit_code == exit_code
    assert (tmp_path / "long-x4.jpg").exists() == (exit_code == 0)


def test_the_command_module_loads_no_network_code() -> None:
    """Every other command imports it too."""
    code = "import sys, service.cli.image; sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("channels", "deep_png", "ending", "bits"),
    [(3, False, "jpg", 8), (3, True, "png", 16), (4, False, "png", 16), (4, True, "png", 16)],
)
def test_16_bits_a_channel_stay_where_the_result_is_a_png(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    channels: int,
    deep_png: bool,
    ending: str,
    bits: int,
) -> None:
    monkeypatch.setenv("UPSCALED_DEEP_PNG", str(deep_png).lower())
    deep = tmp_path / "deep.png"
    deep.write_bytes(png(deep_samples(channels, 16, 66, 70), 16, RGB if channels == 3 else RGBA))

    done = run(deep, "--scale", "2")

    target = tmp_path / f"deep-x2.{ending}"
    assert (done.exit_code, done.stdout) == (0, f"{target}\n")
    result = cv2.imread(str(target), cv2.IMREAD_UNCHANGED)
    assert result is not None
    assert result.shape == (132, 140, channels)
    assert result.itemsize * 8 == bits
