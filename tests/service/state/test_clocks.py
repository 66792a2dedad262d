"""Ages of stamps, the wall clock being set forward and back."""

import time
from dataclasses import dataclass

import pytest

from upscaled.state.clocks import Clocks, StampClock, read_boot_time_s


@dataclass
class Machine:
    """Its time passes, and its wall clock is set, by the test alone."""

    boot_s: float = 100.0
    offset_s: float = 1_800_000_000.0

    def stamp_clock(self) -> StampClock:
        return StampClock(
            Clocks(
                wall=lambda: self.boot_s + self.offset_s,
                boot=lambda: self.boot_s,
                running=lambda: self.boot_s,
            )
        )


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_stamp_is_of_the_wall_clock_and_ages_with_time(machine: Machine) -> None:
    clock = machine.stamp_clock()
    stamp_s = clock.now_s()
    assert stamp_s == 1_800_000_100
    machine.boot_s += 50
    assert clock.age_s(stamp_s) == 50


@pytest.mark.parametrize("set_by_s", [100_800.0, 600.0, 1.5, -600.0, -100_800.0])
def test_setting_the_clock_ages_no_stamp(machine: Machine, set_by_s: float) -> None:
    clock = machine.stamp_clock()
    old_s = clock.now_s()
    machine.boot_s += 10
    machine.offset_s += set_by_s
    assert clock.age_s(old_s) == 10
    new_s = clock.now_s()
    machine.boot_s += 0.5
    assert clock.age_s(old_s) == 10.5
    assert clock.age_s(new_s) == 0.5


def test_a_clock_that_is_set_again_and_again_ages_no_stamp(machine: Machine) -> None:
    clock = machine.stamp_clock()
    stamps = []
    for set_by_s in (5000.0, -90_000.0, 300_000.0, 20.0, -7.0):
        stamps.append((clock.now_s(), machine.boot_s))
        machine.boot_s += 3
        machine.offset_s += set_by_s
        clock.now_s()
    machine.boot_s += 1
    for stamp_s, made_at_s in stamps:
        assert clock.age_s(stamp_s) == pytest.approx(machine.boot_s - made_at_s)


def test_the_later_of_two_moments_with_equal_stamps_is_assumed(machine: Machine) -> None:
    clock = machine.stamp_clock()
    stamp_s = clock.now_s() + 5
    machine.boot_s += 10
    machine.offset_s -= 10
    clock.now_s()
    machine.boot_s += 6
    assert clock.age_s(stamp_s) == 1


@pytest.mark.parametrize("set_by_s", [100_800.0, 600.0, -600.0, -100_800.0])
def test_a_stamp_in_the_future_counts_as_made_after_the_clock_was_set(
    machine: Machine, set_by_s: float
) -> None:
    clock = machine.stamp_clock()
    before_s = clock.now_s() + 120
    machine.boot_s += 10
    machine.offset_s += set_by_s
    assert clock.age_s(before_s, ahead_s=120) == -110
    after_s = clock.now_s() + 120
    for passed_s in (0, 60, 60, 60):
        machine.boot_s += passed_s
        assert clock.age_s(after_s, ahead_s=120) == machine.boot_s - 230
        assert clock.age_s(before_s, ahead_s=120) == machine.boot_s - 220


def test_a_slewed_clock_is_followed(machine: Machine) -> None:
    """NTP corrects half a second by making seconds longer."""
    clock = machine.stamp_clock()
    stamp_s = clock.now_s()
    for _ in range(10):
        machine.boot_s += 60
        machine.offset_s += 0.03
        clock.now_s()
    assert clock.age_s(stamp_s) == pytest.approx(600.3)


def test_stamps_from_before_this_process_are_read_as_they_are(machine: Machine) -> None:
    assert machine.stamp_clock().age_s(1_799_999_100) == 1000


def test_a_stamp_that_this_clock_never_showed_is_in_the_future(machine: Machine) -> None:
    assert machine.stamp_clock().age_s(1_800_001_100) == -1000


def test_the_boot_clock_never_decreases() -> None:
    first_s = read_boot_time_s()
    time.sleep(0.01)
    assert read_boot_time_s() > first_s


def test_the_history_of_a_clock_is_bounded(machine: Machine) -> None:
    clock = machine.stamp_clock()
    for _ in range(1000):
        machine.offset_s += 10
        clock.now_s()
    stamp_s = clock.now_s()
    machine.boot_s += 4
    assert clock.age_s(stamp_s) == 4
    assert len(clock._jumps) == 64
