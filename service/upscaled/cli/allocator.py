"""What glibc's allocator keeps of the memory that images took in the front end.

By itself it learns from large blocks: once a body of 8 MB has come and gone, blocks up to that size
are cut out of the heap, which then has holes and stays as large as it ever was, and each thread may
have a heap of its own. 107 bodies of up to 8 MB left 19 MB behind, and memory crept up for as long
as there were bodies of new sizes.
"""

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 64 * 1024


def return_memory_early() -> None:
    """Have large blocks given back to the system as soon as they are freed; one heap for all.

    To be called before there are threads. Other allocators than glibc's are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for name, value in (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, _LARGE_BYTES),
        (_M_TRIM_THRESHOLD, _LARGE_BYTES),
    ):
        mallopt(name, value)
