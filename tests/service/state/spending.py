"""Processes that spend one key's credits, some of them killed at random and replaced.

    python spending.py DATABASE_URL DATA_DIR KEY_ID PROCESSES COUNT FAILURES_PERCENT KILLS

Each process tries COUNT times. A captured request is printed on a line of its own right after the
capture, "refused" where there was no credit left. Every settlement is tried twice, and some of
them against the ledger's rules, as a client that lost an answer would.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from upscaled.config import Settings, load_settings
from upscaled.errors import InsufficientApiCredits
from upscaled.state import State, open_state


def main() -> None:
    database_url, data_dir, *numbers = sys.argv[1:]
    key_id, processes, count, failures_percent, kills = map(int, numbers)
    settings = load_settings({}, database_url=database_url, data_dir=Path(data_dir))

    def start() -> int:
        child = os.fork()
        if child == 0:
            spend_all(settings, key_id, count, failures_percent)
            os._exit(0)
        return child

    running = [start() for _ in range(processes)]
    for _ in range(kills):
        time.sleep(random.uniform(0.03, 0.15))
        victim = running.pop(random.randrange(len(running)))
        os.kill(victim, signal.SIGKILL)
        # It may have come to its end before the kill.
        assert exit_status(victim) in (0, -signal.SIGKILL)
        running.append(start())
    assert [exit_status(child) for child in running] == [0] * processes


def exit_status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def spend_all(settings: Settings, key_id: int, count: int, failures_percent: int) -> None:
    random.seed()
    with open_state(settings) as state:
        for number in range(count):
            try:
                spend(state, key_id, f"{os.getpid()}-{number}", failures_percent)
            except InsufficientApiCredits:
                report("refused")


def spend(state: State, key_id: int, request_id: str, failures_percent: int) -> None:
    hold = state.credits.hold(key_id, request_id)
    if random.randrange(100) < failures_percent:
        assert state.credits.release(hold)
        assert not state.credits.release(hold)
    else:
        state.credits.capture(hold)
        report(f"captured {request_id}")
        state.credits.capture(hold)
        assert not state.credits.release(hold)


def report(line: str) -> None:
    """One write, which a pipe never mixes with another process's."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


if __name__ == "__main__":
    main()
