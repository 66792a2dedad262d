"""A decoder that dies of every file which holds the word DEADLY; otherwise the real one."""

import os
import signal
from collections.abc import Collection

import upscaled.decoder.child as child
from upscaled.image.decode import decode_file
from upscaled.image.types import Image

DEADLY = "of this a decoder dies"


def decode_or_die(source: bytes, formats: Collection[str]) -> Image:
    if DEADLY.encode() in source:
        os.kill(os.getpid(), signal.SIGSEGV)
    return decode_file(source, formats)


if __name__ == "__main__":
    vars(child)["decode"] = decode_or_die
    child.main()
