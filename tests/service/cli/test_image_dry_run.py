"""`upscaled image --dry-run`: what would be done, and nothing done."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage

from tests.service.cli.test_image import lines_of, run
from tests.service.image.samples import picture, save
from upscaled.batch.journal import FILE_NAME, Journal
from upscaled.upscale.core import Core


@pytest.fixture(autouse=True)
def _is_exact(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("UPSCALED_PRECISION", "exact")
    monkeypatch.setenv("UPSCALED_AUTO_BUDGET_S", "0")
    monkeypatch.setenv("UPSCALED_PACKAGED_MODELS", "false")
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path_factory.mktemp("data")))


@pytest.fixture
def source_dir(tmp_path: Path) -> Path:
    """A photo, a file that is no image, a broken image, and one in a format not enabled."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "photo.png").write_bytes(save(picture(66, 70), "PNG"))
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.png").write_bytes(save(picture(66, 70), "PNG")[:20])
    (folder / "scan.tif").write_bytes(save(picture(9, 9), "TIFF"))
    return folder


@pytest.fixture
def upscaled(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What went through the core: nothing may."""
    calls: list[object] = []
    monkeypatch.setattr(Core, "upscale", lambda *arguments, **_: calls.append(arguments))
    return calls


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_dry_run_prints_each_result_and_writes_nothing(
    source_dir: Path, tmp_path: Path, upscaled: list[object]
) -> None:
    before = files_below(tmp_path)

    done = run(source_dir, "-o", tmp_path / "out", "--scale", "2", "--width", "100", "--dry-run")

    assert (done.exit_code, upscaled) == (1, []), "a run would fail, too"
    assert files_below(tmp_path) == before
    images, summary = lines_of(done)
    lines = {Path(line["source"]).name: line for line in images}
    photo = lines["photo.png"]
    assert photo["result"] == str(tmp_path / "out" / "photo-x2.jpg")
    assert (photo["outcome"], photo["models"]) == ("upscaled", ["upscaled-x2-faithful"])
    assert (photo["source_px"], photo["result_px"]) == ([70, 66], [100, 94])
    assert photo["expected_s"] >= 0
    assert "seconds" not in photo
    assert lines["broken.png"]["error_code"] == "malformed_image"
    assert (lines["scan.tif"]["outcome"], lines["scan.tif"]["models"]) == ("unsupported", None)
    assert (summary["upscaled"], summary["passed_over"], summary["failed"]) == (1, 1, 1)
    assert summary["expected_s"] == pytest.approx(photo["expected_s"], abs=0.01)
    assert "1 to upscale, 1 passed over (not images), " in done.stderr
    assert " s of the device" in done.stderr


@pytest.mark.slow
def test_a_dry_run_skips_what_is_done_and_names_each_result_uniquely(
    source_dir: Path, tmp_path: Path
) -> None:
    (source_dir / "broken.png").unlink()
    (source_dir / "scan.tif").unlink()
    arguments: tuple[Any, ...] = (source_dir, "-o", tmp_path / "out", "--scale", "2")
    assert run(*arguments).exit_code == 0
    for name, colour in (("new.png", "blue"), ("new.webp", "red")):
        PillowImage.new("RGB", (40, 30), colour).save(source_dir / name)
    (source_dir / "copy.png").write_bytes((source_dir / "photo.png").read_bytes())
    before = files_below(tmp_path)

    done = run(*arguments, "--dry-run")

    assert done.exit_code == 0
    assert files_below(tmp_path) == before
    images, summary = lines_of(done)
    outcomes = {Path(line["source"]).name: line["outcome"] for line in images}
    assert outcomes == {
        "photo.png": "skipped",
        "copy.png": "copied",
        "new.png": "upscaled",
        "new.webp": "upscaled",
    }
    results = {Path(line["result"]).name for line in images}
    assert len(results) == len(images), results
    assert {"new-x2.jpg", "photo-x2.jpg", "copy-x2.jpg"} < results, "one new picture goes second"
    really = lines_of(run(*arguments))
    assert {Path(line["source"]).name: line["outcome"] for line in really[0]} == outcomes
    assert len({line["result"] for line in really[0]}) == len(results)
    assert summary["skipped"] == really[1]["skipped"] == 1


def test_a_dry_run_beside_another_run_is_refused_as_that_run_would_be(
    source_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    with Journal(tmp_path / "out" / FILE_NAME):
        done = run(source_dir, "-o", tmp_path / "out", "--scale", "2", "--dry-run")
    assert done.exit_code == 1
    assert "another run has it open" in done.stderr


def test_a_dry_run_for_standard_output_reports_there(
    source_dir: Path, upscaled: list[object]
) -> None:
    done = run(source_dir / "photo.png", "-o", "-", "--scale", "2", "--dry-run", "--json")
    (line,), _ = lines_of(done)
    assert (done.exit_code, line["result"], upscaled) == (0, "-", [])
