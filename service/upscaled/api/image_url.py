"""Fetching what an `image_url` names, its bytes counted against the memory for images."""

from upscaled.api.memory import Share
from upscaled.config import Settings
from upscaled.errors import FileSizeTooLarge
from upscaled.fetch.client import FetchClient
from upscaled.fetch.messages import FetchOptions


class SourceFetcher:
    """Fetches sources for all requests, by a process of its own."""

    def __init__(self, settings: Settings, client: FetchClient | None = None) -> None:
        self._max_file_bytes = settings.max_file_bytes
        self._client = client or FetchClient(FetchOptions.of(settings))

    async def fetch(self, url: str, share: Share) -> bytes:
        """Return the bytes behind `url`, at most `max_file_bytes` of them.

        Args:
            share: what the bytes count against as they come.

        Raises:
            RateLimitExceeded: too many images are arriving at once.
            UnusableUrl: refused, unreachable, too slow, redirected too often, not answering 200,
                answering with a body that has no end, or the process died that fetched it.
            FileSizeTooLarge: declared or found too large; reading stops there.
            InternalError: this machine cannot start the process.
        """
        body = bytearray()

        def take(piece: bytes) -> None:
            if len(body) + len(piece) > self._max_file_bytes:  # the process does not keep to it
                raise FileSizeTooLarge(detail=f"was sent {len(body) + len(piece)} bytes")
            share.take(len(piece))
            body.extend(piece)

        await self._client.fetch(url, share.key_id, take)
        return bytes(body)

    async def close(self) -> None:
        """End the process."""
        await self._client.close()
