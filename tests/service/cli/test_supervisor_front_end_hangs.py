"""A front end whose event loop hangs with images under way: replaced, and every credit is back."""

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.running import serve
from tests.service.observed_server import SETTINGS, Service, encode_gradient
from upscaled.config import Settings
from upscaled.state import open_state

CREDITS = 10
UNDER_WAY = 2
# Its event loop hangs at SIGXCPU; the supervisor waits for less than 10 s.
HANGING = (
    sys.executable,
    "-c",
    """
import signal, time
from dataclasses import replace
from upscaled.cli import main, supervisor
from upscaled.cli.supervisor_link import SupervisorLink

def hang_for_ever(*_):
    time.sleep(1000)

def start(link, loop, on_signal, start=SupervisorLink.start):
    signal.signal(signal.SIGXCPU, hang_for_ever)
    start(link, loop, on_signal)

supervisor.LIMITS = replace(supervisor.LIMITS, silence_s=3)
SupervisorLink.start = start
main()
""",
)


def count_starts(service: Service) -> int:
    return sum(line.startswith("ready (") for line in service.server.stdout)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_was_under_way_in_a_front_end_that_hangs_is_given_back(tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SETTINGS, "UPSCALED_MAX_INPUT_SIDE_X4": "3000"}
    with serve(tmp_path / "data", program=HANGING, timeout_s=100, **settings) as server:
        service = Service(server, tmp_path, "")
        server.run("credits", "add", "first", str(CREDITS))
        front_end = server.front_end()
        workers = front_end.children(recursive=True)
        with ThreadPoolExecutor(UNDER_WAY + 1) as clients:
            image = encode_gradient(3000)
            sent = [clients.submit(service.send, image) for _ in range(UNDER_WAY)]
            service.wait_for(lambda traces: traces.open_holds == UNDER_WAY)
            front_end.send_signal(signal.SIGXCPU)
            time.sleep(0.5)  # by now nothing is answered: the next client waits for the replacement
            health = clients.submit(requests.get, server.url + "/healthz", timeout=60)
            server.wait_said("front_end_hung")
            assert all(isinstance(each.exception(60), requests.ConnectionError) for each in sent)
            with suppress(requests.ConnectionError):  # the dead one had accepted it
                assert health.result(60).status_code == 200
        server.wait_said("front_end_died")
        assert psutil.wait_procs([front_end, *workers], timeout=60)[1] == []
        after = service.wait_for(lambda traces: traces.open_holds == 0)
        assert (after.balance, after.captures) == (CREDITS, 0)
        assert after.results == after.strange_files == frozenset()

        server.wait_ready()
        while count_starts(service) < 2:
            time.sleep(0.05)
        assert server.front_end() != front_end
        assert service.send().status_code == 200
        assert service.traces().balance == CREDITS - 1
        (stacks,) = [line for line in server.stderr if "front_end_hung" in line]
        assert "in hang_for_ever" in stacks
        assert server.stop() == 0
    with open_state(Settings(data_dir=tmp_path / "data")) as state:
        assert state.credits.audit() == ()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_sigterm_ends_a_service_whose_front_end_hangs(tmp_path: Path) -> None:
    with serve(tmp_path, program=HANGING, is_waiting=False) as server:
        server.wait_listening()
        family = psutil.Process(server.process.pid).children(recursive=True)
        server.front_end().send_signal(signal.SIGXCPU)
        time.sleep(1.5)  # less than the silence that the supervisor waits for
        assert server.stop(timeout_s=60) == 1
        assert psutil.wait_procs(family, timeout=60)[1] == []
