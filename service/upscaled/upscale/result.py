"""Result of upscaling an image, from the core to the answer, the batch report and the log."""

from dataclasses import dataclass
from typing import Final, Protocol

from upscaled.errors import ResolutionTooHigh
from upscaled.image.encode import FileSink
from upscaled.image.output import NO_CHOICE, OutputChoice, OutputSpec, decide_output
from upscaled.image.types import Header, Image
from upscaled_models.registry import name_strength

MAX_RESULT_SIDE_PX: Final = 20_000
"""Longest side of a result without HTTP. 20,000 x 20,000 pixels take 1.2 GB while they are made;
JPEG itself ends at 65,500 a side."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that the stages of one image took.

    network_s: from the decoded image to the upscaled one, waiting for other images included.
    device_s: the device seconds of this image alone. queue_s: from the request's admission until
    a worker had a slot for it; 0 where there is no request queue. computed_share: of the pixels
    that an image of that size takes of the device where no part of it is flat or transparent.
    opening_s: the part of `network_s` before the first window, much only where a model had to be
    opened.
    """

    decode_s: float
    network_s: float
    encode_s: float
    device_s: float
    queue_s: float = 0
    computed_share: float = 1
    opening_s: float = 0

    @property
    def work_s(self) -> float:
        """Return a worker's seconds for this image, without those it waited for others."""
        return self.decode_s + self.device_s + self.encode_s

    @property
    def full_work_s(self) -> float | None:
        """Return a worker's seconds for such an image full of content; None if this has none."""
        if not self.computed_share:
            return None
        return self.decode_s + self.device_s / self.computed_share + self.encode_s

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
    """Upscaled image: the encoded file, its exact size and how it was made.

    media_type: that of its `OutputSpec`. model: its name in the registry. label: the backend and
    precision that ran it, as "torch float32". tempered_with: the faithful model that its result was
    mixed with, or "". stored_as: the name under which a replica has stored the file, of
    `stored_bytes`; `data` is then empty. denoise: the strength that the request asked for, or None.
    """

    data: bytes
    media_type: str
    width_px: int
    height_px: int
    model: str
    label: str
    timings: Timings
    tempered_with: str = ""
    stored_as: str = ""
    stored_bytes: int = 0
    denoise: float | None = None

    @property
    def size_bytes(self) -> int:
        """Return the length of the encoded file, wherever it is."""
        return self.stored_bytes or len(self.data)

    @property
    def format(self) -> str:
        """Return the name of the file's format in logs and usage, for example "jpeg"."""
        return self.media_type.removeprefix("image/")

    @property
    def made_by(self) -> str:
        """Return the name of the model at the strength that was asked for."""
        return self.model if self.denoise is None else name_strength(self.model, self.denoise)


class ResultSink(FileSink, Protocol):
    """Where a result goes while it is made: the pieces of its file, then all else."""

    def end(self, result: Result) -> None:
        """Take the result, behind its last piece; what it raises is raised.

        The memory of its pixels is freed afterwards, which takes some ms.
        """


def decide_local_output(
    source: Header | Image, scale: int, *, keeps_depth: bool, choice: OutputChoice = NO_CHOICE
) -> OutputSpec:
    """Decide the result of an image that did not come over HTTP.

    A result beyond `MAX_RESULT_SIDE_PX`, or beyond what its format holds, raises ResolutionTooHigh.
    """
    if max(source.width_px, source.height_px) * scale > MAX_RESULT_SIDE_PX:
        raise ResolutionTooHigh(
            f"{source.width_px} x {source.height_px} px would become longer than "
            f"{MAX_RESULT_SIDE_PX} px at scale {scale}"
        )
    return decide_output(
        source,
        scale,
        keeps_depth=keeps_depth,
        max_side_px=MAX_RESULT_SIDE_PX,
        choice=choice,
    )
