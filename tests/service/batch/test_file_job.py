import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.buckets import Bucket, FaultyBucket
from tests.service.batch.benches import Batch, true_engine
from tests.service.image.samples import picture, save
from tests.service.upscale.true_engine import TrueEngine
from upscaled.batch.bucket_source import S3Url
from upscaled.batch.file_job import expect_upscale
from upscaled.batch.files import BatchAborted, OutputFull
from upscaled.batch.outcome import DeviceEstimate, Kind
from upscaled.config import load_settings
from upscaled.errors import InternalError
from upscaled.image.types import Header
from upscaled.upscale import result
from upscaled.upscale.core import Core
from upscaled.upscale.model_choice import Rung
from upscaled.upscale.opening import open_core
from upscaled.upscale.result import decide_local_output

pytestmark = pytest.mark.usefixtures("_lent_decoder")
S_PER_PX = {"upscaled-x2": 1e-6, "upscaled-x4-faithful": 1e-3}


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


def test_results_mirror_the_source_folder_and_each_outcome_is_complete(batch: Batch) -> None:
    source = batch.add("sub/a.png", size=(40, 30))
    batch.add("b.jpg", 10)
    (batch.source_dir / "notes.txt").write_text("no picture")
    (batch.source_dir / "move.gif").write_bytes(save(picture(), "GIF"))

    outcomes = batch.run()

    assert batch.results() == ["b-x2.jpg", "sub/a-x2.jpg"]
    assert outcomes["notes.txt"].kind is Kind.PASSED_OVER
    assert outcomes["move.gif"].kind is Kind.UNSUPPORTED
    outcome = outcomes["sub/a.png"]
    target = batch.output_dir / "sub" / "a-x2.jpg"
    assert outcome.record is not None
    assert (outcome.kind, outcome.result, outcome.record.model) == (
        Kind.UPSCALED,
        str(target),
        "upscaled-x2",
    )
    assert (outcome.source_px, outcome.result_px) == ((40, 30), (80, 60))
    assert outcome.source_bytes == source.stat().st_size
    assert outcome.record.size_bytes == target.stat().st_size
    assert outcome.seconds >= sum(s for _, s in outcome.timings.stages()) > 0
    with PillowImage.open(target) as result, PillowImage.open(source) as before:
        near = np.asarray(result.resize(before.size, PillowImage.Resampling.BOX), np.int16)
        assert np.abs(near - np.asarray(before)).mean() < 3


def test_a_second_run_does_nothing_and_a_changed_source_or_setting_does(batch: Batch) -> None:
    batch.add("a.png")
    batch.add("b.png", 10)
    assert set(batch.run_kinds().values()) == {Kind.UPSCALED}
    computed = len(batch.engine.seen)

    assert set(batch.run_kinds().values()) == {Kind.SKIPPED}
    assert len(batch.engine.seen) == computed

    os.utime(batch.add("a.png"))
    assert batch.run_kinds() == {"a.png": Kind.SKIPPED, "b.png": Kind.SKIPPED}, "the same content"
    batch.add("a.png", 20)
    assert batch.run_kinds() == {"a.png": Kind.UPSCALED, "b.png": Kind.SKIPPED}
    batch.settings["jpeg_quality"] = 50
    assert set(batch.run_kinds().values()) == {Kind.UPSCALED}
    assert batch.results() == ["a-x2.jpg", "b-x2.jpg"]


def test_a_moved_source_is_copied_and_not_computed_again(batch: Batch) -> None:
    path = batch.add("a.png")
    batch.run()
    (batch.source_dir / "sub").mkdir()
    path.rename(batch.source_dir / "sub" / "b.png")
    computed = len(batch.engine.seen)

    assert batch.run_kinds() == {"sub/b.png": Kind.COPIED}
    assert len(batch.engine.seen) == computed
    first, second = (batch.output_dir / name for name in ("a-x2.jpg", "sub/b-x2.jpg"))
    assert first.read_bytes() == second.read_bytes()
    assert batch.run_kinds() == {"sub/b.png": Kind.SKIPPED}


