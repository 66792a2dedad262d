"""Which candidates ended the process that tried them: no exception tells."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Attempts:
    """A file with the label of each candidate that was begun and not finished, a line each.

    path: None to remember nothing. A folder that takes no file remembers nothing either.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def deaths(self, label: str) -> int:
        """How often the process ended while it tried that candidate."""
        return self._read().count(label)

    @contextmanager
    def trying(self, label: str) -> Iterator[None]:
        """Remember the candidate, unless the block ends by itself: then forget its deaths too.

        A worker may be stopped from outside while it measures; only what ends the process time and
        again is to blame.
        """
        before = self._read()
        self._write([*before, label])
        try:
            yield
        finally:
            self._write([each for each in before if each != label])

    def forget(self) -> None:
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _read(self) -> list[str]:
        if self._path is None:
            return []
        try:
            return self._path.read_text(errors="replace").splitlines()
        except OSError:
            return []

    def _write(self, labels: list[str]) -> None:
        if self._path is not None:
            with suppress(OSError):
                self._path.write_text("".join(f"{label}\n" for label in labels))
