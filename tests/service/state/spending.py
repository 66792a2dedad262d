"""A process that spends credits until it has tried `COUNT` times, or is killed.

    python spending.py DATABASE_URL DATA_DIR KEY_ID PREFIX COUNT FAILURES_PERCENT

Each captured request is printed on a line of its own right after the capture. Every settlement is
tried twice, and some of them against the ledger's rules, as a client that lost an answer would.
With -1 for FAILURES_PERCENT nothing is ever settled, and the process waits for its end.
"""

import random
import sys
import time
from pathlib import Path

from service.config import load_settings
from service.errors import InsufficientApiCredits
from service.state import State, open_state

NEVER_SETTLED = -1


def main() -> None:
    database_url, data_dir, key_id, prefix, count, failures_percent = sys.argv[1:]
    settings = load_settings({}, database_url=database_url, data_dir=Path(data_dir))
    with open_state(settings) as state:
        print("ready", flush=True)
        for number in range(int(count)):
            try:
                spend(state, int(key_id), f"{prefix}-{number}", int(failures_percent))
            except InsufficientApiCredits:
                print("refused", flush=True)
        if int(failures_percent) == NEVER_SETTLED:
            time.sleep(60)


def spend(state: State, key_id: int, request_id: str, failures_percent: int) -> None:
    hold = state.credits.hold(key_id, request_id)
    if failures_percent == NEVER_SETTLED:
        print("held", flush=True)
    elif random.randrange(100) < failures_percent:
        assert state.credits.release(hold)
        assert not state.credits.release(hold)
    else:
        state.credits.capture(hold)
        print(f"captured {request_id}", flush=True)
        state.credits.capture(hold)
        assert not state.credits.release(hold)


if __name__ == "__main__":
    main()
