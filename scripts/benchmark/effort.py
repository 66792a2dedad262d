"""How much is measured: a few minutes' worth, or just enough to see that everything works."""

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Effort:
    """is_apart: each contestant has a process of its own. Sides are of square inputs, in pixels.

    alone: by side, how many requests are sent one after another. clients: numbers of clients.
    mixed_px: the sizes that clients send, in turn. per_client: requests of each of them. poster_px:
    the large image of the interference and memory parts. avatars: 64x64 requests meanwhile.
    batch_images: files of batch_px a side, batch_rounds times.
    """

    is_apart: bool
    is_tiny: bool
    compact_px: int
    rrdb_px: int
    compact_rounds: int
    rrdb_rounds: int
    alone: dict[int, int]
    clients: tuple[int, ...]
    mixed_px: tuple[int, ...]
    per_client: int
    poster_px: int
    avatars: int
    small_px: int
    small_images: int
    small_clients: int
    seams_px: tuple[int, int]
    rrdb_seams_px: tuple[int, int]
    batch_images: int
    batch_px: int
    batch_rounds: int


FULL: Final = Effort(
    is_apart=True,
    is_tiny=False,
    compact_px=512,
    rrdb_px=256,
    compact_rounds=5,
    rrdb_rounds=2,
    alone={64: 40, 128: 30, 256: 20, 512: 10, 1024: 5, 1500: 5},
    clients=(1, 2, 4, 8, 16),
    mixed_px=(64, 96, 128, 256, 400, 640),
    per_client=6,
    poster_px=1500,
    avatars=40,
    small_px=96,
    small_images=200,
    small_clients=8,
    seams_px=(500, 620),
    rrdb_seams_px=(268, 300),
    batch_images=100,
    batch_px=256,
    batch_rounds=3,
)

CUDA: Final = replace(
    FULL,
    compact_px=1500,
    rrdb_px=1500,
    rrdb_rounds=3,
    alone={64: 40, 128: 30, 256: 20, 512: 20, 1024: 10, 1500: 10},
    per_client=12,
    seams_px=(1100, 1300),
    rrdb_seams_px=(700, 900),
    batch_rounds=5,
)

QUICK: Final = Effort(
    is_apart=False,
    is_tiny=True,
    compact_px=32,
    rrdb_px=16,
    compact_rounds=2,
    rrdb_rounds=2,
    alone={64: 2},
    clients=(1, 2),
    mixed_px=(64, 72),
    per_client=1,
    poster_px=200,
    avatars=2,
    small_px=64,
    small_images=4,
    small_clients=2,
    seams_px=(40, 44),
    rrdb_seams_px=(64, 68),
    batch_images=4,
    batch_px=64,
    batch_rounds=2,
)
