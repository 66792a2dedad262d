"""The result of upscaling a picture, from the core to the answer, the batch report and the log."""

from dataclasses import dataclass
from typing import Final

MAX_RESULT_SIDE_PX: Final = 20_000
"""Longest side of a result without HTTP. 20,000 x 20,000 pixels take 1.2 GB while they are made;
JPEG itself ends at 65,500 a side."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the seconds of one picture went.

    network_s: from the decoded picture to the upscaled one, waiting for other pictures included.
    device_s: the device seconds of this picture alone. queue_s: from the request's admission until
    a worker had a slot for it; 0 where there is no request queue.
    """

    decode_s: float
    network_s: float
    encode_s: float
    device_s: float
    queue_s: float = 0

    def stages(self) -> tuple[tuple[str, float], ...]:
        """Return the stages of a request's work by name, one after the other, in seconds."""
        return (
            ("queue", self.queue_s),
            ("decode", self.decode_s),
            ("network", self.network_s),
            ("encode", self.encode_s),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """An upscaled picture: the encoded file, its exact size and how it was made.

    media_type: `image/jpeg` or `image/png`. model: its name in the registry. label: the backend
    and precision that ran it, as "torch float32". tempered_with: the faithful model that its result
    was mixed with, or "".
    """

    data: bytes
    media_type: str
    width_px: int
    height_px: int
    model: str
    label: str
    timings: Timings
    tempered_with: str = ""
