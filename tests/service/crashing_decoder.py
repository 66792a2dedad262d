"""A decoder that crashes at every file with the bytes of DEADLY; otherwise the real one."""

import os
import signal

import upscaled.decoder.child as child
from upscaled.image.decode import decode
from upscaled.image.types import Header, Image, MetadataPlan

DEADLY = "a decoder crashes at this"


def decode_or_crash(source: bytes, header: Header, plan: MetadataPlan | None) -> Image:
    if DEADLY.encode() in source:
        os.kill(os.getpid(), signal.SIGSEGV)
    return decode(source, header, plan)


if __name__ == "__main__":
    vars(child)["decode"] = decode_or_crash
    child.main()
