"""`upscaled image` in a process of its own: killed, interrupted, fed from a list."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage

from tests.running import UPSCALED, clean_environment
from tests.service.cli.invoking import invoke
from tests.service.image.samples import picture, save
from upscaled.batch.journal import FILE_NAME, Journal

COUNT = 24
FIRST = 4
"""Results after which a run is ended from outside."""
PIPE_BYTES = 4096
"""Room for the reports of at most seven images (see `source_dir`): a run whose reports are read
late waits in the middle, and cannot reach its end before the signal that is to interrupt it."""


@pytest.fixture
def source_dir(tmp_path: Path) -> Path:
    """A folder of sources whose names make the report of each longer than `PIPE_BYTES / 7`."""
    folder = tmp_path / "in"
    for number in range(COUNT):
        path = folder / f"{number % 3}" / f"{number:02}{'-' * 200}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(save(picture(96, 96) // 2 + number, "PNG"))
    return folder


def start(folder: Path, *arguments: str, is_text: bool = True) -> subprocess.Popen[Any]:
    environment = clean_environment(
        UPSCALED_DATA_DIR=str(folder / "data"),
        UPSCALED_PRECISION="exact",
        UPSCALED_AUTO_BUDGET_S="0",
    )
    return subprocess.Popen(
        [*UPSCALED, "image", *arguments, "--scale", "2", "-o", str(folder / "out")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=is_text,
    )


def run(folder: Path, *arguments: str, names: str = "") -> tuple[int, list[dict[str, Any]]]:
    """(exit status, the lines but the summary) of a run that is left alone."""
    process = start(folder, *arguments)
    out, err = process.communicate(names, timeout=100)
    assert "Traceback" not in err
    return process.returncode, [json.loads(line) for line in out.splitlines()][:-1]


def run_until(folder: Path, number: int, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """As `run`, with a signal once there are some results; returns every line that came."""
    process = start(folder, *arguments)
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    first = [process.stdout.readline() for _ in range(FIRST)]
    process.send_signal(number)
    rest, err = process.communicate(timeout=100)
    assert number == signal.SIGKILL or "run the same command again to continue" in err
    assert "Traceback" not in err
    return process.returncode, [json.loads(line) for line in (*first, *rest.splitlines())]


def files_of(output_dir: Path) -> dict[str, tuple[int, int, str]]:
    """By name: what would change if a file was written again, and a hash of what is in it."""
    return {
        str(path.relative_to(output_dir)): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in output_dir.rglob("*")
        if path.is_file() and not path.name.startswith(FILE_NAME)
    }


def assert_is_whole(source_dir: Path, output_dir: Path) -> None:
    """Each source has its result, as the journal knows it, and nothing else lies there."""
    files = files_of(output_dir)
    expected = {
        str(path.relative_to(source_dir).with_name(f"{path.stem}-x2.jpg"))
        for path in source_dir.rglob("*.png")
    }
    assert set(files) == expected
    with Journal(output_dir / FILE_NAME) as journal:
        assert journal.interrupted() == []
        for name, (_, _, digest) in files.items():
            row = journal.find(Path(name))
            assert row is not None
            assert row.record is not None
            assert row.record.sha256.hex() == digest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_an_interrupted_run_drops_files_in_flight_and_reports_it(
    source_dir: Path, tmp_path: Path, number: int, status: int
) -> None:
    found, lines = run_until(tmp_path, number, str(source_dir))
    assert found == status
    assert FIRST <= lines[-1]["summary"]["upscaled"] < COUNT
    files = files_of(tmp_path / "out")
    assert len(files) == lines[-1]["summary"]["upscaled"]
    assert not any(_is_hidden(name) for name in files)


@pytest.mark.slow
def test_names_are_read_from_a_list_in_bytes(source_dir: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\n\xff.png"))
    paths = sorted(source_dir.rglob("*.png"))[:2]
    odd.write_bytes(paths[0].read_bytes())
    process = start(tmp_path, "-", "-0", is_text=False)
    output, _ = process.communicate(b"\0".join(map(os.fsencode, [*paths, odd])), timeout=100)
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.splitlines()][:-1]
    assert {line["source"] for line in lines} == {*map(str, paths), str(odd)}
    assert os.fsencode(tmp_path / "out") + b"/odd\n\xff-x2.jpg" in {
        os.fsencode(path) for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_after_many_kills_at_any_moment_nothing_is_lost_half_or_done_twice(
    source_dir: Path, tmp_path: Path
) -> None:
    output_dir, done = tmp_path / "out", list[str]()
    for _ in range(COUNT // FIRST - 2):
        status, lines = run_until(tmp_path, signal.SIGKILL, str(source_dir))
        assert status == -signal.SIGKILL
        done += [line["source"] for line in lines if line.get("outcome") == "upscaled"]
    left = {name: file for name, file in files_of(output_dir).items() if not _is_hidden(name)}
    status, lines = run(tmp_path, str(source_dir))
    assert status == 0
    assert len(lines) == COUNT
    assert {line["outcome"] for line in lines} == {"upscaled", "skipped"}
    done += [line["source"] for line in lines if line["outcome"] == "upscaled"]
    assert len(done) == len(set(done))
    now = files_of(output_dir)
    assert {name: now[name] for name in left} == left, "not one was written again"
    assert_is_whole(source_dir, output_dir)


def _is_hidden(name: str) -> bool:
    return Path(name).name.startswith(".")


def test_a_crash_of_a_library_is_not_silent(tmp_path: Path) -> None:
    process = start(tmp_path, "-")
    output_dir = tmp_path / "out"
    while not (output_dir / FILE_NAME).exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGSEGV)
    _, error = process.communicate(timeout=100)
    assert process.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in error


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_ends_the_run_with_one_line(
    source_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run, with room, goes on; nothing half written is left."""
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("UPSCALED_PRECISION", "exact")
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", out], check=True)
    try:
        done = invoke("image", str(source_dir), "--scale", "2", "-o", str(out))
        results = list(out.rglob("*.jpg"))
        for result in results:
            PillowImage.open(result).load()
    finally:
        subprocess.run(["umount", out], check=True)
    assert done.exit_code == 1
    assert "Traceback" not in done.stderr
    failures = [line for line in done.stderr.splitlines() if line.startswith("upscaled: ")]
    assert len(failures) == 1, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])["summary"]
    assert summary["failed"] == 0
    assert summary["upscaled"] == len(results) < COUNT
