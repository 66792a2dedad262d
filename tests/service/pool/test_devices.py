"""Devices of a machine, and the workers that each of them gets."""

import os
from pathlib import Path

import pytest

from upscaled.config import SettingsError, load_settings
from upscaled.config.values import cores_of, name_cores, split_devices
from upscaled.image.output import MAX_CANVAS_PX
from upscaled.pool import devices
from upscaled.pool.devices import (
    GpusUnknown,
    count_gpus,
    plan_workers,
    resolve_devices,
    share_canvas_px,
)
from upscaled_models.processor import count_cores

HALVES = [{0, 1, 4}, {2, 3, 5}]


def device_of(given: str, gpus: int = 0, **values: object) -> str:
    settings = load_settings({}, device=given, **values)
    return resolve_devices(settings, gpus).device


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores_by_node", lambda: HALVES)


def test_a_list_of_cores_is_read_and_written_as_taskset_does() -> None:
    assert split_devices("cpu:0-1,4-5,cpu:2,3") == ("cpu:0-1,4-5", "cpu:2,3")
    assert cores_of("cpu:0-1,4-5") == {0, 1, 4, 5}
    assert name_cores({0, 1, 4, 5, 9}) == "cpu:0-1,4-5,9"
    assert cores_of("cpu") == cores_of("cuda:3") == frozenset()


@pytest.mark.parametrize("given", ["auto", "cuda"])
def test_every_gpu_gets_a_worker(given: str) -> None:
    assert device_of(given, gpus=3) == "cuda:0,cuda:1,cuda:2"
    assert device_of(given, gpus=1) == given  # its worker finds it


def test_a_named_device_is_used_alone_beside_others() -> None:
    assert device_of("cuda:1", gpus=4) == "cuda:1"
    assert device_of("cuda:1,cuda:3", gpus=4) == "cuda:1,cuda:3"


@pytest.mark.usefixtures("two_nodes")
def test_each_numa_node_gets_a_worker_unless_the_settings_share_out_the_cores() -> None:
    assert device_of("auto") == device_of("cpu") == "cpu:0-1,4,cpu:2-3,5"
    assert device_of("auto", workers=2) == "auto"
    assert device_of("cpu", threads=4) == "cpu"
    assert device_of("auto", gpus=1) == "auto"


def test_a_machine_of_one_node_has_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores_by_node", lambda: HALVES[:1])
    assert device_of("auto") == "auto"


def test_more_parts_than_cores_are_refused() -> None:
    with pytest.raises(SettingsError, match=f"64 parts of {count_cores()} cores"):
        device_of(",".join(["cpu"] * 64))


def test_cores_that_this_process_may_not_run_on_are_refused() -> None:
    core = min(os.sched_getaffinity(0))
    assert device_of(f"cpu:{core}") == f"cpu:{core}"
    with pytest.raises(SettingsError, match="may not run on core 4000"):
        device_of(f"cpu:{core},cpu:4000-4001")


def test_workers_share_the_cores_of_their_device() -> None:
    apart = plan_workers(load_settings({}, device="cpu:0-3,cpu:4-5", workers=2))
    assert [worker.device for worker in apart] == ["cpu:0-3", "cpu:0-3", "cpu:4-5", "cpu:4-5"]
    assert [worker.shared_cores for worker in apart] == [2, 2, 1, 1]
    together = plan_workers(load_settings({}, device="cuda:0,cuda:1"))
    assert [worker.device for worker in together] == ["cuda:0", "cuda:1"]
    assert {worker.shared_cores for worker in together} == {max(1, count_cores() // 2)}


def test_workers_on_parts_of_a_processor_share_the_memory_for_results() -> None:
    assert share_canvas_px(load_settings({}, device="cpu:0,cpu:1")) == MAX_CANVAS_PX // 2
    assert share_canvas_px(load_settings({}, device="cuda:0,cuda:1")) == MAX_CANVAS_PX


@pytest.mark.slow
def test_gpus_are_counted_by_torch_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "NVIDIA_DRIVERS", (tmp_path,))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert count_gpus() == 0
    assert caplog.messages == []
    monkeypatch.setattr(devices, "_COUNT_COMMAND", ("/nowhere/python",))
    with pytest.raises(GpusUnknown, match=r"cannot count the GPUs: .*/nowhere/python"):
        count_gpus()


def test_gpus_that_cannot_be_counted_refuse_only_a_start_that_requires_them(
    two_nodes: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise GpusUnknown("cannot count the GPUs: no answer")

    monkeypatch.setattr(devices, "count_gpus", fail)
    with pytest.raises(SettingsError, match=r"no answer; list them \(UPSCALED_DEVICE=cuda:0"):
        resolve_devices(load_settings({}, device="cuda"))
    for named in ("cpu", "cuda:0,cuda:1"):
        resolve_devices(load_settings({}, device=named))
    assert caplog.messages == []
    assert resolve_devices(load_settings({})).device == "cpu:0-1,4,cpu:2-3,5"
    [record] = caplog.records
    assert (record.levelname, record.__dict__["event"]) == ("ERROR", "gpus_unknown")
    assert "uses the CPU alone. Run `upscaled doctor`, or list the GPUs" in caplog.text
    caplog.clear()
    # The workers of "auto" look for a GPU themselves, as with all settings of a cluster's replica.
    assert resolve_devices(load_settings({}, threads=4)).device == "auto"
    assert "uses the first GPU that a worker finds." in caplog.text
