"""Bound the memory for responses that their clients do not read.

An image is sent in one piece, so what its client does not read is held in memory: up to 90 MB, and
for as long as a client reads a little now and then, which is no reason to cut it off. So a key with
much of that is refused new requests.
"""

from typing import Final, Protocol, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from upscaled.api.memory import RETRY_AFTER_S
from upscaled.errors import RateLimitExceeded

MAX_UNSENT_BYTES: Final = 512 * 1024 * 1024
OUTPUT_EXTENSION: Final = "upscaled.output"
"""The key in a scope's `extensions` under which the protocol gives its `output`."""


class Output(Protocol):
    """Output of one connection."""

    def unsent_bytes(self) -> int:
        """Return the bytes held for the client, beyond those in the kernel's buffers."""


class UnsentResponses:
    """Outputs with unsent bytes, by API key; belongs to the event loop."""

    def __init__(self, limit_bytes: int = MAX_UNSENT_BYTES) -> None:
        """
        Args:
            limit_bytes: of one key; requests that are in flight already may exceed it.
        """
        self.limit_bytes = limit_bytes
        self._of_key: dict[int, set[Output]] = {}

    def check(self, key_id: int) -> None:
        """Refuse a request of a key whose clients do not read its responses.

        Raises:
            RateLimitExceeded: the key's unsent responses have `limit_bytes` or more.
        """
        held_bytes = self._measure(key_id)
        if held_bytes >= self.limit_bytes:
            detail = f"{held_bytes} bytes of answers are not read yet"
            raise RateLimitExceeded(RETRY_AFTER_S, reason="unread_answers", detail=detail)

    def note(self, key_id: int, output: Output) -> None:
        """Count what is left of a response that was written to `output`."""
        self._measure(key_id)
        if output.unsent_bytes():
            self._of_key.setdefault(key_id, set()).add(output)

    def _measure(self, key_id: int) -> int:
        """Return the key's bytes, and forget outputs that hold none any more."""
        sizes = {output: output.unsent_bytes() for output in self._of_key.pop(key_id, ())}
        if held := {output for output, size_bytes in sizes.items() if size_bytes}:
            self._of_key[key_id] = held
        return sum(sizes.values())


class ImageResponse(Response):
    """Response with an image as its body, which is counted until its client has read it."""

    def __init__(self, data: bytes, media_type: str, unsent: UnsentResponses, key_id: int) -> None:
        super().__init__(data, media_type=media_type)
        self._unsent = unsent
        self._key_id = key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        extension = scope.get("extensions", {}).get(OUTPUT_EXTENSION)
        if extension is not None:
            self._unsent.note(self._key_id, cast(Output, extension["output"]))
