"""Tests for the memory of results that is used again."""

import tracemalloc

import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.openvino.result_memory import ResultMemory


def address(values: NDArray[np.float32]) -> int:
    return int(values.__array_interface__["data"][0])


def test_results_in_use_never_share_memory() -> None:
    memory = ResultMemory()
    held = [memory.allocate((1, 8, 8, 3)) for _ in range(4)]

    for number, values in enumerate(held):
        values.fill(number)

    assert [float(values.mean()) for values in held] == [0, 1, 2, 3]


def test_the_memory_of_a_result_serves_the_next_while_another_is_in_use() -> None:
    memory = ResultMemory()
    first = memory.allocate((1, 8, 8, 3))
    used = address(first)
    second = memory.allocate((1, 8, 8, 3))

    del first
    third = memory.allocate((1, 4, 16, 3))

    assert address(third) == used != address(second)
    assert third.shape == (1, 4, 16, 3)


def test_a_part_of_a_result_keeps_its_memory() -> None:
    memory = ResultMemory()
    first = memory.allocate((2, 8, 8, 3))
    part = first[1, 2:4]
    second = memory.allocate((2, 8, 8, 3))
    part.fill(5)

    del first
    third = memory.allocate((2, 8, 8, 3))
    third.fill(1)

    assert (part == 5).all()
    assert not np.shares_memory(part, third)
    assert not np.shares_memory(second, third)


def test_a_block_that_is_too_small_is_replaced() -> None:
    memory = ResultMemory()
    small = memory.allocate((4,))
    large = memory.allocate((16,))

    del small
    larger = memory.allocate((32,))
    larger.fill(1)

    assert larger.size == 32
    assert not np.shares_memory(larger, large)


def test_one_block_is_kept_at_most_and_none_once_the_last_result_is_dropped() -> None:
    memory = ResultMemory()
    block_bytes = 4 * (count := 1 << 20)
    tracemalloc.start()
    try:
        held = [memory.allocate((count,)) for _ in range(6)]
        del held[:-1]
        kept_bytes, _ = tracemalloc.get_traced_memory()
        del held
        left_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 2 * block_bytes <= kept_bytes < 3 * block_bytes
    assert left_bytes < block_bytes
