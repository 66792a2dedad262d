"""Memory of the results of one window after the other, used again while windows follow each other.

A result of 512x512 pixels at x4 is 50 MB of floats. glibc returns blocks of more than 32 MiB to the
system, which clears each page anew when it is next written: 5 % of the processor time of such a
window in 8 bits.
"""

import weakref
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

_MOST_KEPT: Final = 1
"""The device fills one block while an image converts what is in another, and then takes that."""

Block = TypeVar("Block")


@dataclass(slots=True)
class KeptBlocks(Generic[Block]):
    """Blocks of memory, or what owns them, that are free again; any thread may use it.

    They are kept only while a result that was lent later is in use: with the last window of an
    image all are freed.
    """

    _free: list[Block] = field(default_factory=list)
    _latest: "weakref.ref[NDArray[Any]] | None" = None

    def take(self) -> Block | None:
        """Take a block that is free; None: there is none."""
        try:
            return self._free.pop()
        except IndexError:
            return None

    def lend(self, values: NDArray[Any], block: Block) -> None:
        """Keep a block for another result once `values`, which lie in it, have no views left.

        values: must not be a view of another array, to which views of it would refer instead.
        """
        weakref.finalize(values, self._give_back, block).atexit = False
        self._latest = weakref.ref(values)

    def _give_back(self, block: Block) -> None:
        """Keep a block while a later one is in use; each step is atomic, so that none waits."""
        if self._latest is None or self._latest() is None:
            self._free.clear()
        elif len(self._free) < _MOST_KEPT:
            self._free.append(block)


@dataclass(slots=True)
class ResultMemory:
    """Arrays for results, in memory that is used again."""

    _blocks: KeptBlocks[NDArray[np.float32]] = field(default_factory=KeptBlocks)

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return an array of any content, whose memory is used again once it has no views left."""
        count = prod(shape)
        block = self._blocks.take()
        if block is None or block.size < count:
            block = np.empty(count, np.float32)
        # Views of `values` refer to it, not to `block`, as it does not refer to that as an array.
        values = np.frombuffer(block.data, np.float32, count)
        self._blocks.lend(values, block)
        return values.reshape(shape)
