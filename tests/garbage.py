"""What an error keeps in memory as long as no garbage is collected, in cycles with its frames."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


class Traced(bytes):
    """Bytes that `leaving_none` finds wherever they are kept."""


@contextmanager
def leaving_none() -> Iterator[None]:
    """Require that the block leaves no `Traced` behind, although no garbage is collected."""
    gc.collect()
    gc.disable()
    try:
        yield
        assert not any(isinstance(each, Traced) for each in gc.get_objects())
    finally:
        gc.enable()
