"""`upscaled image` in a pipe: a picture on standard input, and one on standard output."""

import io
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage
from typer.testing import CliRunner, Result

from tests.running import UPSCALED, clean_environment
from tests.service.image.samples import picture, save
from upscaled.cli import build_app

PHOTO = save(picture(30, 40), "PNG")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(PHOTO)
    return path


def start(folder: Path, *arguments: str, **streams: int) -> subprocess.Popen[bytes]:
    environment = clean_environment(
        UPSCALED_DATA_DIR=str(folder / "data"),
        UPSCALED_PRECISION="exact",
        UPSCALED_AUTO_BUDGET_S="0",
    )
    pipe = subprocess.PIPE
    kinds: dict[str, Any] = {"stdin": pipe, "stdout": pipe, "stderr": pipe, **streams}
    return subprocess.Popen(
        [*UPSCALED, "image", *arguments, "--scale", "2"], env=environment, cwd=folder, **kinds
    )


@pytest.mark.slow
def test_a_pipe_carries_the_picture_and_nothing_else(tmp_path: Path) -> None:
    process = start(tmp_path, "-", "-o", "-", "--format", "webp")
    out, err = process.communicate(PHOTO, timeout=100)
    assert (process.returncode, err) == (0, b"")
    with PillowImage.open(io.BytesIO(out)) as result:
        assert (result.format, result.size) == ("WEBP", (80, 60))
    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == []


@pytest.fixture
def run(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Runs the command in this process, where torch is loaded already, behind a pipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UPSCALED_PRECISION", "exact")
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path_factory.mktemp("data")))

    def invoke(*arguments: str, source: bytes = b"") -> Result:
        reading, writing = os.pipe()
        os.write(writing, source)
        os.close(writing)
        before = os.dup(0)
        os.dup2(reading, 0)
        os.close(reading)
        try:
            app = build_app(("image", "config"))
            return CliRunner().invoke(app, ["image", *arguments, "--scale", "2"])
        finally:
            os.dup2(before, 0)
            os.close(before)

    return invoke


def test_a_picture_on_standard_input_may_have_a_file_as_its_result(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    done = run("-", "-o", "large.avif", source=PHOTO)
    assert done.exit_code == 0
    assert '"source": "-"' in done.stdout
    with PillowImage.open(tmp_path / "large.avif") as result:
        assert (result.format, result.size) == ("AVIF", (80, 60))


@pytest.mark.slow
def test_a_reader_that_is_gone_ends_it_without_a_word(tmp_path: Path) -> None:
    process = start(tmp_path, "-", "-o", "-")
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(PHOTO, timeout=100)
    assert (process.returncode, err) == (141, b"")


def test_what_is_no_picture_is_a_failure_and_writes_nothing(
    run: Callable[..., Result], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = run("-", "-o", "-", source=b"photo.png\n")
    assert (done.exit_code, done.stdout, capfd.readouterr().out) == (1, "", "")
    assert done.stderr == "upscaled: -: The image is malformed (no known image format)\n"
    assert list(tmp_path.iterdir()) == []


def test_a_picture_for_a_folder_without_a_name_is_refused(run: Callable[..., Result]) -> None:
    done = run("-", "-o", "folder", source=PHOTO)
    assert done.exit_code == 2
    assert "standard input is a PNG picture: -o FILE says where its result goes" in done.stderr


def test_no_picture_is_written_to_a_terminal(photo: Path) -> None:
    controller, terminal = pty.openpty()
    try:
        process = start(photo.parent, "photo.png", "-o", "-", stdout=terminal)
        _, err = process.communicate(timeout=100)
        assert process.returncode == 2
        assert b"which is a terminal" in b" ".join(err.replace(b"\xe2\x94\x82", b"").split())
    finally:
        os.close(terminal)
        os.close(controller)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["photo.png", "photo.png"], "give the name of one picture"),
        (["."], "give the name of one picture"),
        (["photo.png", "--json"], "standard output has the picture"),
        (["photo.png", "--null"], "-0 applies only to names"),
    ],
    ids=["two", "a folder", "lines of JSON as well", "no list"],
)
def test_a_wrong_call_with_standard_output_is_a_usage_error(
    photo: Path, run: Callable[..., Result], arguments: list[str], text: str
) -> None:
    assert photo.is_file()
    done = run(*arguments, "-o", "-")
    assert (done.exit_code, done.stdout) == (2, "")
    assert text in " ".join(done.stderr.replace("│", "").split())
