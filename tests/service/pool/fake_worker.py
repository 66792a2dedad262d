"""A worker that does what its job tells it: for tests of supervision, where pixels do not matter.

Run as a script with `--fd N`. The source bytes of a job are one line of JSON:

    {"do": "answer", "after_s": 0.1, "size_bytes": 10}   sleep, then that many bytes
    {"do": "die"}            SIGKILL itself
    {"do": "die_once", "marker": path}   die if the file is not there yet; make it first
    {"do": "hang"}           stop, so that nothing is said any more
    {"do": "tiles", "count": 50, "tile_s": 0.1, "trace": path}   a progress frame and a line each
    {"do": "fail"} {"do": "refuse"} {"do": "nonsense"} {"do": "echo", ...}

The environment variable TORCH_FAKE tells how it starts: "" ready, "unusable", "die", "mute".
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from service.pool import worker
from service.pool.messages import (
    Cancelled,
    Done,
    Failed,
    Job,
    Progress,
    Ready,
    Refused,
    Unusable,
)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    wire = worker.Wire(socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1])))
    inbox = worker.Inbox()
    worker._hear_settings(wire)
    start = os.environ.get("TORCH_FAKE", "")
    if start == "die":
        die()
    if start == "mute":
        time.sleep(60)
    threading.Thread(target=worker._listen, args=(wire, inbox), daemon=True).start()
    if start == "unusable":
        wire.say(Unusable(reason="the model is on holiday"))
        raise SystemExit(1)
    wire.say(Ready(device="fake", models={2: "fake", 4: "fake"}, seconds_per_px={2: 1e-3, 4: 1e-3}))
    while True:
        job, source = inbox.next()
        obey(wire, inbox, job, source)


def obey(wire: worker.Wire, inbox: worker.Inbox, job: Job, source: bytes) -> None:
    order: dict[str, Any] = json.loads(source.partition(b"\n")[0])
    data = b"x" * order.get("size_bytes", 1)
    match order["do"]:
        case "die":
            die()
        case "die_once":
            if not Path(order["marker"]).exists():
                Path(order["marker"]).touch()
                die()
        case "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "tiles":
            for done in range(order["count"]):
                if inbox.is_cancelled(job):
                    wire.say(Cancelled(job=job.job))
                    return
                time.sleep(order["tile_s"])
                with Path(order["trace"]).open("a") as trace:
                    trace.write(f"{done}\n")
                wire.say(Progress(job=job.job, done=done + 1, total=order["count"]))
        case "fail":
            wire.say(Failed(job=job.job, reason="ZeroDivisionError"))
            return
        case "refuse":
            wire.say(Refused(job=job.job, error_code="malformed_image", public_text="No image"))
            return
        case "nonsense":
            wire.say(Cancelled(job=job.job + 1000))
            return
        case "echo":
            data = source
    time.sleep(order.get("after_s", 0))
    wire.say(
        Done(
            job=job.job,
            media_type="image/png",
            width_px=1,
            height_px=1,
            model=f"fake {os.getpid()}",
            decode_s=0,
            network_s=0,
            encode_s=0,
        ),
        data,
    )


if __name__ == "__main__":
    main()
