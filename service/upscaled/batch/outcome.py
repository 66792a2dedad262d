"""The outcome of each file, of the whole batch, and why a batch could not go on."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar


class BatchAborted(Exception):
    """No further file can be worked on; the text says why. `exit_status`: of the command."""

    exit_status: ClassVar[int] = 1


class Kind(StrEnum):
    """upscaled: through the network. copied: its content was upscaled before, to another place.
    skipped: it is done already. passed_over: in a folder, and no image or itself a result.
    unsupported: a picture in a format that is not enabled.
    """

    UPSCALED = "upscaled"
    COPIED = "copied"
    SKIPPED = "skipped"
    PASSED_OVER = "passed_over"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One file's. Sizes are (width, height) in pixels; None and "" where there is none.

    error_code, error: of the contract, and in words. seconds: from reading to writing, in turn
    with other files; the stages are within it.
    """

    source: Path
    kind: Kind
    result: Path | None = None
    error_code: str = ""
    error: str = ""
    model: str = ""
    source_bytes: int = 0
    source_px: tuple[int, int] | None = None
    result_bytes: int = 0
    result_px: tuple[int, int] | None = None
    seconds: float = 0
    decode_s: float = 0
    network_s: float = 0
    encode_s: float = 0

    @property
    def is_image(self) -> bool:
        return self.kind is not Kind.PASSED_OVER

    def to_json(self) -> dict[str, Any]:
        """The JSON line of this file. Bytes of a name that are no UTF-8 are surrogates, as Python
        has them (`os.fsencode` gives them back).
        """
        return {
            "source": str(self.source),
            "result": None if self.result is None else str(self.result),
            "outcome": str(self.kind),
            "error_code": self.error_code or None,
            "error": self.error or None,
            "model": self.model or None,
            "source_bytes": self.source_bytes or None,
            "source_px": self.source_px,
            "result_bytes": self.result_bytes or None,
            "result_px": self.result_px,
            "seconds": round(self.seconds, 4),
            "decode_s": round(self.decode_s, 4),
            "network_s": round(self.network_s, 4),
            "encode_s": round(self.encode_s, 4),
        }


@dataclass(slots=True)
class Summary:
    """Of all so far. result_megapixels: of what was upscaled."""

    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    result_megapixels: float = 0

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome.kind] += 1
        if outcome.kind is Kind.UPSCALED and outcome.result_px:
            self.result_megapixels += outcome.result_px[0] * outcome.result_px[1] / 1e6

    @property
    def files(self) -> int:
        return sum(self.counts.values())

    def to_json(self, seconds: float) -> dict[str, Any]:
        """The last line."""
        upscaled = self.counts[Kind.UPSCALED]
        return {
            **{str(kind): number for kind, number in self.counts.items()},
            "seconds": round(seconds, 3),
            "images_per_s": round(upscaled / seconds, 3) if seconds else 0,
            "megapixels_per_s": round(self.result_megapixels / seconds, 3) if seconds else 0,
        }

    def describe(self, seconds: float) -> str:
        """In words, without what did not occur."""
        facts = self.to_json(seconds)
        counts = [
            f"{number} {words}"
            for kind, words in _WORDS.items()
            if (number := self.counts[kind]) or kind is Kind.UPSCALED
        ]
        speed = (
            f"{facts['images_per_s']:.2f} images/s, {facts['megapixels_per_s']:.2f} megapixels/s"
        )
        return f"{', '.join(counts)}; {seconds:.1f} s" + (
            f", {speed}" if self.result_megapixels else ""
        )


_WORDS = {
    Kind.UPSCALED: "upscaled",
    Kind.COPIED: "copied from results of the same content",
    Kind.SKIPPED: "done already",
    Kind.PASSED_OVER: "passed over (no images)",
    Kind.UNSUPPORTED: "in formats that are not enabled",
    Kind.FAILED: "failed",
}
