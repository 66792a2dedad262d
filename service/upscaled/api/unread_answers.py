"""The memory that answers take while their clients have not read them, bounded for each API key.

An image is sent in one piece, so what its client does not take is held in memory: up to 90 MB, and
for as long as a client reads a little now and then, which is no reason to cut it off.
"""

from collections.abc import Callable
from typing import Final, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from upscaled.errors import RateLimitExceeded

MAX_UNREAD_BYTES: Final = 512 * 1024 * 1024
OUTPUT_EXTENSION: Final = "upscaled.output"
"""The key in a scope's `extensions` under which the protocol gives `unsent_bytes`."""

# How fast a client will read is not known; one that reads at all is soon below the limit.
RETRY_AFTER_S: Final = 5

UnsentBytes = Callable[[], int]
"""The bytes that one connection holds for its client, beyond those in the kernel's buffers."""


class UnreadAnswers:
    """Connections with answers that are not read yet, by API key. Belongs to the event loop."""

    def __init__(self, limit_bytes: int = MAX_UNREAD_BYTES) -> None:
        """limit_bytes: of one key; requests that are under way already may exceed it."""
        self.limit_bytes = limit_bytes
        self._of_key: dict[int, dict[UnsentBytes, None]] = {}

    def check(self, key_id: int) -> None:
        """Refuse a request of a key that does not read what it asked for.

        Raises:
            RateLimitExceeded: the key's unread answers have `limit_bytes` or more.
        """
        held_bytes = self._measure(key_id)
        if held_bytes >= self.limit_bytes:
            detail = f"{held_bytes} bytes of answers are not read yet"
            raise RateLimitExceeded(RETRY_AFTER_S, reason="unread_answers", detail=detail)

    def note(self, key_id: int, unsent_bytes: UnsentBytes) -> None:
        """Count what is left of an answer that was given to the connection."""
        self._measure(key_id)
        if unsent_bytes():
            self._of_key.setdefault(key_id, {})[unsent_bytes] = None

    def _measure(self, key_id: int) -> int:
        """The key's bytes; connections that hold none any more are forgotten."""
        sizes_bytes = {each: each() for each in self._of_key.pop(key_id, {})}
        unread = {each: None for each, size_bytes in sizes_bytes.items() if size_bytes}
        if unread:
            self._of_key[key_id] = unread
        return sum(sizes_bytes.values())


class ImageResponse(Response):
    """An image as an answer's body, counted until its client has read it."""

    def __init__(self, data: bytes, media_type: str, unread: UnreadAnswers, key_id: int) -> None:
        super().__init__(data, media_type=media_type)
        self._unread = unread
        self._key_id = key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        output = scope.get("extensions", {}).get(OUTPUT_EXTENSION)
        if output is not None:
            self._unread.note(self._key_id, cast(UnsentBytes, output["unsent_bytes"]))
