import io
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage
from typer.testing import CliRunner, Result

from tests.buckets import Bucket, FaultyBucket
from tests.service.decoder.lending import lend, start_shared_decoder
from tests.service.image.camera_files import camera_file
from tests.service.image.samples import RGB, RGBA, deep_samples, png
from upscaled.batch.journal import FILE_NAME, Journal
from upscaled.cli import build_app
from upscaled.config import SettingsError
from upscaled.decoder.pool import Decoder
from upscaled.upscale import opening

SIZE = (70, 66)


@pytest.fixture(scope="module")
def shared_decoder() -> Iterator[Decoder]:
    with start_shared_decoder() as decoder:
        yield decoder


@pytest.fixture(autouse=True)
def _lent_decoder(monkeypatch: pytest.MonkeyPatch, shared_decoder: Decoder) -> None:
    """Those that commands start for themselves are tested in `test_image_ends`."""
    lend(shared_decoder, monkeypatch)


@pytest.fixture(autouse=True)
def _is_exact(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No run that measures this machine first, and nothing in the user's own data folder."""
    monkeypatch.setenv("UPSCALED_PRECISION", "exact")
    monkeypatch.setenv("UPSCALED_AUTO_BUDGET_S", "0")
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path_factory.mktemp("data")))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    PillowImage.fromarray(pixels).save(path)
    return path


def run(*arguments: str | Path) -> Result:
    app = build_app(("image", "config"))  # with a single command typer would take no name
    return CliRunner().invoke(app, ["image", *map(str, arguments)])


def lines_of(done: Result) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(one object for each image, the summary) of a run's standard output."""
    *images, last = [json.loads(line) for line in done.stdout.splitlines()]
    return images, last["summary"]


@pytest.mark.parametrize("scale", [2, 4])
def test_a_photo_becomes_a_larger_jpeg_beside_it(photo: Path, scale: int) -> None:
    done = run(photo, "--scale", str(scale))

    target = photo.with_name(f"photo-x{scale}.jpg")
    assert done.exit_code == 0
    (line,), summary = lines_of(done)
    assert (line["source"], line["result"]) == (str(photo), str(target))
    assert (line["outcome"], line["error_code"]) == ("upscaled", None)
    assert line["result_px"] == [SIZE[0] * scale, SIZE[1] * scale]
    assert line["seconds"] >= line["network_s"] > 0
    assert summary["upscaled"] == 1
    with PillowImage.open(target) as result:
        assert result.format == "JPEG"
        assert result.size == (SIZE[0] * scale, SIZE[1] * scale)
    assert sorted(path.name for path in photo.parent.iterdir()) == [target.name, photo.name]


