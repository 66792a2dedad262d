"""A job in flight at a worker: what has been received of its result, and the answer to wait for."""

import asyncio
from dataclasses import dataclass, field
from io import BytesIO

from upscaled.pool import messages
from upscaled.pool.executor import OnTile
from upscaled.process.channel import FrameError


@dataclass(frozen=True, slots=True)
class JobInFlight:
    """A job that a worker was sent.

    on_tile: gets its progress. answer: the worker's answer and the file of the result; None once
    the worker died. No exception: an unawaited future would log it, and an awaited one would keep
    it, with the job's file in a frame of its traceback.
    """

    on_tile: OnTile | None
    answer: asyncio.Future[tuple[messages.Answer, bytes] | None]
    _file: BytesIO = field(default_factory=BytesIO, init=False)

    def receive(
        self, message: messages.JobProgress | messages.ResultPiece | messages.Answer, payload: bytes
    ) -> None:
        """Receive a message of the job.

        Raises:
            FrameError: a piece of the result is not the next, or too much.
        """
        match message:
            case messages.JobProgress():
                if self.on_tile:
                    self.on_tile(message.done, message.total)
            case messages.ResultPiece():
                self._add(message.offset, payload)
            case _ if not self.answer.done():
                self._add(self._file.tell(), payload)
                self.answer.set_result((message, self._file.getvalue()))

    def end(self) -> None:
        """Note that the worker died; what was answered before stays."""
        if not self.answer.done():
            self.answer.set_result(None)

    def _add(self, offset: int, piece: bytes) -> None:
        if offset not in (0, self._file.tell()) or offset + len(piece) > messages.MAX_RESULT_BYTES:
            raise FrameError(f"{len(piece)} bytes at {offset} of a result")
        self._file.seek(offset)
        self._file.truncate()
        self._file.write(piece)
