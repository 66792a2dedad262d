import errno
import os

import numpy as np
import pytest

from upscaled.process.channel import can_seal, read_memory, write_memory

PARTS = [memoryview(b"abc"), np.arange(4, dtype=np.uint8).reshape(2, 2).data]
WHOLE = b"abc\x00\x01\x02\x03"

sealed_or_not = pytest.mark.parametrize(
    "is_sealed",
    [pytest.param(True, marks=pytest.mark.skipif(not can_seal(), reason="Linux only")), False],
)


@sealed_or_not
def test_written_memory_is_read_back_and_may_be_changed(is_sealed: bool) -> None:
    fd = write_memory(PARTS, is_sealed=is_sealed)
    memory = read_memory(fd, len(WHOLE))
    os.close(fd)
    assert memory.tobytes() == WHOLE
    memory[0] = 9  # a copy of its own, or torch would warn


@sealed_or_not
def test_memory_of_another_size_than_announced_is_refused(is_sealed: bool) -> None:
    fd = write_memory(PARTS, is_sealed=is_sealed)
    for size in (0, len(WHOLE) - 1, len(WHOLE) + 1):
        with pytest.raises(ValueError, match="bytes of memory"):
            read_memory(fd, size)
    os.close(fd)


@pytest.mark.skipif(not can_seal(), reason="Linux only")
def test_sealed_memory_can_neither_be_written_nor_cut_short() -> None:
    """Otherwise its writer could end a process that has mapped it."""
    fd = write_memory(PARTS, is_sealed=True)
    for change in (lambda: os.ftruncate(fd, 1), lambda: os.pwrite(fd, b"x", 0)):
        with pytest.raises(OSError) as refusal:
            change()
        assert refusal.value.errno == errno.EPERM
    os.close(fd)


def test_memory_that_is_not_sealed_is_copied() -> None:
    fd = write_memory(PARTS, is_sealed=False)
    memory = read_memory(fd, len(WHOLE))
    os.ftruncate(fd, 0)
    os.close(fd)
    assert memory.tobytes() == WHOLE


def test_a_descriptor_of_a_pipe_is_refused() -> None:
    reading, writing = os.pipe()
    with pytest.raises(ValueError, match="bytes of memory"):
        read_memory(reading, 4)
    os.close(reading)
    os.close(writing)
