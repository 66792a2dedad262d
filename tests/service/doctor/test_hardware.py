from pathlib import Path

import pytest

from upscaled.config import load_settings
from upscaled.doctor.finding import Status
from upscaled.doctor.hardware import MIN_MEMORY_BYTES, Hardware, check_hardware, read_hardware

GIB = 2**30
MEMORY_INFO = f"MemTotal:       {8 * 2**20} kB\nMemAvailable:   {5 * 2**20} kB\n"


def machine(folder: Path, **cgroup: str) -> Hardware:
    (folder / "meminfo").write_text(MEMORY_INFO)
    for name, text in cgroup.items():
        (folder / name.replace("_", ".")).write_text(text)
    return read_hardware(folder, folder)


def test_cores_and_memory_of_this_machine_are_read() -> None:
    hardware = read_hardware()
    assert hardware.cores >= 1
    assert 0 < hardware.free_bytes < hardware.memory_bytes


def test_a_container_s_limits_count(tmp_path: Path) -> None:
    hardware = machine(
        tmp_path, cpu_max="150000 100000", memory_max=str(2 * GIB), memory_current=str(GIB)
    )
    assert hardware.core_quota == 1.5
    assert (hardware.memory_bytes, hardware.free_bytes) == (2 * GIB, GIB)


def test_without_a_container_limit_the_whole_machine_counts(tmp_path: Path) -> None:
    hardware = machine(tmp_path, cpu_max="max 100000", memory_max="max")
    assert hardware.core_quota is None
    assert (hardware.memory_bytes, hardware.free_bytes) == (8 * GIB, 5 * GIB)


def test_a_system_without_readable_figures_is_no_failure(tmp_path: Path) -> None:
    findings = check_hardware(read_hardware(tmp_path, tmp_path), load_settings({}))
    assert {finding.status for finding in findings} == {Status.OK}


@pytest.mark.parametrize(
    ("free_bytes", "status"),
    [(MIN_MEMORY_BYTES, Status.OK), (MIN_MEMORY_BYTES - 1, Status.WARNING)],
)
def test_little_memory_is_a_warning(free_bytes: int, status: Status) -> None:
    hardware = Hardware("CPU", "AVX2", 2, None, 8 * GIB, free_bytes)
    assert check_hardware(hardware, load_settings({}))[1].status is status


@pytest.mark.parametrize(
    ("quota", "settings", "said"),
    [
        (2.0, {}, "set UPSCALED_THREADS=2"),
        (2.0, {"workers": 2}, "set UPSCALED_THREADS=1"),
        (2.0, {"threads": 2}, ""),
        (None, {"threads": 4, "workers": 2}, ""),
        (None, {"threads": 5, "workers": 2}, "lower UPSCALED_THREADS"),
    ],
)
def test_more_threads_than_cores_are_a_warning(
    quota: float | None, settings: dict[str, object], said: str
) -> None:
    hardware = Hardware("CPU", "AVX2", 8, quota, 8 * GIB, 8 * GIB)
    finding = check_hardware(hardware, load_settings({}, **settings))[0]
    assert finding.status is (Status.WARNING if said else Status.OK)
    assert said in finding.advice