def test_the_whole_tree_may_lie_elsewhere_in_the_next_run(batch: Batch, tmp_path: Path) -> None:
    batch.add("sub/a.png")
    batch.run()
    shutil.move(batch.source_dir, tmp_path / "mounted")
    (outcome,) = batch.run(str(tmp_path / "mounted")).values()
    assert outcome.kind is Kind.SKIPPED
    assert batch.results() == ["sub/a-x2.jpg"]


def test_two_sources_never_share_a_result(batch: Batch) -> None:
    batch.add("a.png", 0)
    batch.add("a.webp", 10)
    batch.add("other/a.png", 20)
    folders = [str(batch.source_dir), str(batch.source_dir / "other")]
    outcomes = batch.run(*folders)
    assert {outcome.kind for outcome in outcomes.values()} <= {Kind.UPSCALED, Kind.COPIED}
    assert len(batch.results()) == 4
    contents = {(batch.output_dir / name).read_bytes() for name in batch.results()}
    assert len(contents) == 3
    assert set(batch.run_kinds(*folders).values()) == {Kind.SKIPPED}


def test_results_that_fall_into_the_input_folder_are_not_upscaled_again(batch: Batch) -> None:
    top = batch.output_dir / "in"
    (top / "in").mkdir(parents=True)
    batch.add("a.png").rename(top / "in" / "a.png")
    assert set(batch.run_kinds(str(top)).values()) == {Kind.UPSCALED}
    assert (top / "a-x2.jpg").is_file(), "the mirror of in/a.png lies in the input folder"
    assert batch.run_kinds(str(top)) == {
        str(top / "in" / "a.png"): Kind.SKIPPED,
        str(top / "a-x2.jpg"): Kind.PASSED_OVER,
    }


@pytest.mark.parametrize("content", [b"", bytes(5000), b"<html>Not found</html>"])
@pytest.mark.parametrize("name", ["empty.jpg", "CARD.JPEG", "a.heif"])
def test_what_is_named_like_an_image_and_is_none_has_failed(
    batch: Batch, name: str, content: bytes
) -> None:
    batch.add("good.png")
    (batch.source_dir / name).write_bytes(content)
    (batch.source_dir / "notes.txt").write_bytes(content)
    outcomes = batch.run()
    assert outcomes[name].kind is Kind.FAILED
    assert outcomes[name].error_code == "malformed_image"
    assert outcomes["notes.txt"].kind is Kind.PASSED_OVER
    assert outcomes["good.png"].kind is Kind.UPSCALED


def test_every_failure_has_its_code_and_stops_nothing(batch: Batch) -> None:
    source = batch.source_dir
    batch.add("good.png")
    (source / "cut.jpg").write_bytes(save(picture(), "JPEG")[:300])
    (source / "text.jpg").write_text("no picture")
    (source / "move.gif").write_bytes(save(picture(), "GIF"))
    (source / "long.png").write_bytes(save(np.zeros((1, 10_001, 3), np.uint8), "PNG"))
    (source / "pipe").parent.mkdir(exist_ok=True)
    os.mkfifo(source / "pipe")
    names = ["absent.png", "cut.jpg", "text.jpg", "move.gif", "long.png", "pipe", "good.png"]

    outcomes = batch.run(*(str(source / name) for name in names))

    assert {name: outcome.error_code for name, outcome in outcomes.items()} == {
        "absent.png": "not_found",
        "cut.jpg": "malformed_image",
        "text.jpg": "malformed_image",
        "move.gif": "unsupported_image_format",
        "long.png": "resolution_too_high",
        "pipe": "invalid_parameter",
        "good.png": "",
    }
    kinds = {name: outcome.kind for name, outcome in outcomes.items()}
    assert kinds.pop("move.gif") is Kind.UNSUPPORTED
    assert kinds.pop("good.png") is Kind.UPSCALED
    assert set(kinds.values()) == {Kind.FAILED}
    assert all(outcome.error for name, outcome in outcomes.items() if name != "good.png")
    assert batch.results() == ["good-x2.jpg"]
    assert batch.run_kinds(str(source / "cut.jpg")) == {"cut.jpg": Kind.FAILED}, "tried again"


