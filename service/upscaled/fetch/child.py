"""Run the fetch process, in which the bytes of sources are parsed, away from the API keys.

Started by the front end as `python -m upscaled.fetch.child --fd N --lifeline M`. It holds no key
and nothing of the operator's environment, and of images only pieces; it ends with its parent.
"""

import asyncio
import os
import resource
import socket
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop

from upscaled.errors import ServiceError
from upscaled.fetch import messages
from upscaled.fetch.fetcher import Fetcher
from upscaled.fetch.messages import FetchOptions, Message, PostRequest
from upscaled.fetch.url import UnusableUrl
from upscaled.logs import configure_logging, log_uncaught_exceptions
from upscaled.process.channel import receive_async, send_async
from upscaled.process.confinement import OomScore, child_parser, confine, limit_softly


def main() -> None:
    """Fetch until the front end closes the socket."""
    arguments = child_parser(__doc__.partition("\n")[0]).parse_args()
    confine(arguments.lifeline, OomScore.FETCHER)
    limit_softly(resource.RLIMIT_CORE, 0)  # a core file would hold pictures
    sock = socket.socket(fileno=arguments.fd)
    sock.setblocking(False)
    try:
        uvloop.run(_serve(sock))
    except BaseException:  # noqa: BLE001  (the process ends of it)
        sys.excepthook(*sys.exc_info())
        os._exit(1)  # no lookup that hangs may keep this process


async def _serve(sock: socket.socket) -> None:
    options = FetchOptions.decode((await receive_async(sock)).header)
    configure_logging(options.log_level, options.log_format)
    log_uncaught_exceptions()
    fetcher = Fetcher(options)
    outbox: Outbox = asyncio.Queue()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_send(sock, outbox))
        tasks.create_task(_beat(outbox))
        await _serve_requests(sock, fetcher, outbox, tasks)


async def _serve_requests(
    sock: socket.socket, fetcher: Fetcher, outbox: "Outbox", tasks: asyncio.TaskGroup
) -> None:
    fetches: dict[int, asyncio.Task[None]] = {}

    def start(number: int, body: _Pieces, work: Coroutine[Any, Any, None]) -> None:
        fetch = fetches[number] = tasks.create_task(_fetch(outbox, number, body, work))
        fetch.add_done_callback(lambda _: fetches.pop(number))

    while True:
        try:
            header, payload, _ = await receive_async(sock)
        except (EOFError, OSError):
            os._exit(0)  # the front end is gone; no lookup that hangs may keep this process
        match messages.decode(header):
            case {"cancel": number}:
                if number in fetches:
                    fetches[number].cancel()
            case {"fetch": number, "key_id": key_id}:
                url = payload.decode(errors="surrogatepass")
                body = _Pieces(outbox, number)
                start(number, body, fetcher.fetch(url, body, key_id))
            case {"post": number, **request}:
                body = _Pieces(outbox, number)
                start(number, body, fetcher.post(PostRequest(**request), body))


async def _fetch(
    outbox: "Outbox", number: int, body: "_Pieces", work: Coroutine[Any, Any, None]
) -> None:
    try:
        await work
    except ServiceError as error:
        outbox.put_nowait(messages.describe_failure(number, error))
    except Exception as error:  # noqa: BLE001  (a source must not end the others' fetches)
        failure = UnusableUrl(detail=f"unforeseen: {type(error).__name__}")
        outbox.put_nowait(messages.describe_failure(number, failure))
    else:
        body.end()


class _Pieces:
    """Body of a fetch: bytes received while a frame is being sent make up the next one."""

    def __init__(self, outbox: "Outbox", number: int) -> None:
        self._outbox = outbox
        self._message: Message = {"piece": number}
        self._waiting = bytearray()
        self._is_consumed = asyncio.Event()

    async def write(self, piece: bytes) -> None:
        """Add the next bytes; wait where a whole piece has not been sent yet."""
        if piece and not self._waiting:
            self._outbox.put_nowait(self)
        self._waiting += piece
        if len(self._waiting) >= messages.PIECE_BYTES:
            self._is_consumed.clear()
            await self._is_consumed.wait()

    def end(self) -> None:
        """Note that the body is complete, in its last frame where that is not sent yet."""
        self._message["done"] = True
        if not self._waiting:
            self._outbox.put_nowait(self)

    def next_frame(self) -> tuple[bytes, bytes]:
        piece, self._waiting = bytes(self._waiting), bytearray()
        self._is_consumed.set()
        return messages.encode(self._message), piece


Outbox = asyncio.Queue[_Pieces | Message]


async def _send(sock: socket.socket, outbox: Outbox) -> None:
    try:
        while True:
            item = await outbox.get()
            header, payload = (
                item.next_frame() if isinstance(item, _Pieces) else (messages.encode(item), b"")
            )
            await send_async(sock, header, payload)
    except OSError:
        os._exit(0)  # as above


async def _beat(outbox: Outbox) -> None:
    while True:
        outbox.put_nowait({"alive": True})
        await asyncio.sleep(messages.ALIVE_EVERY_S)


if __name__ == "__main__":
    main()
