"""Child processes of both kinds inherit no secret, end in order, and none is left behind."""

import asyncio
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.descriptors import no_descriptor_each
from upscaled.process import channel
from upscaled.process.child import AsyncChild, Child, ChildLost, ChildUnusable, scrub_environment

ECHO = """
import socket, sys
from upscaled.process.channel import receive, send
from upscaled.process.confinement import OomScore, child_parser, confine
arguments = child_parser("Send back what comes.").parse_args()
confine(arguments.lifeline, OomScore.WORKER)
sock = socket.socket(fileno=arguments.fd)
while True:
    try:
        frame = receive(sock)
    except EOFError:
        sys.exit(3)
    send(sock, frame.header, frame.payload)
"""
COMMAND = (sys.executable, "-c", ECHO)
STARTS = 20


def test_a_child_inherits_what_libraries_need_and_no_secret() -> None:
    outside = {"PATH": "/bin", "HOME": "/root", "AWS_SECRET_ACCESS_KEY": "s", "CUDA_A": "1"}
    assert scrub_environment(outside) == {"PATH": "/bin"}
    assert set(scrub_environment(outside, {"HOME"}, ("CUDA_",))) == {"PATH", "HOME", "CUDA_A"}


async def test_an_async_child_answers_ends_by_itself_and_its_exit_is_described() -> None:
    child = await AsyncChild.start(COMMAND, scrub_environment(os.environ))
    sending = asyncio.gather(*(child.send(bytes([at]), bytes(500_000)) for at in range(3)))
    assert [(await child.receive(within_s=60)).header for _ in range(3)] == [b"\0", b"\1", b"\2"]
    await sending
    with pytest.raises(ChildLost, match=r"was silent for 0\.1 s"):
        await child.receive(within_s=0.1)
    child.close_sending()
    with pytest.raises(ChildLost, match="ended"):
        await child.receive(within_s=60)
    assert await child.wait() == "exit status 3"
    await child.close()


async def test_an_async_child_that_does_not_end_is_killed() -> None:
    child = await AsyncChild.start(COMMAND, scrub_environment(os.environ))
    child.kill()
    assert await child.wait() == "killed by SIGKILL"
    await child.close()
    child.kill()  # of a process that is gone does nothing


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    before = set(psutil.Process().children())
    starting = asyncio.create_task(AsyncChild.start(COMMAND, {}))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert set(psutil.Process().children()) <= before


async def test_children_that_have_ended_leave_no_descriptor() -> None:
    with no_descriptor_each(STARTS):
        for _ in range(STARTS):
            child = await AsyncChild.start(["true"], scrub_environment(os.environ))
            await child.wait()
            await child.close()
        for _ in range(STARTS):
            Child(["true"], scrub_environment(os.environ)).end()


@pytest.mark.slow
async def test_a_program_that_is_not_there_is_unusable_and_leaves_no_descriptor() -> None:
    with no_descriptor_each(STARTS):
        for _ in range(STARTS):
            with pytest.raises(ChildUnusable, match="cannot start /nowhere: No such file"):
                await AsyncChild.start(["/nowhere"], {})
        for _ in range(STARTS):
            with pytest.raises(FileNotFoundError):
                Child(["/nowhere"], {})


def test_a_child_answers_its_thread_and_is_ended() -> None:
    child = Child(COMMAND, scrub_environment(os.environ))
    child.sock.setblocking(True)
    channel.send(child.sock, b"h", b"payload")
    assert channel.receive(child.sock).payload == b"payload"
    assert child.is_alive
    assert child.wait(0.01) is None
    child.end()
    child.end()
    assert child.wait(0) == -signal.SIGKILL


PARENT = """
import os, sys, time
from upscaled.process.child import Child
child = Child(sys.argv[1:], dict(os.environ))
os.set_blocking(child.sock.fileno(), True)
from upscaled.process import channel
channel.send(child.sock, b"")
channel.receive(child.sock)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["hangs", "stopped"])
def test_a_child_that_hangs_or_is_stopped_dies_with_its_parent(state: str) -> None:
    hanging = ECHO + "    import time; time.sleep(600)\n"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, sys.executable, "-c", hanging], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    with parent.stdout as lines:
        child = psutil.Process(int(lines.readline()))
    if state == "stopped":
        child.suspend()
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs([child], timeout=60)
    assert alive == []


async def test_an_async_child_that_no_kill_ends_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one in an uninterruptible sleep, which a test cannot make."""
    monkeypatch.setattr("upscaled.process.child.KILLED_WITHIN_S", 0.1)
    child = await AsyncChild.start(COMMAND, scrub_environment(os.environ))
    assert await child.wait() == "does not end although it was killed"
    assert "it is left behind" in caplog.text
    child.kill()
    assert await child.wait() == "killed by SIGKILL"
    await child.close()


async def test_nothing_waits_to_send_to_a_killed_child_or_for_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be in an uninterruptible sleep, where it reads nothing and keeps its socket open."""
    child = await AsyncChild.start((sys.executable, "-c", "import time; time.sleep(100)"), {})
    receiving = asyncio.create_task(child.receive(within_s=None))
    sending = asyncio.create_task(child.send(b"", bytes(20_000_000)))
    await asyncio.sleep(0.05)
    with monkeypatch.context() as unkillable:
        unkillable.setattr(os, "kill", lambda pid, sig: None)
        child.kill()
        async with asyncio.timeout(30):
            with pytest.raises(ChildLost, match="ended"):
                await receiving
            with pytest.raises(OSError, match="Broken pipe"):
                await sending
            await child.close()
    child.kill()
    assert await child.wait() == "killed by SIGKILL"


def test_a_child_that_no_kill_ends_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("upscaled.process.child.KILLED_WITHIN_S", 0.1)
    child = Child((sys.executable, "-c", "import time; time.sleep(100)"), {})
    with monkeypatch.context() as unkillable:
        unkillable.setattr(subprocess.Popen, "kill", lambda _: None)
        child.end()
    assert "it is left behind" in caplog.text
    child.end()
    assert child.wait(60) == -signal.SIGKILL
