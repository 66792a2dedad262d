"""Where the pieces of a file go in tests."""

from upscaled.image.encode import Piece
from upscaled.upscale.result import Result


class KeptFile:
    """Keeps the file, and requires that its pieces follow each other."""

    def __init__(self) -> None:
        self.file = bytearray()

    def write(self, piece: Piece, offset: int) -> None:
        assert offset in (0, len(self.file))
        del self.file[offset:]
        self.file.extend(piece)

    def end(self, result: Result) -> None:
        self.result = result


class Unreachable:
    """Takes nothing, as a front end that has gone."""

    def write(self, piece: Piece, offset: int) -> None:
        raise ConnectionError

    def end(self, result: Result) -> None:
        raise ConnectionError
