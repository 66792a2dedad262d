"""A replica's workers have what Ray has reserved for it."""

import pytest

from upscaled.config import Settings, SettingsError
from upscaled.pool import devices
from upscaled.pool.devices import plan_workers
from upscaled.pool.ray_serve.replica import load_replica_settings
from upscaled_models.processor import count_cores, usable_cores

HALVES = [{0, 1}, {2, 3}]


def workers(gpus: int = 0, reserved_cpus: str = "4", **variables: str) -> list[Settings]:
    environment = {"OMP_NUM_THREADS": reserved_cpus, **variables}
    return plan_workers(load_replica_settings(environment, gpus))


def test_each_reserved_gpu_has_a_worker_with_its_share_of_the_cpus() -> None:
    found = workers(gpus=2, reserved_cpus="9")
    assert [(each.device, each.threads) for each in found] == [("cuda:0", 4), ("cuda:1", 4)]


def test_a_part_of_the_cores_for_each_worker_is_tied_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "divide_cores", lambda parts: HALVES[:parts])
    found = workers(UPSCALED_DEVICE="cpu,cpu")
    assert [(each.device, each.threads) for each in found] == [("cpu:0-1", 2), ("cpu:2-3", 2)]


def test_a_replica_on_cpus_has_one_worker_with_what_is_reserved_whatever_the_numa_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "cores_by_node", lambda: HALVES)
    assert [(each.device, each.threads) for each in workers()] == [("auto", 4)]


def test_there_is_a_thread_for_each_worker_even_where_fewer_cpus_are_reserved() -> None:
    assert [each.threads for each in workers(gpus=2, reserved_cpus="1")] == [1, 1]


@pytest.mark.parametrize("reserved_cpus", ["4", ""])
def test_a_number_of_threads_that_is_set_wins(reserved_cpus: str) -> None:
    (worker,) = workers(reserved_cpus=reserved_cpus, UPSCALED_THREADS="3")
    assert worker.threads == 3


def test_without_a_reservation_the_cores_are_shared_out() -> None:
    (worker,) = workers(reserved_cpus="", UPSCALED_DEVICE=f"cpu:{min(usable_cores())}")
    assert (worker.threads, worker.shared_cores) == (0, 1)


def test_more_parts_than_cores_are_refused() -> None:
    with pytest.raises(SettingsError, match=f"64 parts of {count_cores()} cores"):
        workers(UPSCALED_DEVICE=",".join(["cpu"] * 64))
