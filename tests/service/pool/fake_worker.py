"""A worker that does what its jobs order: for tests of supervision, where pixels do not matter.

Run as a script: `fake_worker.py START --fd N`; START is how it begins: "ready", "unusable", "die",
"mute", "without D E": unusable on the devices D and E, or "ladder": ready, and `auto` takes the
model `slow` for pictures of at most `SMALL_PX` input pixels. The source bytes of a job begin with
one line of JSON:

    {"do": "answer", "after_s": 0.1, "size_bytes": 10}   sleep, then answer so many bytes
    {"do": "answer", "tempered_with": "x", "label": "y"}   say these of the result
    {"do": "answer", "until": path}      answer once there is this file
    {"do": "answer", "worked_s": 0.05}   say that it took so long
    {"do": "echo"}                       answer with the source
    {"do": "pieces", "offsets": [0, 3]}  pass pieces of 3 bytes on, then answer with one byte more
    {"do": "pieces", "offsets": [0], "marker": path}     the same, but once SIGKILL itself then
    {"do": "die", "after_s": 0.1}        SIGKILL itself
    {"do": "die", "marker": path}        the same, once: the file says that it was done
    {"do": "die", "marker": path, "times": 2}    the same, twice
    {"do": "die", "at": "cuda:1"}        the same, where that is its device
    {"do": "hang"}                       stop: nothing is said any more
    {"do": "hang", "marker": path}       the same, once
    {"do": "tiles", "count": 50, "tile_s": 0.1, "trace": path}   a line and a progress frame each
    {"do": "tiles", ..., "gates": {"5": path}}   the same, the sixth once there is this file
    {"do": "fail", "at": "cuda:1"}       answer `Failed`, everywhere or where that is its device
    {"do": "refuse"}, {"do": "nonsense"}

It writes the messages of `upscaled.pool.messages` as plain JSON, which the front end checks: to
import pydantic and these would be two thirds of its start, and tests start it a hundred times.
"""

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from upscaled.process import channel

SMALL_PX = 900
ALIVE_EVERY_S = 1.0

Message = dict[str, Any]

FAKE = {"model": "fake"}
LADDERS = {"ladder": [{"model": "slow", "most_px": SMALL_PX}, FAKE]}


class FrontEnd:
    """The front end, and which of its jobs it has cancelled; without it the process ends."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self.cancelled: set[int] = set()

    def send(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        try:
            with self._sending:
                channel.send(self._sock, json.dumps({"kind": kind, **fields}).encode(), payload)
        except OSError:
            os._exit(0)

    def receive(self) -> tuple[Message, bytes]:
        try:
            frame = channel.receive(self._sock)
        except (EOFError, OSError):
            os._exit(0)
        return json.loads(frame.header), frame.payload

    def listen(self, device: str) -> None:
        """Begin each job in a thread of its own, and say every second that this process lives."""
        alive_at_s = time.monotonic() + ALIVE_EVERY_S
        while True:
            within_s = max(0.0, alive_at_s - time.monotonic())
            if select.select([self._sock], [], [], within_s)[0]:
                message, source = self.receive()
                if message["kind"] == "cancel":
                    self.cancelled.add(message["job"])
                else:
                    assert message["kind"] == "job"
                    job = (self, message, source, device)
                    threading.Thread(target=obey, args=job, daemon=True).start()
            if time.monotonic() >= alive_at_s:
                self.send("alive", stats={"cpu_s": time.process_time()})
                alive_at_s = time.monotonic() + ALIVE_EVERY_S


def main() -> None:
    start = sys.argv[1]
    front_end = FrontEnd(socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1])))
    configure, _ = front_end.receive()
    assert configure["kind"] == "configure"
    if start == "die":
        die()
    device, slots = (configure["settings"][name] for name in ("device", "jobs_per_worker"))
    listening = threading.Thread(target=front_end.listen, args=(device,), daemon=True)
    listening.start()
    if start == "mute":
        time.sleep(60)
    if start == "unusable" or (start.startswith("without ") and device in start.split()):
        front_end.send("unusable", reason="the model is on holiday")
        raise SystemExit(1)
    front_end.send(
        "ready",
        device="fake" if device == "auto" else device,
        models={2: "fake", 4: "fake"},
        labels={2: "fake", 4: "fake"},
        ladders={scale: LADDERS.get(start, [FAKE]) for scale in (2, 4)},
        seconds_per_px={"fake": 1e-4, "slow": 1e-2},
        slots=slots or 4,
    )
    listening.join()


def die() -> None:
    end_by(signal.SIGKILL)


def end_by(sig: signal.Signals) -> None:
    os.kill(os.getpid(), sig)
    time.sleep(60)  # another thread may be the one that is hit first


def is_due(order: Message, device: str) -> bool:
    """Return whether an order is for this device and was met less than its marker allows."""
    if order.get("at", device) != device:
        return False
    if "marker" not in order:
        return True
    with Path(order["marker"]).open("a") as marker:
        is_due: bool = marker.tell() < order.get("times", 1)
        marker.write("x")
    return is_due


def obey(front_end: FrontEnd, message: Message, source: bytes, device: str) -> None:
    job = message["job"]
    order: Message = json.loads(source.partition(b"\n")[0])
    started = time.perf_counter()
    match order["do"]:
        case "die" if is_due(order, device):
            time.sleep(order.get("after_s", 0))
            die()
        case "hang" if is_due(order, device):
            end_by(signal.SIGSTOP)
        case "fail" if is_due(order, device):
            front_end.send("failed", job=job, reason="ZeroDivisionError")
            return
        case "pieces":
            for number, offset in enumerate(order["offsets"]):
                front_end.send("piece", str(number).encode() * 3, job=job, offset=offset)
            if "marker" in order and is_due(order, device):
                die()
        case "refuse":
            code, text = "malformed_image", "No image"
            front_end.send("refused", job=job, error_code=code, public_text=text)
            return
        case "nonsense":
            front_end.send("cancelled", job=job + 1000)
            return
        case "tiles" if not work_tiles(front_end, job, order):
            front_end.send("cancelled", job=job)
            return
    wait_for_file(order.get("until"))
    time.sleep(order.get("after_s", 0))
    data = source if order["do"] == "echo" else b"x" * order.get("size_bytes", 1)
    worked_s = order.get("worked_s", time.perf_counter() - started)
    result = describe(message["request"]["model"], worked_s, order)
    front_end.send("done", data, job=job, result=result)


def wait_for_file(path: str | None) -> None:
    """Wait until a test has made this file."""
    while path is not None and not Path(path).exists():
        time.sleep(0.01)


def work_tiles(front_end: FrontEnd, job: int, order: Message) -> bool:
    """Return whether all tiles were done."""
    for done in range(order["count"]):
        if job in front_end.cancelled:
            return False
        wait_for_file(order.get("gates", {}).get(str(done)))
        time.sleep(order["tile_s"])
        with Path(order["trace"]).open("a") as trace:
            trace.write(f"{done}\n")
        front_end.send("progress", job=job, done=done + 1, total=order["count"])
    return True


def describe(model: str, worked_s: float, order: Message) -> Message:
    """The result of a job, of which its order may say some."""
    return {
        "data": "",
        "media_type": "image/png",
        "width_px": 1,
        "height_px": 1,
        "model": model or f"fake {os.getpid()}",
        "label": order.get("label", "fake"),
        "tempered_with": order.get("tempered_with", ""),
        "timings": {"decode_s": 0, "network_s": worked_s, "encode_s": 0, "device_s": worked_s},
    }


if __name__ == "__main__":
    main()
