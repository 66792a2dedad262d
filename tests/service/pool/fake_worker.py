"""A worker that does what its jobs order: for tests of supervision, where pixels do not matter.

Run as a script: `fake_worker.py START --fd N`; START is how it begins: "ready", "unusable", "die",
"mute", "without D E": unusable on the devices D and E, or "ladder": ready, and `auto` takes the
model `slow` for pictures of at most `SMALL_PX` input pixels. The source bytes of a job begin with
one line of JSON:

    {"do": "answer", "after_s": 0.1, "size_bytes": 10}   sleep, then answer so many bytes
    {"do": "answer", "tempered_with": "x", "label": "y"}   say these of the result
    {"do": "echo"}                       answer with the source
    {"do": "die", "after_s": 0.1}        SIGKILL itself
    {"do": "die", "marker": path}        the same, once: the file says that it was done
    {"do": "die", "marker": path, "times": 2}    the same, twice
    {"do": "die", "at": "cuda:1"}        the same, where that is its device
    {"do": "hang"}                       stop: nothing is said any more
    {"do": "hang", "marker": path}       the same, once
    {"do": "tiles", "count": 50, "tile_s": 0.1, "trace": path}   a line and a progress frame each
    {"do": "fail", "at": "cuda:1"}       answer `Failed`, everywhere or where that is its device
    {"do": "refuse"}, {"do": "nonsense"}
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from upscaled.pool.messages import (
    Configure,
    Done,
    Failed,
    JobCancelled,
    JobProgress,
    JobRefused,
    Unusable,
    WorkerJob,
    WorkerReady,
)
from upscaled.upscale.model_choice import Rung
from upscaled.upscale.result import Result, Timings
from upscaled.worker.jobs import Counters, FrontEnd, FrontEndGone, JobQueue, listen

SMALL_PX = 900


FAKE = Rung(model="fake")
LADDERS = {"ladder": [Rung(model="slow", most_px=SMALL_PX), FAKE]}


def main() -> None:
    start = sys.argv[1]
    front_end = FrontEnd(socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1])))
    jobs = JobQueue()
    configure, _ = front_end.receive()
    assert isinstance(configure, Configure)
    if start == "die":
        die()
    threading.Thread(target=listen, args=(front_end, jobs, Counters()), daemon=True).start()
    if start == "mute":
        time.sleep(60)
    # Read out of the message: to import and build `Settings` would take half of a start.
    device, slots = (configure.settings[name] for name in ("device", "jobs_per_worker"))
    assert isinstance(device, str)
    assert isinstance(slots, int)
    if start == "unusable" or (start.startswith("without ") and device in start.split()):
        front_end.send(Unusable(reason="the model is on holiday"))
        raise SystemExit(1)
    front_end.send(
        WorkerReady(
            device="fake" if device == "auto" else device,
            models={2: "fake", 4: "fake"},
            labels={2: "fake", 4: "fake"},
            ladders={scale: LADDERS.get(start, [FAKE]) for scale in (2, 4)},
            seconds_per_px={"fake": 1e-4, "slow": 1e-2},
            slots=slots or 4,
        )
    )
    while True:
        job = (*jobs.next(), device)
        threading.Thread(target=work, args=(front_end, jobs, *job), daemon=True).start()


def work(front_end: FrontEnd, jobs: JobQueue, job: WorkerJob, source: bytes, device: str) -> None:
    try:
        obey(front_end, jobs, job, source, device)
    except FrontEndGone:
        os._exit(0)
    jobs.settle(job.job)


def die() -> None:
    end_by(signal.SIGKILL)


def end_by(sig: signal.Signals) -> None:
    os.kill(os.getpid(), sig)
    time.sleep(60)  # another thread may be the one that is hit first


def is_due(order: dict[str, Any], device: str) -> bool:
    """Return whether an order is for this device and was met less than its marker allows."""
    if order.get("at", device) != device:
        return False
    if "marker" not in order:
        return True
    with Path(order["marker"]).open("a") as marker:
        is_due: bool = marker.tell() < order.get("times", 1)
        marker.write("x")
    return is_due


def obey(front_end: FrontEnd, jobs: JobQueue, job: WorkerJob, source: bytes, device: str) -> None:
    order: dict[str, Any] = json.loads(source.partition(b"\n")[0])
    started = time.perf_counter()
    match order["do"]:
        case "die" if is_due(order, device):
            time.sleep(order.get("after_s", 0))
            die()
        case "hang" if is_due(order, device):
            end_by(signal.SIGSTOP)
        case "fail" if is_due(order, device):
            front_end.send(Failed(job=job.job, reason="ZeroDivisionError"))
            return
        case "refuse":
            front_end.send(
                JobRefused(job=job.job, error_code="malformed_image", public_text="No image")
            )
            return
        case "nonsense":
            front_end.send(JobCancelled(job=job.job + 1000))
            return
        case "tiles" if not work_tiles(front_end, jobs, job, order):
            front_end.send(JobCancelled(job=job.job))
            return
    time.sleep(order.get("after_s", 0))
    data = source if order["do"] == "echo" else b"x" * order.get("size_bytes", 1)
    described = {name: order[name] for name in ("tempered_with", "label") if name in order}
    front_end.send(finished(job, time.perf_counter() - started, **described), data)


def work_tiles(front_end: FrontEnd, jobs: JobQueue, job: WorkerJob, order: dict[str, Any]) -> bool:
    """Return whether all tiles were done."""
    for done in range(order["count"]):
        if jobs.cancellation(job).is_cancelled:
            return False
        time.sleep(order["tile_s"])
        with Path(order["trace"]).open("a") as trace:
            trace.write(f"{done}\n")
        front_end.send(JobProgress(job=job.job, done=done + 1, total=order["count"]))
    return True


def finished(job: WorkerJob, worked_s: float, **described: str) -> Done:
    model = job.request.model or f"fake {os.getpid()}"
    result = Result(b"", "image/png", 1, 1, model, "fake", Timings(0, worked_s, 0, worked_s))
    return Done(job=job.job, result=replace(result, **described))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
