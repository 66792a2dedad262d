"""What the result of a file is called."""

from collections.abc import Iterator
from itertools import count
from pathlib import PurePath


def candidate_names(source_name: str, scale: int, ending: str) -> Iterator[str]:
    """The result's name, and what it is called where that is another source's: without end.

    a.png at x4: `a-x4.jpg`, `a.png-x4.jpg`, `a.png-2-x4.jpg`, `a.png-3-x4.jpg` ...
    """
    stem = PurePath(source_name).stem
    yield f"{stem}-x{scale}.{ending}"
    if stem != source_name:
        yield f"{source_name}-x{scale}.{ending}"
    yield from (f"{source_name}-{number}-x{scale}.{ending}" for number in count(2))
