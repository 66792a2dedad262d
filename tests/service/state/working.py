"""Processes that work on one key's jobs, some of them killed at random and replaced.

    python working.py DATABASE_URL DATA_DIR KEY_ID JOBS WORKERS KILLS

Every tenth job is cancelled at a random moment. Leases last 1 s, and some workers pause for longer
than that in the middle of a job. Ends when every job has.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import upscaled.state.jobs
from upscaled.config import Settings, load_settings
from upscaled.state import PaidResult, open_state
from upscaled.state.job_rows import JobOrder

upscaled.state.jobs.LEASE_S = 1.0  # type: ignore[misc]  # for this test's processes alone
upscaled.state.jobs.MAX_ATTEMPTS = 100  # type: ignore[misc]  # so that none is given up


def main() -> None:
    database_url, data_dir, *numbers = sys.argv[1:]
    key_id, jobs, workers, kills = map(int, numbers)
    settings = load_settings({}, database_url=database_url, data_dir=Path(data_dir))

    def start() -> int:
        child = os.fork()
        if child == 0:
            work(settings)
        return child

    running = [start() for _ in range(workers)]
    with open_state(settings) as state:
        submitted = [
            state.jobs.submit(
                key_id, JobOrder("source", None, 4, ""), is_metered=True, max_unfinished=jobs
            ).job.id
            for _ in range(jobs)
        ]
        to_cancel = submitted[::10]
        deadline = time.monotonic() + 120
        while state.jobs.count_unfinished():
            assert time.monotonic() < deadline
            time.sleep(random.uniform(0.02, 0.1))
            if to_cancel:
                state.jobs.cancel(key_id, to_cancel.pop())
            if kills:
                kills -= 1
                stop(running.pop(random.randrange(len(running))))
                running.append(start())
    for child in running:
        stop(child)


def stop(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def work(settings: Settings) -> None:
    random.seed()
    with open_state(settings) as state:
        while True:
            claimed = state.jobs.claim()
            if claimed is None:
                time.sleep(0.02)
                continue
            time.sleep(random.uniform(0.0, 0.03))
            state.jobs.renew(claimed, 1, 2)
            if random.random() < 0.03:
                time.sleep(1.2)
            state.jobs.finish(claimed, PaidResult(f"{claimed.lease_id}.jpg", "image/jpeg"))


if __name__ == "__main__":
    main()