@pytest.mark.parametrize(("width", "kind"), [(100, Kind.UPSCALED), (101, Kind.FAILED)])
def test_a_picture_may_grow_to_the_limit_and_no_further(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, width: int, kind: Kind
) -> None:
    monkeypatch.setattr(result, "MAX_RESULT_SIDE_PX", 200)
    batch.add("a.png", size=(width, 9))
    assert batch.run_kinds() == {"a.png": kind}


def test_a_file_deleted_between_finding_and_reading_is_one_failure(batch: Batch) -> None:
    paths = [batch.add(f"{number}.png", number) for number in range(3)]

    class Vanishing(TrueEngine):
        def start(self, *arguments: object, **more: object) -> object:  # type: ignore[override]
            paths[2].unlink(missing_ok=True)
            return super().start(*arguments, **more)  # type: ignore[arg-type]

    batch.engine = Vanishing(model="upscaled-x2")
    batch.settings["jobs_per_worker"] = 1
    kinds = {name: outcome.error_code for name, outcome in batch.run(*map(str, paths)).items()}
    assert kinds["0.png"] == ""
    assert kinds["2.png"] in ("", "not_found")  # whichever came first
    assert set(batch.run_kinds(*map(str, paths[:2])).values()) == {Kind.SKIPPED}
    assert batch.run(str(paths[2]))["2.png"].error_code == "not_found"


def test_a_file_name_that_is_not_utf_8_is_kept_throughout(batch: Batch) -> None:
    path = batch.add("a.png")
    name = os.fsdecode(b"caf\xe9.png")
    path.rename(path.with_name(name))
    assert batch.run_kinds() == {name: Kind.UPSCALED}
    assert os.fsencode(batch.output_dir) + b"/caf\xe9-x2.jpg" in {
        os.fsencode(batch.output_dir / result) for result in batch.results()
    }
    assert batch.run_kinds() == {name: Kind.SKIPPED}


def test_a_result_that_cannot_be_written_fails_and_leaves_its_source_for_the_next_run(
    batch: Batch,
) -> None:
    batch.add("sub/a.png")
    batch.output_dir.mkdir()
    (batch.output_dir / "sub").write_text("a file where a folder belongs")
    (outcome,) = batch.run().values()
    assert (outcome.kind, outcome.error_code) == (Kind.FAILED, "internal_error")
    assert "cannot be written" in outcome.error
    (batch.output_dir / "sub").unlink()
    assert batch.run_kinds() == {"sub/a.png": Kind.UPSCALED}


