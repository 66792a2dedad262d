"""Find the decoder processes that this process has started."""

from contextlib import suppress

import psutil


def decoder_processes(program: str = "upscaled.decoder.child") -> list[psutil.Process]:
    """List those that run this program and have not ended, by their ids."""
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # ended, or a zombie
            if any(program in part for part in process.cmdline()):
                found.append(process)
    return sorted(found, key=lambda process: process.pid)