def test_one_bad_file_does_not_stop_the_others(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    PillowImage.new("RGB", (9, 9)).save(tmp_path / "moving.gif")
    bad = {
        "text.jpg": "malformed_image",
        "absent.jpg": "not_found",
        "moving.gif": "unsupported_image_format",
    }

    done = run(*(tmp_path / name for name in bad), photo, "--scale", "2")

    assert done.exit_code == 1
    images, summary = lines_of(done)
    codes = {Path(line["source"]).name: line["error_code"] for line in images}
    assert codes == {**bad, "photo.png": None}
    assert (summary["failed"], summary["unsupported"], summary["upscaled"]) == (2, 1, 1)
    assert photo.with_name("photo-x2.jpg").is_file()
    for name in bad:
        assert f"upscaled: {tmp_path / name}: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "1 upscaled, 1 in formats that are not enabled, 2 failed; " in done.stderr


def test_a_name_that_is_too_long_fails_alone(photo: Path, tmp_path: Path) -> None:
    long = "n" * 300 + ".png"
    done = run(tmp_path / long, photo, "--scale", "2")
    assert done.exit_code == 1
    images, _ = lines_of(done)
    errors = {Path(line["source"]).name: line["error"] for line in images}
    assert errors == {long: "file name too long", "photo.png": None}

    done = run(photo, "--scale", "2", "-o", tmp_path / long)
    assert (done.exit_code, "File name too long" in done.stderr) == (1, True)
    assert run(photo, "--scale", "2", "-o", tmp_path / ("o" * 300), "--dry-run").exit_code == 0


@pytest.mark.parametrize(("option", "status"), [((), 1), (("--ignore-unsupported",), 0)])
def test_a_folder_s_pictures_in_other_formats_are_named_with_their_setting(
    photo: Path, tmp_path: Path, option: tuple[str, ...], status: int
) -> None:
    PillowImage.new("RGB", (9, 9)).save(tmp_path / "scan.tif")
    (tmp_path / "notes.txt").write_text("no picture")

    done = run(tmp_path, "-o", tmp_path / "out", "--scale", "2", *option)

    assert done.exit_code == status
    images, summary = lines_of(done)
    assert {Path(line["source"]).name for line in images} == {"scan.tif", "photo.png"}
    assert summary["unsupported"] == summary["passed_over"] == summary["upscaled"] == 1
    text = "TIFF is not enabled (UPSCALED_EXTRA_FORMATS=tiff enables it)"
    assert f"upscaled: {tmp_path / 'scan.tif'}: {text}" in done.stderr


def test_a_folder_is_mirrored_and_what_is_done_is_skipped(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    photo.rename(tmp_path / "in" / "sub" / "photo.png")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    output_dir = tmp_path / "new" / "folder"
    for expected in ("upscaled", "skipped"):
        done = run(tmp_path / "in", "-o", output_dir, "--scale", "2")
        assert done.exit_code == 0
        (line,), summary = lines_of(done)
        assert line["outcome"] == expected
        assert line["result"] == str(output_dir / "sub" / "photo-x2.jpg")
        assert summary["passed_over"] == 1
    names = sorted(str(path.relative_to(output_dir)) for path in output_dir.rglob("*"))
    assert names == [FILE_NAME, "sub", "sub/photo-x2.jpg"]


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("taken", "is a file"),
        ("taken/below", "Not a directory"),
        ("/proc/upscaled", "No such file or directory"),
        ("/proc", "No such file or directory"),
    ],
    ids=["a file", "below a file", "cannot be made", "takes no files"],
)
def test_an_unwritable_output_folder_fails_before_an_engine_is_opened(
    photo: Path, monkeypatch: pytest.MonkeyPatch, folder: str, reason: str
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(opening, "open_model", lambda *arguments: opened.append(arguments))
    (photo.parent / "taken").touch()
    output_dir = photo.parent / folder

    done = run(photo, photo, "-o", output_dir, "--scale", "2")

    assert (done.exit_code, done.stdout, opened) == (1, "", [])
    assert done.stderr == f"upscaled: output folder {output_dir}: {reason}\n"


def test_an_output_folder_in_use_by_another_run_is_refused(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with Journal(tmp_path / "out" / FILE_NAME):
        done = run(photo, "-o", tmp_path / "out", "--scale", "2")
    assert done.exit_code == 1
    assert "another run has it open" in done.stderr


def test_no_packaged_model_is_installed_where_the_settings_forbid_it(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSCALED_PACKAGED_MODELS", "false")
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path / "data"))
    (taken := tmp_path / "taken").touch()
    assert run(photo, "-o", taken, "--scale", "2").exit_code == 1
    assert not (tmp_path / "data").exists()


def test_files_beside_their_sources_need_no_journal(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSCALED_DATA_DIR", "/proc/upscaled")
    done = run(photo, "--scale", "2")
    assert done.exit_code == 0
    assert "what is done will not be remembered: " in done.stderr
    assert photo.with_name("photo-x2.jpg").is_file()


def test_files_of_other_programs_are_replaced_only_with_overwrite(photo: Path) -> None:
    before = photo.read_bytes()
    target = photo.with_name("photo-x2.jpg")
    target.symlink_to(photo)

    done = run(photo, "--scale", "2")
    assert done.exit_code == 1
    assert f"{target} is there and was not made by this command" in done.stderr

    assert run(photo, "--scale", "2", "--overwrite").exit_code == 0
    assert photo.read_bytes() == before, "the link was replaced, not what it leads to"
    assert not target.is_symlink()
    assert lines_of(run(photo, "--scale", "2"))[1]["skipped"] == 1


def test_a_result_that_cannot_be_written_is_named(photo: Path) -> None:
    target = photo.with_name("photo-x2.jpg")
    target.mkdir()

    done = run(photo, "--scale", "2", "--overwrite")

    assert done.exit_code == 1
    assert f"{target}: cannot be written: Is a directory\n" in done.stderr
    assert sorted(path.name for path in photo.parent.iterdir()) == [target.name, photo.name]


def test_results_have_the_permissions_of_the_umask(photo: Path) -> None:
    assert run(photo, "--scale", "2").exit_code == 0
    ordinary = photo.with_name("ordinary")
    ordinary.touch()
    mode = photo.with_name("photo-x2.jpg").stat().st_mode
    assert stat.S_IMODE(mode) == stat.S_IMODE(ordinary.stat().st_mode)


@pytest.mark.parametrize("scale", ["1", "3", "0", "-2", "2.5", "x"])
def test_another_scale_is_a_usage_error(photo: Path, scale: str) -> None:
    assert run(photo, "--scale", scale).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--scale", "2"],
        ["photo.png"],
        [".", "--scale", "2"],
        [".", "-o", ".", "--scale", "2"],
        ["photo.png", "-0", "--scale", "2"],
        ["-", "-", "--scale", "2"],
    ],
    ids=["no files", "no scale", "a folder to nowhere", "into itself", "no list", "two lists"],
)
def test_a_wrong_call_is_a_usage_error(
    photo: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(photo.parent)
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert [path.name for path in photo.parent.iterdir()] == ["photo.png"]


def test_an_unknown_model_is_refused_before_any_work(photo: Path) -> None:
    done = run(photo, "--scale", "2", "--model", "realesrgan-x5plus")

    assert done.exit_code == 2
    assert "realesrgan-x4plus" in done.stderr
    assert not photo.with_name("photo-x2.jpg").exists()


@pytest.mark.parametrize("is_option", [True, False])
def test_a_model_that_is_not_fetched_is_reported_with_its_setting(
    photo: Path, monkeypatch: pytest.MonkeyPatch, is_option: bool
) -> None:
    name = "realesrgan-x4plus"
    monkeypatch.setenv("UPSCALED_MODEL_X2", "auto" if is_option else name)

    done = run(photo, "--scale", "2", *(["--model", name] if is_option else []))

    assert isinstance(done.exception, SettingsError)
    named_by = "--model" if is_option else "UPSCALED_MODEL_X2"
    assert str(done.exception).startswith(f"{named_by}='{name}': ")
    assert f"upscaled models fetch {name}" in str(done.exception)


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
    line = json.loads(done.stdout.splitlines()[0])
    assert (done.exit_code, line["result"]) == (0, str(target))
    result = cv2.imread(str(target), cv2.IMREAD_UNCHANGED)
    assert result is not None
    assert result.shape == (132, 140, channels)
    assert result.itemsize * 8 == bits


@pytest.mark.parametrize("kind", ["bucket to bucket", "bucket to folder", "file to bucket"])
def test_buckets_are_accepted_in_place_of_folders(
    photo: Path, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("UPSCALED_S3_ENDPOINT", bucket.endpoint)
    bucket.put("in/sub/a photo.png", photo.read_bytes())
    source = str(photo) if kind == "file to bucket" else f"s3://{bucket.name}/in"
    name = "photo-x2.jpg" if kind == "file to bucket" else "sub/a photo-x2.jpg"
    is_folder = kind == "bucket to folder"
    output = str(tmp_path / "out") if is_folder else f"s3://{bucket.name}/out"
    for expected in ("upscaled", "skipped"):
        done = run(source, "-o", output, "--scale", "2")
        assert done.exit_code == 0
        (line,), _ = lines_of(done)
        assert (line["outcome"], line["result"]) == (expected, f"{output}/{name}")
        assert line["result_px"] == [SIZE[0] * 2, SIZE[1] * 2]
    result = (tmp_path / "out" / name).read_bytes() if is_folder else bucket.get(f"out/{name}")
    with PillowImage.open(io.BytesIO(result)) as opened:
        assert (opened.format, opened.size) == ("JPEG", (SIZE[0] * 2, SIZE[1] * 2))
    assert [key for key in bucket.list_keys() if ".upscaled" in key] == [], "no trial is left"


def test_a_bucket_that_is_down_fails_before_an_engine_is_opened_or_as_its_source(
    photo: Path, tmp_path: Path, faulty_bucket: FaultyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSCALED_S3_ENDPOINT", faulty_bucket.proxy.url)
    url = f"s3://{faulty_bucket.bucket.name}/x"
    faulty_bucket.fail("cut")

    done = run(url, photo, "-o", tmp_path / "out", "--scale", "2")

    assert done.exit_code == 1
    images, summary = lines_of(done)
    codes = {line["source"]: line["error_code"] for line in images}
    assert codes == {url: "internal_error", str(photo): None}
    assert (summary["failed"], summary["upscaled"]) == (1, 1)
    assert f"upscaled: {url}: the connection broke off\n" in done.stderr
    opened: list[object] = []
    monkeypatch.setattr(opening, "open_model", lambda *arguments: opened.append(arguments))
    done = run(photo, "-o", url, "--scale", "2")
    assert (done.exit_code, done.stdout, opened) == (1, "", [])
    assert done.stderr == f"upscaled: output bucket {url}: the connection broke off\n"


@pytest.mark.parametrize("output", [[], ["-o", "s3://b/in/"]], ids=["to nowhere", "into itself"])
def test_a_wrong_call_with_a_bucket_is_a_usage_error(output: list[str]) -> None:
    done = run("s3://b/in", *output, "--scale", "2")
    assert (done.exit_code, done.stdout) == (2, "")


@pytest.mark.parametrize(
    ("form", "ending", "format_name"),
    [
        ("jpeg", "jpg", "JPEG"),
        ("png", "png", "PNG"),
        ("WebP", "webp", "WEBP"),
        ("avif", "avif", "AVIF"),
        ("lossless", "png", "PNG"),
    ],
)
def test_a_format_and_a_suffix_are_chosen_by_option(
    photo: Path, form: str, ending: str, format_name: str
) -> None:
    done = run(photo, "--scale", "2", "--format", form, "--suffix", "-large")
    assert done.exit_code == 0, done.output
    with PillowImage.open(photo.with_name(f"photo-large.{ending}")) as result:
        assert (result.format, result.size) == (format_name, (SIZE[0] * 2, SIZE[1] * 2))


def test_a_smaller_size_and_quality_are_made_again_where_they_change(
    photo: Path, tmp_path: Path
) -> None:
    sizes = []
    for options in (["--max-side", "100"], ["--width", "100"], ["--width", "100", "--quality=9"]):
        done = run(photo, "--scale", "2", "-o", tmp_path / "out", *options)
        (line,), summary = lines_of(done)
        assert (line["result_px"], summary["upscaled"]) == ([100, 94], 1)
        sizes.append(line["result_bytes"])
    assert sizes[0] == sizes[1] > sizes[2]
    again = run(photo, "--scale", "2", "-o", tmp_path / "out", "--width=100", "--quality=9")
    assert lines_of(again)[1]["skipped"] == 1


def test_metadata_are_kept_by_option_and_made_again_where_that_changes(
    photo: Path, tmp_path: Path
) -> None:
    photo.write_bytes(camera_file("JPEG", 6))
    for option, details in (("", 0), ("keep", 128), ("KEEP-ALL", 128)):
        options = ["--metadata", option] if option else []
        done = run(photo, "--scale", "2", "-o", tmp_path / "out", *options)
        assert lines_of(done)[1]["upscaled"] == 1, done.output
        with PillowImage.open(tmp_path / "out" / "photo-x2.jpg") as result:
            tags = result.getexif()
        assert tags.get_ifd(0x8769).get(0xA003, 0) == details
        assert bool(tags.get_ifd(0x8825)) == (option == "KEEP-ALL")


def test_a_width_that_the_scale_does_not_reach_fails_that_picture(photo: Path) -> None:
    done = run(photo, "--scale", "2", "--width", str(2 * SIZE[0] + 1))
    (line,), _ = lines_of(done)
    assert (done.exit_code, line["error_code"]) == (1, "invalid_parameter")
    assert "140x132 pixels, smaller than the width or height asked for" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--format", "gif"],
        ["--quality", "0"],
        ["--quality", "101"],
        ["--format", "png", "--quality", "90"],
        ["--max-side", "0"],
        ["--width", "20001"],
        ["--suffix", "../x"],
        ["--metadata", "all"],
    ],
)
def test_options_of_the_result_out_of_range_are_refused_before_anything_runs(
    photo: Path, options: list[str]
) -> None:
    assert run(photo, "--scale", "2", *options).exit_code == 2
    assert list(photo.parent.iterdir()) == [photo]


@pytest.mark.parametrize("name", ["large.webp", "large.AVIF", "large.jfif", "large.png"])
def test_a_file_behind_o_is_the_result_in_the_format_of_its_name(
    photo: Path, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "made" / name
    target.parent.mkdir()
    done = run(photo, "--scale", "2", "-o", target)
    (line,), _ = lines_of(done)
    assert (done.exit_code, line["result"]) == (0, str(target))
    with PillowImage.open(target) as result:
        assert result.format == {"jfif": "JPEG"}.get(name[6:], name[6:].upper())
    assert list(target.parent.iterdir()) == [target]
    assert lines_of(run(photo, "--scale", "2", "-o", target))[1]["skipped"] == 1


def test_a_file_behind_o_that_another_made_is_kept(photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "large.webp"
    target.write_text("mine")
    done = run(photo, "--scale", "2", "-o", target)
    assert (done.exit_code, target.read_text()) == (1, "mine")
    assert run(photo, "--scale", "2", "-o", target, "--overwrite").exit_code == 0
    other = tmp_path / "other.png"
    PillowImage.new("RGB", SIZE, "red").save(other)
    done = run(other, "--scale", "2", "-o", target)
    assert done.exit_code == 1
    assert "is the result of another picture" in done.stderr


@pytest.mark.parametrize(
    "options",
    [["-o", "a.webp", "--format", "avif"], ["-o", "a.png", "--quality", "90"]],
)
def test_a_file_behind_o_must_suit_the_other_options(photo: Path, options: list[str]) -> None:
    assert run(photo, "--scale", "2", *options).exit_code == 2


def test_a_file_behind_o_is_for_one_picture(photo: Path) -> None:
    for files in ([photo, photo], [photo.parent], ["-", photo], [photo.with_name("*.png")]):
        done = run(*files, "--scale", "2", "-o", photo.with_name("large.webp"))
        assert (done.exit_code, "give the name of one picture" in done.output) == (2, True)


def test_a_picture_is_never_its_own_result(photo: Path) -> None:
    before = photo.read_bytes()
    done = run(photo, "--scale", "2", "-o", photo, "--overwrite")
    assert (done.exit_code, photo.read_bytes()) == (2, before)
