"""A web server that sends what a test sets, byte for byte, and counts connections."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Origin:
    """`answers`: path -> raw bytes, or a script that writes. Other paths are 404."""

    answers: dict[str, bytes | Script] = field(default_factory=dict)
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    port: int = 0
    host: str = ""
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
            self.tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        answer = self.answers.get(head.split(" ")[1], response(b"", status="404 Not Found"))
        if isinstance(answer, bytes):
            writer.write(answer)
        else:
            await answer(writer)
        writer.write_eof()
        await writer.drain()
        await reader.read()


@asynccontextmanager
async def origin(host: str = "127.0.0.1") -> AsyncIterator[Origin]:
    running = Origin(host=host)
    server = await asyncio.start_server(running.serve, host, 0)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        await asyncio.sleep(0.01)  # connections that were just accepted get their tasks
        tasks = list(running.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def response(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def redirect(where: str, status: str = "302 Found") -> bytes:
    return response(b"", f"Location: {where}", status=status)