def test_a_full_disk_ends_the_batch_and_the_next_run_continues(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        batch.add(f"{number}.png", number)
    with monkeypatch.context() as patched:
        patched.setattr("upscaled.batch.files.os.fsync", refuse_for_lack_of_space)
        with pytest.raises(OutputFull, match="No space left on device"):
            batch.run()
    assert batch.results() == []
    assert set(batch.run_kinds().values()) == {Kind.UPSCALED}


@dataclass
class Cutting(TrueEngine):
    """Lets a bucket fail from the moment that the first picture is computed."""

    faulty: FaultyBucket | None = None

    def start(self, *arguments: object, **more: object) -> object:  # type: ignore[override]
        assert self.faulty is not None
        self.faulty.fail("cut")
        return super().start(*arguments, **more)  # type: ignore[arg-type]


def test_a_bucket_that_fails_in_the_middle_fails_its_files_and_the_next_run_makes_them(
    batch: Batch, faulty_bucket: FaultyBucket
) -> None:
    bucket = faulty_bucket.bucket
    batch.output = S3Url(bucket.name, "out")
    batch.settings = {"s3_endpoint": bucket.endpoint, "jobs_per_worker": 2}
    batch.engine = Cutting(model="upscaled-x2", faulty=faulty_bucket)
    for number in range(3):
        batch.add(f"{number}.png", number)

    outcomes = batch.run()

    assert {outcome.kind for outcome in outcomes.values()} == {Kind.FAILED}
    assert {outcome.error_code for outcome in outcomes.values()} == {"internal_error"}
    for outcome in outcomes.values():
        assert f"s3://{bucket.name}/out/" in outcome.error
        assert outcome.error.endswith(": the connection broke off")
    assert bucket.list_keys() == []
    faulty_bucket.fail(None)
    batch.engine = true_engine()
    assert set(batch.run_kinds().values()) == {Kind.UPSCALED}
    assert bucket.list_keys() == [f"out/{number}-x2.jpg" for number in range(3)]
    computed = len(batch.engine.seen)
    assert set(batch.run_kinds().values()) == {Kind.SKIPPED}
    assert len(batch.engine.seen) == computed


@pytest.mark.parametrize("is_to_bucket", [True, False])
def test_results_mirror_a_source_bucket_in_a_bucket_or_folder(
    batch: Batch, bucket: Bucket, is_to_bucket: bool
) -> None:
    batch.output = S3Url(bucket.name, "out") if is_to_bucket else None
    batch.settings = {"s3_endpoint": bucket.endpoint}
    for number, name in enumerate(("a.png", "a.jpg", "sub/ü b#1?.png", "sub/deep/c.png")):
        bucket.put(f"in/{name}", save(picture() // 2 + number, "PNG"))
    bucket.put("in/notes.txt", b"no picture")
    bucket.put("in/.hidden/up.png", save(picture(), "PNG"))
    top = f"s3://{bucket.name}/in"

    kinds = {name.removeprefix(f"{top}/"): kind for name, kind in batch.run_kinds(top).items()}

    assert kinds.pop("notes.txt") is Kind.PASSED_OVER
    assert len(kinds) == 4
    assert set(kinds.values()) == {Kind.UPSCALED}
    names = [key for key in bucket.list_keys() if key.startswith("out/")]
    names = [name.removeprefix("out/") for name in names] if is_to_bucket else batch.results()
    assert names[0] == "a-x2.jpg"
    assert names[1] in ("a.jpg-x2.jpg", "a.png-x2.jpg"), "whichever came second"
    assert names[2:] == ["sub/deep/c-x2.jpg", "sub/ü b#1?-x2.jpg"]
    computed = len(batch.engine.seen)
    assert set(batch.run_kinds(top).values()) == {Kind.SKIPPED, Kind.PASSED_OVER}
    assert len(batch.engine.seen) == computed


def test_results_below_the_input_prefix_are_not_upscaled_again(
    batch: Batch, bucket: Bucket
) -> None:
    batch.output = S3Url(bucket.name)
    batch.settings = {"s3_endpoint": bucket.endpoint}
    bucket.put("in/in/a.png", save(picture(), "PNG"))
    top = f"s3://{bucket.name}/in"
    assert set(batch.run_kinds(top).values()) == {Kind.UPSCALED}
    assert batch.run_kinds(top) == {
        f"{top}/in/a.png": Kind.SKIPPED,
        f"{top}/a-x2.jpg": Kind.PASSED_OVER,
    }


def refuse_for_lack_of_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name_bytes", [251, 252, 253, 255])
def test_a_source_of_the_longest_name_has_a_result(batch: Batch, name_bytes: int) -> None:
    names = ["x" * (name_bytes - 4) + ".png", "x" * (name_bytes - 5) + "y.png"]
    for number, name in enumerate(names):
        batch.add(name, number)
    assert set(batch.run_kinds().values()) == {Kind.UPSCALED}
    assert len(batch.results()) == 2
    assert set(batch.run_kinds().values()) == {Kind.SKIPPED}


def test_one_picture_that_the_network_fails_at_stops_nothing(batch: Batch) -> None:
    batch.add("wide.png", size=(60, 20))
    batch.add("other.png", 10)

    def spoil(result: np.ndarray) -> np.ndarray:
        return np.zeros_like(result) if result.shape[1] > 100 else result

    batch.engine = TrueEngine(model="upscaled-x2", window_px=64, fault=spoil, exact_fault=spoil)
    outcomes = batch.run()
    assert (outcomes["wide.png"].kind, outcomes["wide.png"].error_code) == (
        Kind.FAILED, "internal_error",
    )  # fmt: skip
    assert outcomes["other.png"].kind is Kind.UPSCALED


def test_a_network_that_fails_at_everything_ends_the_batch(batch: Batch) -> None:
    class Broken(TrueEngine):
        def start(self, *_: object, **__: object) -> object:  # type: ignore[override]
            raise InternalError(detail="the device is gone")

    batch.engine = Broken(model="upscaled-x2")
    for number in range(20):
        batch.add(f"{number}.png", number)
    with pytest.raises(BatchAborted, match="the device is gone"):
        batch.run()
    assert batch.results() == []


def test_transparency_becomes_png(batch: Batch) -> None:
    (batch.source_dir).mkdir()
    (batch.source_dir / "a.png").write_bytes(save(picture(channels=4), "PNG"))
    assert batch.run_kinds() == {"a.png": Kind.UPSCALED}
    assert batch.results() == ["a-x2.png"]


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    """A core whose two models take a known time for a pixel."""
    folder = tmp_path_factory.mktemp("data")
    settings = load_settings({}, data_dir=folder, device="cpu", precision="exact", threads=1)
    with open_core(settings, scales=(2,), decoders=0, is_warm=True) as opened:
        assert opened.seconds_per_px["upscaled-x2"] > 0, "a warm core knows its models' speed"
        yield replace(opened, seconds_per_px=S_PER_PX)


def expect(core: Core, ladder: tuple[Rung, ...], width_px: int, height_px: int) -> DeviceEstimate:
    header = Header("PNG", width_px, height_px, has_alpha=False)
    output = decide_local_output(header, 2, keeps_depth=False)
    return expect_upscale(replace(core, ladders={2: ladder}), header, 2, output)


def test_an_image_of_one_window_costs_its_pixels(core: Core) -> None:
    expected = expect(core, (Rung(model="upscaled-x2"),), 60, 40)
    assert expected.models == ("upscaled-x2",)
    assert expected.device_s == pytest.approx(60 * 40 * 1e-6)


def test_the_halos_of_several_windows_count(core: Core) -> None:
    expected = expect(core, (Rung(model="upscaled-x2"),), 3000, 2000)
    assert 6.0 < expected.device_s < 9.0


def test_a_tempered_model_costs_the_time_of_both(core: Core) -> None:
    tempered = Rung(model="upscaled-x4-faithful", tempered_with="upscaled-x2")
    expected = expect(core, (tempered,), 60, 40)
    assert expected.models == ("upscaled-x4-faithful",)
    assert expected.device_s == pytest.approx(60 * 40 * (1e-3 + 1e-6))


def test_where_the_pixels_decide_the_slower_model_counts(core: Core) -> None:
    ladder = (Rung(model="upscaled-x4-faithful", harmed_only=True), Rung(model="upscaled-x2"))
    expected = expect(core, ladder, 60, 40)
    both = ("upscaled-x4-faithful", "upscaled-x2")
    assert expected.models == both
    assert expected.device_s == pytest.approx(60 * 40 * 1e-3)
