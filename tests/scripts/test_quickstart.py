"""Real runs of quickstart: a fresh clone, an environment of its own, the service, a photo."""

import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clone what is committed."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone, so it cannot be cloned")
    folder = tmp_path_factory.mktemp("fresh") / "upscaled"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


def _run(clone: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(clone / "scripts" / "quickstart"), *arguments]
    # No terminal and no input: a question would end it.
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "UPSCALED_PACKAGED_MODELS": "true"},  # as by default
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def _size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


def test_a_fresh_clone_upscales_the_sample(clone: Path, tmp_path: Path) -> None:
    finished = _run(clone, tmp_path, "--once")
    assert finished.returncode == 0, finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["result-cat.jpg"]
    assert _size_of(tmp_path / "result-cat.jpg") == (1804, 1200)
    assert "cat.jpg: 451 x 300, sent at scale 4" in finished.stdout
    assert re.search(r"result-cat\.jpg: 1804 x 1200, by \S+, after [\d.]+ s", finished.stdout)
    taken = clone / ".upscaled" / "models" / "RealESRGAN_x4plus.fp16.safetensors"
    if "going on without the official weights" not in finished.stderr:
        assert taken.is_file()


def test_the_second_run_installs_nothing(clone: Path, tmp_path: Path) -> None:
    finished = _run(clone, tmp_path, "--once")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""


def test_a_clone_that_was_used_has_nothing_to_commit(clone: Path) -> None:
    status = ["git", "-C", str(clone), "status", "--porcelain"]
    assert subprocess.run(status, check=True, capture_output=True, text=True).stdout == ""


def test_a_wide_photo_with_alpha_becomes_a_png_at_scale_2(clone: Path, tmp_path: Path) -> None:
    photo = tmp_path / "a banner.png"
    Image.new("RGBA", (1501, 64), (200, 80, 40, 128)).save(photo)
    finished = _run(clone, tmp_path, "a banner.png", "--once")
    assert finished.returncode == 0, finished.stderr
    assert _size_of(tmp_path / "result-a banner.png") == (3002, 128)
    assert "sent at scale 2 (scale 4 takes sides to 1500 px)" in finished.stdout


def test_a_photo_that_cannot_be_sent_fails_the_command(clone: Path, tmp_path: Path) -> None:
    finished = _run(clone, tmp_path, "nowhere.jpg", "--once")
    assert finished.returncode == 1
    assert "cannot read nowhere.jpg" in finished.stderr


def _heed_ctrl_c() -> None:
    """Restore SIGINT, which a shell's background processes ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _going_on(clone: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Quickstart without --once, once it serves; and what it printed until then."""
    process = subprocess.Popen(
        [str(clone / "scripts" / "quickstart")],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_ctrl_c,
    )
    lines: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if "Ctrl-C stops" in line:
                break
        yield process, lines
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def _find_curl(lines: list[str]) -> list[str]:
    (line,) = [line for line in lines if line.strip().startswith("curl ")]
    return shlex.split(line)


def _is_open(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_it_serves_the_curl_line_it_prints_until_a_signal_stops_it(
    clone: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    Image.new("RGB", (64, 64), (200, 80, 40)).save(tmp_path / "photo.jpg")
    with _going_on(clone, tmp_path) as (process, lines):
        curl = _find_curl(lines)
        port = int(curl[1].split(":")[2].split("/")[0])
        sent = subprocess.run([*curl, "--silent", "--fail-with-body"], cwd=tmp_path)
        assert sent.returncode == 0, (tmp_path / "upscaled.jpg").read_bytes()[:300]
        assert _size_of(tmp_path / "upscaled.jpg") == (256, 256)
        assert _is_open(port)
        os.kill(process.pid, number)
        assert process.wait(60) == status
        assert not _is_open(port)
