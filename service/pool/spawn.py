"""Starting a worker process with one end of a socket pair."""

import asyncio
import os
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence

_STDERR = 2


class WorkerUnusable(Exception):
    """The process cannot serve, and says why: a model is missing, the device is not there."""


async def spawn(
    command: Sequence[str], environment: Mapping[str, str]
) -> tuple[Process, socket.socket]:
    """The process, given `--fd N` behind `command`, and the non-blocking other end of its socket.

    Raises:
        WorkerUnusable: the program cannot be run.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command,
                "--fd",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=DEVNULL,
                stdout=_STDERR,  # stdout is the front end's
                env=dict(environment),
                start_new_session=True,  # a Ctrl-C is for the front end, which then ends workers
            )
    except OSError as error:
        ours.close()
        raise WorkerUnusable(
            f"cannot start {command[0]}: {os.strerror(error.errno or 0)}"
        ) from None
    except BaseException:
        ours.close()
        raise
    return process, ours
