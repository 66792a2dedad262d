"""Sizes and counts of a measurement: a few minutes' worth, or enough to see that all works."""

from dataclasses import dataclass, replace
from typing import Final

MODEL: Final = "upscaled-x4-faithful"
SCALE: Final = 4
"""The scale that everything is measured at."""
_ALONE: Final = ((64, 40), (128, 30), (256, 20), (512, 10), (1024, 5), (1500, 5))


@dataclass(frozen=True, slots=True)
class Effort:
    """Sizes and counts of every part; sides are of square inputs, in pixels.

    is_tiny: everything runs in this process, untuned. alone: by side, how many requests are sent
    one after another. clients: numbers of clients, who send the sizes mixed_px in turn, per_client
    each. poster_px: the large image, sent beside `avatars` small ones, and `rounds` times as a
    product photo and a cut-out. photo_px: the first picture of a service, and batch_images files,
    `rounds` times. small_px: small_images sent by small_clients.
    """

    is_tiny: bool = False
    compact_px: int = 512
    rrdb_px: int = 256
    compact_rounds: int = 5
    rrdb_rounds: int = 2
    alone: tuple[tuple[int, int], ...] = _ALONE
    clients: tuple[int, ...] = (1, 2, 4, 8, 16)
    mixed_px: tuple[int, ...] = (64, 96, 128, 256, 400, 640)
    per_client: int = 6
    poster_px: int = 1500
    avatars: int = 40
    photo_px: int = 256
    batch_images: int = 100
    rounds: int = 3
    small_px: int = 96
    small_images: int = 200
    small_clients: int = 8


FULL: Final = Effort()

CUDA: Final = replace(
    FULL,
    compact_px=1500,
    rrdb_px=1500,
    rrdb_rounds=3,
    alone=((64, 40), (128, 30), (256, 20), (512, 20), (1024, 10), (1500, 10)),
    per_client=12,
    rounds=5,
)

QUICK: Final = Effort(
    is_tiny=True,
    compact_px=32,
    compact_rounds=2,
    alone=((64, 2),),
    clients=(1, 2),
    mixed_px=(64, 72),
    per_client=1,
    poster_px=200,
    avatars=2,
    photo_px=64,
    batch_images=4,
    rounds=2,
    small_px=64,
    small_images=4,
    small_clients=2,
)
