"""A front end in small under the real supervisor: its lives are the program's arguments, in order.

    python front_end.py FOLDER LIMITS LIFE LIFE ...

A life is a word and perhaps a number: `serve`, `hang` (once it is ready), `spin` (it computes
without end then), `block S` (its event loop, once), `starve S` (it computes, and has hardly a core
for so long), `exit STATUS` (once ready), `fail STATUS` (before the first beat), `unready STATUS`
(after it), `late S` (to the first beat), `close S` (after its event loop's end). FOLDER gets a file
for each, with its link's count of restarts. LIMITS is JSON: fields of the supervisor's limits and
their values.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from upscaled.cli import supervisor, supervisor_link
from upscaled.cli.process_limits import ignore_signals
from upscaled.logs import configure_logging


def hang_for_ever() -> None:
    time.sleep(1000)


def spin_for_ever() -> None:
    while True:
        pass


def starve(seconds: float) -> None:
    """Compute for a tenth of a second, on a core that another process has taken for `seconds`."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    spin = "import sys, time\nprint(flush=True)\nuntil = time.monotonic() + float(sys.argv[1])\n"
    spin += "while time.monotonic() < until:\n    pass"
    other = subprocess.Popen(
        [sys.executable, "-c", spin, str(seconds)], stdout=subprocess.PIPE, close_fds=True
    )
    assert other.stdout is not None
    other.stdout.readline()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    end_s = time.process_time() + 0.1
    while time.process_time() < end_s:
        pass
    other.wait()


async def live(link: supervisor_link.SupervisorLink, what: str, number: float) -> None:
    ended = asyncio.Event()

    def on_signal(received: signal.Signals) -> None:
        print(received.name, flush=True)
        if received in link.ending:
            ended.set()

    link.start(asyncio.get_running_loop(), on_signal)
    await asyncio.sleep(0.01)
    if what == "unready":
        raise SystemExit(int(number))
    link.announce_ready()
    print("ready", flush=True)
    if what == "hang":
        hang_for_ever()
    if what == "spin":
        spin_for_ever()
    if what == "block":
        time.sleep(number)
    if what == "starve":
        starve(number)
    if what == "exit":
        raise SystemExit(int(number))
    await ended.wait()


def start_supervisor(
    listener: socket.socket, limits: dict[str, float]
) -> supervisor_link.SupervisorLink:
    quick = replace(supervisor.LIMITS, **limits)
    return supervisor.FrontEndSupervisor(listener, ignore_signals(), quick).run()


def main() -> None:
    folder, limits, *lives = sys.argv[1:]
    for module in (supervisor, supervisor_link):
        vars(module)["BEAT_EVERY_S"] = 0.1
    configure_logging("info", "json")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        link = start_supervisor(listener, json.loads(limits))
        number = len(list(Path(folder).iterdir()))
        (Path(folder) / f"{number}.{os.getpid()}").write_text(str(link.restarts))
        what, _, argument = lives[number].partition(" ")
        if what == "fail":
            raise SystemExit(int(argument))
        if what == "late":
            time.sleep(float(argument))
        asyncio.run(live(link, what, float(argument or 0)))
        if what == "close":
            time.sleep(float(argument))


if __name__ == "__main__":
    main()
