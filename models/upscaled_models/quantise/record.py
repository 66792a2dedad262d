"""The record of a model in 8 bits: its proof, and what that allows. Loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, Field

from upscaled_models.accuracy import MAX_FLAT_LEVELS, MIN_PSNR_DB

_SHA256: Final = Field(pattern="^[0-9a-f]{64}$")

TRACKS: Final = ("clean", "jpeg", "camera")
"""Kinds of input that a proof by the truth must cover (`quantise.tracks`)."""


@dataclass(frozen=True, slots=True)
class TruthBars:
    """Limits on the distance from float32, on every track, of a network that invents texture.

    Flat colours have none: colour correction, which follows, restores them exactly.

    mean_db: lowest mean PSNR against float32. psnr_db, feature: how much further from the truth the
    result may be. niqe: largest difference to either side; None: no limit. smooth_share: lowest.
    """

    mean_db: float
    psnr_db: float
    niqe: float | None
    feature: float
    smooth_share: float


TRUTH_BARS: Final[Mapping[str, TruthBars]] = {
    "auto": TruthBars(mean_db=39.0, psnr_db=0.1, niqe=0.15, feature=0.003, smooth_share=0.999),
    "fast": TruthBars(mean_db=37.0, psnr_db=0.2, niqe=None, feature=0.01, smooth_share=0.99),
}


class _Record(BaseModel, frozen=True, extra="forbid"):
    """A part of a record, which has these fields and no others."""


class Pair(_Record):
    """One metric of the result in 8 bits, and of the same network's result in float32."""

    int8: float
    float32: float

    @property
    def rise(self) -> float:
        return self.int8 - self.float32


class TrackAccuracy(_Record):
    """Results of one track, as means over its pictures.

    mean_db, worst_db: PSNR against float32. psnr_db: of luma against the truth. niqe, feature: see
    `quantise.metrics` and `quantise.features`; None where the packages are not installed.
    """

    pictures: int
    mean_db: float
    worst_db: float
    psnr_db: Pair
    niqe: Pair | None
    feature: Pair | None


class TruthAccuracy(_Record):
    """Results in 8 bits of a network that invents texture, compared with the truth.

    Invented texture is chaotic: it may be as near to the truth though its pixels differ.

    smooth_share: of the values where float32 varies by less than 4 levels over 13x13 px, the share
    that is within 2 levels of float32.
    """

    tracks: dict[str, TrackAccuracy]
    smooth_share: float

    @property
    def mean_db(self) -> float:
        """Return the mean PSNR against float32 over all pictures of all tracks."""
        count = sum(track.pictures for track in self.tracks.values())
        return sum(each.mean_db * each.pictures for each in self.tracks.values()) / count


class QuantisedAccuracy(_Record):
    """The distance of results in 8 bits from the network's own in float32, in levels of 255.

    psnr_db, largest: over `pictures`, which calibration did not use. flat_largest: on 256 greys and
    27 colours. are_flats_kept: those that float32 keeps are kept. float_layers: convolutions that
    stay in floats. truth: for networks that invent texture only.
    """

    psnr_db: float
    largest: int
    pictures: int
    flat_largest: int
    are_flats_kept: bool
    float_layers: list[str]
    truth: TruthAccuracy | None = None


class MeasuredLayers(_Record):
    sha256: str = _SHA256
    size_bytes: int
    proof: QuantisedAccuracy
    versions: dict[str, str]


class QuantisedRecord(MeasuredLayers):
    """The content of `NAME.int8.json`: the weights that the layers came from, and their proof."""

    model: str
    weights_sha256: str = _SHA256


def allowed_in(record: MeasuredLayers, precision: str) -> bool:
    """Return whether the proof allows 8 bits in "auto" or "fast"; nothing else decides this."""
    return not why_not(record.proof, precision)


def why_not(proof: QuantisedAccuracy, precision: str) -> str:
    """Return why a proof does not allow `precision` ("auto" or "fast"); empty if it does.

    Pixels must nearly equal float32's, or, where texture is invented, be as near to the truth.
    """
    fault = _fault_of_pixels(proof, precision)
    if fault and proof.truth is not None:
        return _fault_by_truth(proof.truth, TRUTH_BARS[precision])
    return fault


def _fault_of_pixels(proof: QuantisedAccuracy, precision: str) -> str:
    if not proof.are_flats_kept or proof.flat_largest > MAX_FLAT_LEVELS:
        return f"flat colours are off by up to {proof.flat_largest} levels"
    least = MIN_PSNR_DB[precision]
    if proof.psnr_db < least:
        return f"{proof.psnr_db:.1f} dB against float32, must be {least:.0f}"
    return ""


def _fault_by_truth(truth: TruthAccuracy, bars: TruthBars) -> str:
    if truth.mean_db < bars.mean_db:
        return f"{truth.mean_db:.1f} dB against float32, must be {bars.mean_db:.0f}"
    if truth.smooth_share < bars.smooth_share:
        return f"{truth.smooth_share:.2%} of smooth areas are near, must be {bars.smooth_share:.1%}"
    for track in TRACKS:
        if track not in truth.tracks:
            return f"not compared with the truth on {track} inputs"
        if fault := _fault_of_track(truth.tracks[track], bars):
            return f"{track}: {fault}"
    return ""


def _fault_of_track(track: TrackAccuracy, bars: TruthBars) -> str:
    if -track.psnr_db.rise > bars.psnr_db:
        return f"{-track.psnr_db.rise:.2f} dB further from the truth than float32"
    if track.feature is None:
        return "its feature distance to the truth was not measured"
    if track.feature.rise > bars.feature:
        return f"feature distance {track.feature.rise:.4f} above float32's"
    if bars.niqe is None:
        return ""
    if track.niqe is None:
        return "its NIQE was not measured"
    if abs(track.niqe.rise) > bars.niqe:
        return f"NIQE {track.niqe.rise:+.2f} from float32's"
    return ""
