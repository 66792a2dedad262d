"""Outcomes of the files of a batch, and their summary."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from upscaled.batch.journal import Record
from upscaled.upscale.result import Timings


class Kind(StrEnum):
    """Kind of an outcome.

    upscaled: through the network. copied: its content was upscaled before, to another path.
    skipped: it is done already. passed_over: in a folder, and no image or itself a result.
    unsupported: an image in a format that is not enabled.
    """

    UPSCALED = "upscaled"
    COPIED = "copied"
    SKIPPED = "skipped"
    PASSED_OVER = "passed_over"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"


_WORDS: Final = {
    Kind.UPSCALED: "upscaled",
    Kind.COPIED: "copied from results of the same content",
    Kind.SKIPPED: "done already",
    Kind.PASSED_OVER: "passed over (not images)",
    Kind.UNSUPPORTED: "in formats that are not enabled",
    Kind.FAILED: "failed",
}
_WORDS_BEFORE: Final = _WORDS | {
    Kind.UPSCALED: "to upscale",
    Kind.COPIED: "to copy from results of the same content",
    Kind.FAILED: "to fail",
}
"""The same words for a dry run."""
_NO_TIMINGS: Final = Timings(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class DeviceEstimate:
    """Estimate of an upscale in a dry run.

    models: the one that makes it; two where the pixels decide, that of harmed images first.
    device_s: seconds of the device, alone, with the slower of them and where no area is flat.
    """

    models: tuple[str, ...]
    device_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one file.

    source, result: their whole names. record: describes that; None while another thread makes it.
    error_code, error: of the contract, and in words. source_px: (width, height). seconds: from
    reading to writing, in turn with other files; the stages of `timings` are within it.
    expected, expected_px: in a dry run, the expected seconds, and the result's (width, height).
    """

    source: str
    kind: Kind
    result: str | None = None
    record: Record | None = None
    error_code: str = ""
    error: str = ""
    source_bytes: int = 0
    source_px: tuple[int, int] | None = None
    timings: Timings = _NO_TIMINGS
    seconds: float = 0
    expected: DeviceEstimate | None = None
    expected_px: tuple[int, int] | None = None

    @property
    def is_image(self) -> bool:
        """Return whether the file is to be reported."""
        return self.kind is not Kind.PASSED_OVER

    @property
    def result_px(self) -> tuple[int, int] | None:
        return (self.record.width_px, self.record.height_px) if self.record else self.expected_px

    def to_json(self) -> dict[str, Any]:
        """Return the JSON line of this file; bytes of a name that are no UTF-8 are surrogates."""
        return {
            "source": self.source,
            "result": self.result,
            "outcome": str(self.kind),
            "error_code": self.error_code or None,
            "error": self.error or None,
            "model": self.record.model if self.record else None,
            "source_bytes": self.source_bytes or None,
            "source_px": self.source_px,
            "result_bytes": self.record.size_bytes if self.record else None,
            "result_px": self.result_px,
            "seconds": round(self.seconds, 4),
            "decode_s": round(self.timings.decode_s, 4),
            "network_s": round(self.timings.network_s, 4),
            "encode_s": round(self.timings.encode_s, 4),
        }

    def to_dry_json(self) -> dict[str, Any]:
        """Return the JSON line of this file in a dry run: `outcome` is what it would have."""
        models = list(self.expected.models) if self.expected else None
        expected_s = round(self.expected.device_s, 2) if self.expected else None
        timings = ("seconds", "decode_s", "network_s", "encode_s", "result_bytes", "model")
        line = {name: value for name, value in self.to_json().items() if name not in timings}
        return {**line, "models": models, "expected_s": expected_s}


class Listener(Protocol):
    """Listener to a batch as it runs."""

    def on_part(self, source: str, done_part: float) -> None:
        """Record the part of a file's tiles that is done, 0 to 1; called by any thread."""

    def add(self, outcome: Outcome) -> None:
        """Record the outcome of one file; called for one at a time, in no order."""


@dataclass(slots=True)
class Summary:
    """Counts of all outcomes so far, megapixels of results or, in a dry run, device seconds."""

    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    result_megapixels: float = 0
    expected_s: float = 0

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome.kind] += 1
        if outcome.kind is Kind.UPSCALED and outcome.record:
            self.result_megapixels += outcome.record.width_px * outcome.record.height_px / 1e6
        if outcome.expected:
            self.expected_s += outcome.expected.device_s

    @property
    def files(self) -> int:
        return sum(self.counts.values())

    def to_json(self, seconds: float) -> dict[str, Any]:
        """Return the last JSON line, after so many seconds."""
        upscaled = self.counts[Kind.UPSCALED]
        return {
            **{str(kind): number for kind, number in self.counts.items()},
            "seconds": round(seconds, 3),
            "images_per_s": round(upscaled / seconds, 3) if seconds else 0,
            "megapixels_per_s": round(self.result_megapixels / seconds, 3) if seconds else 0,
        }

    def describe(self, seconds: float) -> str:
        """Describe the batch in words, without what did not occur."""
        text = f"{self._describe_counts(_WORDS)}; {seconds:.1f} s"
        if self.result_megapixels:
            figures = self.to_json(seconds)
            text += f", {figures['images_per_s']:.2f} images/s"
            text += f", {figures['megapixels_per_s']:.2f} megapixels/s"
        return text

    def to_dry_json(self) -> dict[str, Any]:
        """Return the last JSON line of a dry run."""
        counts = {str(kind): number for kind, number in self.counts.items()}
        return {**counts, "expected_s": round(self.expected_s, 2)}

    def describe_dry(self) -> str:
        """Describe in words what a batch would do."""
        return (
            f"{self._describe_counts(_WORDS_BEFORE)}; about {self.expected_s:.1f} s of the device"
        )

    def _describe_counts(self, words: Mapping[Kind, str]) -> str:
        return ", ".join(
            f"{number} {text}"
            for kind, text in words.items()
            if (number := self.counts[kind]) or kind is Kind.UPSCALED
        )
