"""Decoder process that does what its file says: end, hang, take memory, break the protocol."""

import errno
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import upscaled.decoder.child as child
from upscaled.image.types import Header, Image
from upscaled.process.channel import send


def decode(source: bytes, header: object, plan: object) -> Image:
    word = source.decode()
    match word:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "killed":  # as the kernel does where memory ends
            os.kill(os.getpid(), signal.SIGKILL)
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "no memory":
            vars(child)["write_memory"] = refuse_memory
        case "raise":
            raise RuntimeError("a bug")
        case "spin unlimited":
            child.stop_clock()
            while True:
                pass
        case "spin":
            while True:
                pass
        case "hang":
            Path(f"/proc/{os.getpid()}/comm").write_text("hanging")
            time.sleep(600)
        case "swell":
            bytearray(4 * 2**30)
    if word.startswith("once "):  # in the first process that gets it
        _, signals, mark = word.split()
        for name in signals.split(","):
            try:
                os.close(os.open(f"{mark}-{name}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.Signals[name])
    if word == "lie":
        text = json.dumps({"height_px": 9, "width_px": 9, "icc_bytes": 0}).encode()
        sock = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
        send(sock, text, fd=os.memfd_create("lie"))
        time.sleep(600)
    import numpy as np

    pid = os.getpid()
    shade = np.array([pid & 255, pid >> 8 & 255, pid >> 16], np.uint8)
    return Image(rgb=np.broadcast_to(shade, (64, 64, 3)).copy())


def refuse_memory(parts: object, *, is_sealed: bool) -> int:
    raise OSError(errno.ENOSPC, "no memory")


def read_header(source: bytes, formats: object) -> Header:
    return Header("JPEG", 64, 64, has_alpha=False)


if __name__ == "__main__":
    vars(child).update(decode=decode, read_header=read_header)
    child.main()
