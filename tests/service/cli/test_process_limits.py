"""Tried in processes of their own: a limit that was raised cannot be lowered again."""

import signal
import subprocess
import sys

import pytest

from upscaled.cli.process_limits import SURVIVED_SIGNALS, ignore_signals


def run(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("soft", "hard"), [(64, 256), (256, 256)])
def test_descriptors_are_raised_to_the_hard_limit(soft: int, hard: int) -> None:
    program = (
        "import resource\n"
        "from upscaled.cli.process_limits import raise_descriptor_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    assert run(program).split() == [str(hard)] * 3


def test_signals_are_ignored_and_those_that_were_already_are_told_apart() -> None:
    before = {number: signal.getsignal(number) for number in SURVIVED_SIGNALS}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
        assert ignore_signals() == [signal.SIGUSR1, signal.SIGUSR2]
        for number in SURVIVED_SIGNALS:
            signal.raise_signal(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
