"""Distinguish a leak of file descriptors from those that other threads open and close."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def no_descriptor_each(times: int) -> Iterator[None]:
    """Check that a block which does something `times` times does not leave a descriptor each time.

    Servers and threads of earlier tests open and close some of their own meanwhile, so the count
    of one time alone says nothing.
    """
    gc.collect()  # what earlier tests left would hide what is left here
    before = psutil.Process().num_fds()
    yield
    assert psutil.Process().num_fds() - before < times // 2
