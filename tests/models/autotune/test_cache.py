import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from upscaled_models.accuracy import Accuracy
from upscaled_models.autotune.cache import (
    CacheFile,
    Choice,
    ChoiceRecord,
    Key,
    Measured,
    lock_folder,
)

KEY: Key = {"model": "upscaled-x4", "threads": 2, "candidates": ["torch bfloat16"]}
PROOF = Accuracy(57.1, 3, 0.1, 0.01, 0, 0.0, is_flat_kept=True, is_black=False)
CHOICE = Choice(
    runtime="torch",
    dtype="bfloat16",
    threads=2,
    window_px=256,
    batch=1,
    proof=PROOF,
    ns_per_px=1700.5,
    times_as_fast=4.2,
    refused={"openvino int8": "38.1 dB of the 40 that fast asks"},
    tuned_s=2.1,
    untried=["torch float16 on 2 threads"],
    measured=[
        Measured(
            name="torch float32 on 2 threads",
            ns_per_px=7140.0,
            against="torch bfloat16 on 2 threads",
            ratio=4.2,
            low=4.1,
            high=4.3,
            pairs=3,
        )
    ],
)


def file_at(path: Path) -> CacheFile[ChoiceRecord]:
    return CacheFile(path, KEY, ChoiceRecord)


def test_a_stored_choice_is_read_back_with_its_proof(tmp_path: Path) -> None:
    file = CacheFile.of(tmp_path / "tuning", "upscaled-x4-auto", KEY, ChoiceRecord)

    file.write(choice=CHOICE)

    assert file.read() == ChoiceRecord(key=dict(KEY), choice=CHOICE)
    assert list(file.path.parent.iterdir()) == [file.path]
    assert json.loads(file.path.read_text())["choice"]["proof"]["psnr_db"] == 57.1


def test_another_machine_version_or_model_has_another_file(tmp_path: Path) -> None:
    keys: list[Key] = [{**KEY, "threads": threads} for threads in (1, 2, 4)]
    paths = {CacheFile.of(tmp_path, "x", key, ChoiceRecord).path for key in keys}

    assert len(paths) == 3


def test_a_missing_file_logs_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert file_at(tmp_path / "absent.json").read() is None
    assert caplog.records == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("bfloat16", "float32", 1),  # another key
        lambda text: text.replace('"threads": 2', '"threads": 0'),
        lambda text: text.replace('"window_px": 256', '"window_px": "256"'),
        lambda text: text.replace('"batch": 1', '"crowd": 1'),
        lambda text: "[]",
    ],
)
def test_a_damaged_file_is_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[str], str]
) -> None:
    file = file_at(tmp_path / "choice.json")
    file.write(choice=CHOICE)
    file.path.write_text(damage(file.path.read_text()))

    assert file.read() is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "measuring again" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_only_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tuning").write_text("a file")

    with lock_folder(tmp_path / "tuning"):
        file_at(tmp_path / "tuning" / "choice.json").write(choice=CHOICE)

    assert "cannot be stored" in caplog.text


def _hold(folder: Path, is_held: Event) -> None:
    with lock_folder(folder):
        is_held.set()
        time.sleep(0.5)
        (folder / "done").touch()


def test_a_process_that_starts_later_waits_for_the_first(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    is_held = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "tuning", is_held))
    holder.start()
    assert is_held.wait(60)

    with lock_folder(tmp_path / "tuning"):
        assert (tmp_path / "tuning" / "done").exists()
    holder.join(60)


def test_the_wait_for_a_stopped_process_that_holds_the_lock_is_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with lock_folder(tmp_path), lock_folder(tmp_path, wait_s=0.2):
        assert "another process has kept its lock" in caplog.text
    caplog.clear()
    with lock_folder(tmp_path, wait_s=0.2):
        assert not caplog.records


def test_a_choice_is_described_in_one_line() -> None:
    assert CHOICE.describe() == (
        "torch bfloat16, windows of 256 px, 1 at a time, on 2 threads, 4.2 times as fast as "
        "float32: 57.1 dB against float32, largest error 3 of 255, mean 0.100, flat colours kept"
    )


def test_a_choice_that_is_not_settled_gives_the_reason() -> None:
    unsettled = CHOICE.model_copy(update={"unsettled": "no time was left for torch float16"})
    assert unsettled.describe().endswith("; not settled: no time was left for torch float16")
    assert (CHOICE.is_settled, unsettled.is_settled) == (True, False)


def test_a_choice_that_was_not_raced_names_no_gain() -> None:
    assert "times as fast" not in CHOICE.model_copy(update={"times_as_fast": None}).describe()


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_the_folder_is_its_owners_only_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        file_at(tmp_path / "written" / "choice.json").write(choice=CHOICE)
        with lock_folder(tmp_path / "locked"):
            pass
        (tmp_path / "old").mkdir(mode=0o755)
        with lock_folder(tmp_path / "old"):
            pass
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert {modes.pop(name) for name in ("written", "locked", "old")} == {0o700}
    assert set(modes.values()) == {0o600}
