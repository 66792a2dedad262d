"""`upscaled watch`, in a process of its own."""

import io
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage
from typer.testing import CliRunner

from tests.buckets import VARIABLES, Bucket
from tests.running import UPSCALED, clean_environment
from tests.service.batch.test_watcher import knows_writers
from tests.service.image.samples import picture, save
from upscaled.cli import build_app

PATIENCE_S = 60.0


class Watching:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait(self, count: int) -> list[dict[str, Any]]:
        give_up_at = time.monotonic() + PATIENCE_S
        while len(self.lines) < count:
            assert self.process.poll() is None
            assert time.monotonic() < give_up_at
            time.sleep(0.02)
        return self.lines

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(json.loads(line) for line in iter(self.process.stdout.readline, ""))


@contextmanager
def watching(folder: Path, *places: str, **settings: str) -> Iterator[Watching]:
    """A run from `in` to `out` in the folder, or between the `places`."""
    places = places or (str(folder / "in"), str(folder / "out"))
    environment = clean_environment(
        UPSCALED_DATA_DIR=str(folder / "data"),
        UPSCALED_PRECISION="exact",
        UPSCALED_AUTO_BUDGET_S="0",
        **settings,
    )
    process = subprocess.Popen(
        [*UPSCALED, "watch", *places, "--scale", "2", "--settle", "0.2"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Watching(process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.slow
def test_new_files_are_upscaled_until_a_signal_ends_the_watch(tmp_path: Path) -> None:
    source_dir = tmp_path / "in"
    source_dir.mkdir()
    (source_dir / "a.png").write_bytes(save(picture(), "PNG"))
    (tmp_path / "moved.png").write_bytes(save(picture(40, 40), "PNG"))
    whole = save(picture(50, 50), "PNG")
    half = whole[:200] if knows_writers(tmp_path) else whole
    with watching(tmp_path) as watched:
        assert watched.wait(1)[0]["result"] == str(tmp_path / "out" / "a-x2.jpg")
        with open(source_dir / "slow.png", "wb", buffering=0) as slow:
            slow.write(half)
            (tmp_path / "moved.png").rename(source_dir / "moved.png")
            moved = watched.wait(2)[1]["source"] == str(source_dir / "moved.png")
            assert moved or half == whole
            slow.write(whole[len(half) :])
        assert {line["outcome"] for line in watched.wait(3)} == {"upscaled"}
        assert watched.stop(signal.SIGTERM) == 0
    sizes = sorted(line["source_px"] for line in watched.lines[:3])
    assert sizes == [[40, 40], [50, 50], [64, 48]]
    assert watched.lines[3]["summary"]["upscaled"] == 3
    with PillowImage.open(tmp_path / "out" / "slow-x2.jpg") as result:
        assert result.size == (100, 100)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a-x2.jpg", "moved-x2.jpg", "slow-x2.jpg", ".upscaled-journal.sqlite3"}


@pytest.mark.slow
def test_new_objects_of_a_bucket_become_results_of_the_chosen_format_size_and_name(
    tmp_path: Path, bucket: Bucket
) -> None:
    places = f"s3://{bucket.name}/in", f"s3://{bucket.name}/in/out"
    options = ("--format", "webp", "--quality", "80", "--width", "60", "--suffix", "-web")
    settings = {"UPSCALED_S3_ENDPOINT": bucket.endpoint, **VARIABLES}
    with watching(tmp_path, *places, *options, **settings) as watched:
        bucket.put("in/a.png", save(picture(30, 40), "PNG"))
        first = watched.wait(1)[0]
        assert (first["result"], first["result_px"]) == (f"{places[1]}/a-web.webp", [60, 45])
        bucket.put("in/sub/b.png", save(picture(40, 40), "PNG"))
        assert watched.wait(2)[1]["result"] == f"{places[1]}/sub/b-web.webp"
        assert watched.stop(signal.SIGTERM) == 0
    assert watched.lines[2]["summary"]["upscaled"] == 2
    results = [key for key in bucket.list_keys() if "/out/" in key]
    assert results == ["in/out/a-web.webp", "in/out/sub/b-web.webp"]
    with PillowImage.open(io.BytesIO(bucket.get(results[0]))) as result:
        assert (result.format, result.size) == ("WEBP", (60, 45))


def test_a_bucket_that_cannot_be_listed_ends_it_at_once(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSCALED_S3_ENDPOINT", bucket.endpoint)
    app = build_app(("watch", "config"))
    done = CliRunner().invoke(
        app, ["watch", "s3://no-such/in", str(tmp_path / "out"), "--scale", "2"]
    )
    assert done.exit_code == 1
    assert "input bucket s3://no-such/in: the bucket answered 404 Not Found" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["in", "in"],
        ["absent", "out"],
        ["file", "out"],
        ["n" * 300, "out"],
        ["s3://b/in", "s3://b/in/"],
    ],
)
def test_a_wrong_call_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "file").touch()
    app = build_app(("watch", "config"))  # with a single command typer would take no name
    done = CliRunner().invoke(app, ["watch", *arguments, "--scale", "2"])
    assert done.exit_code == 2


def test_an_option_of_the_result_out_of_range_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    app = build_app(("watch", "config"))
    places = [str(tmp_path / "in"), str(tmp_path / "out")]
    done = CliRunner().invoke(
        app, ["watch", *places, "--scale", "2", "--format", "png", "--quality", "9"]
    )
    assert (done.exit_code, (tmp_path / "out").exists()) == (2, False)
