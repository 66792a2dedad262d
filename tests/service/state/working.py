"""Processes that submit one key's jobs and work on them, some killed at random and replaced.

    python working.py DATABASE_URL DATA_DIR KEY_ID JOBS WORKERS KILLS

A front end submits each job twice under a name of its own; one that takes a killed one's place
begins with the first again. Jobs are cancelled at random moments, every tenth on average. Leases
last 1 s, and some workers pause for longer than that in the middle of a job. Ends when every job
has.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import upscaled.state.job_steps
from upscaled.config import Settings, load_settings
from upscaled.state import PaidResult, State, open_state
from upscaled.state.idempotency import RequestKey
from upscaled.state.job_rows import JobOrder, count_unfinished

upscaled.state.job_steps.LEASE_S = 1.0  # type: ignore[misc]  # for this test's processes alone
upscaled.state.job_steps.MAX_ATTEMPTS = 100  # type: ignore[misc]  # so that none is given up


def _count_unfinished(state: State, key_id: int) -> int:
    with state.database.read() as connection:
        return count_unfinished(connection, key_id)


def main() -> None:
    database_url, data_dir, *numbers = sys.argv[1:]
    key_id, jobs, workers, kills = map(int, numbers)
    settings = load_settings({}, database_url=database_url, data_dir=Path(data_dir))

    def start(work: Callable[[], None]) -> int:
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        return child

    claimers = [start(partial(claim_all, settings)) for _ in range(workers)]
    submit = partial(submit_all, settings, key_id, jobs)
    front_end = start(submit)
    is_submitting, to_cancel = True, jobs // 10
    with open_state(settings) as state:
        deadline = time.monotonic() + 300
        while is_submitting or _count_unfinished(state, key_id):
            assert time.monotonic() < deadline
            time.sleep(random.uniform(0.02, 0.1))
            if is_submitting:
                ended, status = os.waitpid(front_end, os.WNOHANG)
                is_submitting = ended == 0
                assert status == 0
            for job in state.jobs.list_page(key_id, limit=1).jobs if to_cancel else ():
                to_cancel -= 1
                state.jobs.cancel(key_id, job.id)
            if kills:
                kills -= 1
                victim = random.randrange(workers + is_submitting)
                if victim == workers:
                    stop(front_end)
                    front_end = start(submit)
                else:
                    stop(claimers[victim])
                    claimers[victim] = start(partial(claim_all, settings))
    for child in claimers:
        stop(child)


def stop(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def submit_all(settings: Settings, key_id: int, jobs: int) -> None:
    order = JobOrder("source", None, 4, "")
    with open_state(settings) as state:
        for number in range(jobs):
            name = RequestKey(key_id, f"job {number}", "fingerprint")
            first, again = (
                state.jobs.submit(
                    key_id, order, is_metered=True, max_unfinished=jobs, request_key=name
                )
                for _ in range(2)
            )
            assert (again.job.id, again.is_changed) == (first.job.id, False)


def claim_all(settings: Settings) -> None:
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
