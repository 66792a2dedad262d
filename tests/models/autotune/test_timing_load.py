import os
from collections.abc import Callable
from pathlib import Path

import pytest

from upscaled_models.autotune.timing import NO_LOAD, Load, read_load

IDLE = Load(others_share=0.0, steal_share=0.0, load_per_core=0.0, pressure=0.0)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "cpu").write_text("some avg10=37.50 avg60=9.00 total=1\nfull avg10=0")
    (tmp_path / "loadavg").write_text("3.00 1.00 0.50 2/173 22542\n")
    write_ticks(tmp_path, user=100, idle=100, steal=0)
    return tmp_path


def write_ticks(proc: Path, *, user: int, idle: int, steal: int) -> None:
    (proc / "stat").write_text(f"cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1 1\n")


def passing(proc: Path, *, user: int, idle: int, steal: int) -> Callable[[float], None]:
    """A sleep, during which so many ticks go by."""

    def sleep(seconds: float) -> None:
        write_ticks(proc, user=100 + user, idle=100 + idle, steal=steal)

    return sleep


def test_the_load_is_read_as_linux_reports_it(proc: Path) -> None:
    found = read_load(proc, passing(proc, user=14, idle=4, steal=2))

    assert found.others_share == pytest.approx(0.7, abs=0.1)  # less what this process used itself
    assert found.steal_share == pytest.approx(0.1)
    assert found.load_per_core == 1.5
    assert found.pressure == 0.375
    assert str(found).endswith("load 1.5 a core, steal time 10%, processor pressure 38%")


@pytest.mark.parametrize(
    ("field", "busy", "middling", "idle"),
    [
        ("others_share", 0.51, 0.49, 0.12),
        ("steal_share", 0.11, 0.09, 0.02),
        ("load_per_core", 1.1, 0.9, 0.2),
        ("pressure", 0.51, 0.49, 0.12),
    ],
)
def test_each_sign_of_other_work_has_its_limits(
    field: str, busy: float, middling: float, idle: float
) -> None:
    loads = [Load(**{**_values(IDLE), field: each}) for each in (busy, middling, idle)]

    assert [each.is_busy for each in loads] == [True, False, False]
    assert [each.is_idle for each in loads] == [False, False, True]


def _values(load: Load) -> dict[str, float]:
    return {name: getattr(load, name) for name in Load.__slots__}


def test_a_machine_without_load_figures_counts_as_idle(tmp_path: Path) -> None:
    assert read_load(tmp_path, lambda seconds: None) == NO_LOAD
    assert NO_LOAD.is_idle


def test_this_machines_load_can_be_read() -> None:
    found = read_load()
    assert 0 <= found.others_share <= 1
    assert 0 <= found.steal_share <= 1
