"""A body that keeps what a fetch writes to it."""


class Received:
    def __init__(self) -> None:
        self.data = bytearray()

    async def write(self, piece: bytes) -> None:
        self.data += piece
