"""Messages between the front end and the fetch process, in frames of `process.channel`.

    front end                                fetch process
    the options, as JSON                 ->
    {"fetch": 1, "key_id": ...}, the URL ->
    {"post": 2, and all of a PostRequest} ->
    {"cancel": 1}                        ->
                                         <-  {"alive": true}, every second
                                         <-  {"piece": 1} and bytes of the body
                                         <-  {"piece": 1, "done": true} and the last bytes
                                         <-  {"failed": 1, "as": ..., "detail": ...}

The URL and pieces are payloads: as JSON a long URL would be too long for a frame's header. It is
UTF-8, half surrogates included, for which it is refused over there. Nothing is pickled; of an error
only kind and detail are sent.
"""

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from upscaled.errors import FileSizeTooLarge, ServiceError
from upscaled.fetch.url import Network, UnusableUrl

if TYPE_CHECKING:
    from upscaled.config import Settings

ALIVE_EVERY_S: Final = 1.0
PIECE_BYTES: Final = 256 * 1024
"""Bytes of a body that may wait to be sent; while more do, its source waits. With frames of 64 KB a
body of 10 MB took twice as long."""
MAX_DETAIL_CHARACTERS: Final = 1000

Message = dict[str, Any]

_FAILURES: Final[Mapping[str, type[ServiceError]]] = {
    kind.__name__: kind for kind in (UnusableUrl, FileSizeTooLarge)
}


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """Settings of the fetch process: `UPSCALED_SOURCE_...`, the file size and the log.

    private_cidrs may be reached; where `only_hosts` is not empty, no others may.
    """

    max_file_bytes: int
    timeout_s: float
    private_cidrs: Sequence[str] = ()
    only_hosts: Sequence[str] = ()
    log_level: str = "info"
    log_format: str = "auto"

    @classmethod
    def of(cls, settings: "Settings") -> Self:
        return cls(
            settings.max_file_bytes,
            settings.source_timeout_s,
            tuple(map(str, settings.source_private_cidrs)),
            tuple(settings.source_only_hosts),
            settings.log_level,
            settings.log_format,
        )

    @classmethod
    def decode(cls, header: bytes) -> Self:
        """Read what `encode` made of `asdict`."""
        return cls(**json.loads(header))

    def networks(self) -> list[Network]:
        return [ipaddress.ip_network(text) for text in self.private_cidrs]


@dataclass(frozen=True, slots=True)
class PostRequest:
    """A request with a body to an address that a client or the operator named.

    key_id: of the API key whose name lookup it is. private_cidrs: may be reached although they are
    private. timeout_s: until the head of the answer has come.
    """

    key_id: int
    url: str
    headers: dict[str, str]
    body: str
    private_cidrs: tuple[str, ...]
    timeout_s: float


def encode(message: Message) -> bytes:
    return json.dumps(message).encode()


def decode(header: bytes) -> Message:
    """Return the message in a header; raises ValueError for anything that is no JSON object."""
    message = json.loads(header)
    if not isinstance(message, dict):
        raise ValueError("no JSON object")
    return message


def describe_failure(number: int, error: ServiceError) -> Message:
    """Return the message that a fetch failed; the counterpart of `rebuild_failure`."""
    kind = type(error).__name__ if type(error).__name__ in _FAILURES else UnusableUrl.__name__
    return {"failed": number, "as": kind, "detail": error.detail[:MAX_DETAIL_CHARACTERS]}


def rebuild_failure(message: Message) -> ServiceError:
    """Return the error of a failed fetch; raises ValueError for a kind that no fetch has."""
    kind = _FAILURES.get(str(message.get("as")))
    if kind is None:
        raise ValueError("an unknown failure")
    return kind(detail=str(message.get("detail"))[:MAX_DETAIL_CHARACTERS])
