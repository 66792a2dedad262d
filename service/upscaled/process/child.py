"""Starting a worker process with one end of a socket pair."""

import asyncio
import errno
import os
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from typing import Final

_STDERR = 2


# The machine lacks something at this moment: memory, processes, file descriptors.
_PASSING_ERRORS: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class WorkerUnusable(Exception):
    """The process cannot serve, and says why: a model is missing, the device is not there."""


class SpawnFailed(Exception):
    """The machine cannot start a process now, and may be able to later."""


async def spawn(
    command: Sequence[str], environment: Mapping[str, str]
) -> tuple[Process, socket.socket]:
    """The process, given `--fd N` behind `command`, and the non-blocking other end of its socket.

    Raises:
        WorkerUnusable: the program cannot be run.
        SpawnFailed: no memory, process or file descriptor is free for it.
    """
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise _failure(command[0], error) from None
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
        raise _failure(command[0], error) from None
    except BaseException:
        ours.close()
        raise
    return process, ours


def _failure(program: str, error: OSError) -> WorkerUnusable | SpawnFailed:
    text = f"cannot start {program}: {os.strerror(error.errno or 0)}"
    return SpawnFailed(text) if error.errno in _PASSING_ERRORS else WorkerUnusable(text)
