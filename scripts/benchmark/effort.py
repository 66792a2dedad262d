"""Sizes and counts of a measurement: a few minutes' worth, or enough to see that all works."""

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Effort:
    """Sizes and counts of every part; sides are of square inputs, in pixels.

    is_tiny: everything runs in this process, untuned. alone: by side, how many requests are sent
    one after another. clients: numbers of clients. mixed_px: the sizes that clients send, in turn.
    per_client: requests of each of them. poster_px: the large image of the interference and memory
    parts. avatars: 64x64 requests meanwhile. product_rounds: product photos, cut-outs and full
    pictures of poster_px each. cold_px: the first picture of a service that has just started.
    batch_images: files of batch_px, batch_rounds times. avatar_batch: pictures of avatar_px in one
    batch, avatar_rounds times. divided_posters: large pictures of a mixed load.
    """

    is_tiny: bool = False
    compact_px: int = 512
    rrdb_px: int = 256
    compact_rounds: int = 5
    rrdb_rounds: int = 2
    alone: tuple[tuple[int, int], ...] = (
        *((64, 40), (128, 30), (256, 20)),
        *((512, 10), (1024, 5), (1500, 5)),
    )
    clients: tuple[int, ...] = (1, 2, 4, 8, 16)
    mixed_px: tuple[int, ...] = (64, 96, 128, 256, 400, 640)
    per_client: int = 6
    poster_px: int = 1500
    avatars: int = 40
    product_rounds: int = 3
    cold_px: int = 256
    small_px: int = 96
    small_images: int = 200
    small_clients: int = 8
    seams_px: tuple[int, int] = (500, 620)
    rrdb_seams_px: tuple[int, int] = (268, 300)
    batch_images: int = 100
    batch_px: int = 256
    batch_rounds: int = 3
    avatar_px: int = 96
    avatar_batch: int = 16
    avatar_rounds: int = 2
    divided_posters: int = 6


FULL: Final = Effort()

CUDA: Final = replace(
    FULL,
    compact_px=1500,
    rrdb_px=1500,
    rrdb_rounds=3,
    alone=((64, 40), (128, 30), (256, 20), (512, 20), (1024, 10), (1500, 10)),
    per_client=12,
    seams_px=(1100, 1300),
    rrdb_seams_px=(700, 900),
    batch_rounds=5,
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
    product_rounds=1,
    cold_px=64,
    small_px=64,
    small_images=4,
    small_clients=2,
    seams_px=(60, 64),
    batch_images=4,
    batch_px=64,
    batch_rounds=2,
    avatar_px=64,
    avatar_batch=2,
    divided_posters=2,
)
