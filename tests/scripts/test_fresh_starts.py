import subprocess
from pathlib import Path

from scripts.benchmark.fresh_starts import Start, busy_machine, describe


def count_children() -> int:
    """Of this process, without those that have ended."""
    pid = Path("/proc/self").resolve().name
    found = subprocess.run(
        ["/bin/sh", "-c", f"cat /proc/{pid}/task/*/children"], capture_output=True, text=True
    )
    return len(found.stdout.split())


def test_a_busy_machine_is_busy_for_the_block_and_no_longer() -> None:
    before = count_children()
    with busy_machine(2):
        assert count_children() >= before + 2
    assert count_children() == before
    with busy_machine(0):
        assert count_children() == before


def test_a_start_is_told_in_one_line() -> None:
    start = Start("m", True, "openvino int8", 512, True, False, 3.25, 1.04)
    line = describe(start)
    assert line.startswith("m ")
    assert line.endswith("px  by the table   3.2 s  1.040 of the fastest")
