"""The plan: which pictures come, how many of them, and on what machines, as a TOML file says."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from scripts.simulation.queueing import SPREADS, Floats


class BadPlan(ValueError):
    """The plan says something that cannot be; the text names it."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures of an operator: input pixels, scale, and bytes of file and result, each in order."""

    px: Floats
    scale: Floats
    source_bytes: Floats
    result_bytes: Floats

    def take(self, rng: np.random.Generator, count: int) -> "Pictures":
        """Draw so many of them, any one more than once."""
        at = rng.integers(0, len(self.px), count)
        return Pictures(*(getattr(self, each.name)[at] for each in fields(self)))


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a picture. seconds_by_px: pairs of input pixels and seconds alone on a worker.

    front_end_s: processor seconds of the front end, for each picture and for each megabyte of its
    file and result. bytes_per_px: of a result, where the mix has none measured.
    """

    seconds_by_px: Sequence[tuple[float, float]]
    front_end_s: tuple[float, float]
    bytes_per_px: float

    def work_s(self, px: Floats) -> Floats:
        """Return the seconds of a worker: straight lines between sizes that were measured."""
        known_px, known_s = map(np.array, zip(*sorted(self.seconds_by_px), strict=True))
        between: Floats = np.interp(px, known_px, known_s)
        beyond = px > known_px[-1]
        between[beyond] = known_s[-1] * px[beyond] / known_px[-1]
        return between


@dataclass(frozen=True, slots=True)
class Machines:
    """Machines that are alike, each with one front end, and what all of them share.

    database_images_per_s: metered images that the database takes. network_gbit_per_s: of a
    machine, in each direction. bucket_writes_per_s: that a prefix takes; S3 documents 3,500.
    """

    workers: int = 1
    slots: int = 4
    max_queue: int = 32
    max_file_bytes: int = 26_214_400
    memory_gib: float = 8.0
    worker_memory_gib: float = 1.4
    database_images_per_s: float = 260.0
    network_gbit_per_s: float = 1.0
    bucket_writes_per_s: float = 3500.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Load and wish. url_share: of answers that are URLs. refused: share of 429 that is all right.

    spread: the balancer's way to choose a machine.
    """

    images_per_hour: float
    p95_s: float
    refused: float = 0.001
    url_share: float = 1.0
    spread: str = "two by count"
    seed: int = 1
    machine: Machines = field(default_factory=Machines)

    @property
    def images_per_s(self) -> float:
        return self.images_per_hour / 3600


DEFAULT_MIX: Final = (
    {"share": 0.5, "side_px": [64, 256], "scale": 4},
    {"share": 0.35, "side_px": [400, 800], "scale": 4},
    {"share": 0.12, "side_px": [800, 1200], "scale": 4},
    {"share": 0.03, "side_px": [1500, 1500], "scale": 4},
)
"""An assumption, for who has no figures yet: avatars, photos of the web, larger ones."""

_WHOLE: Final = ("workers", "slots", "max_queue", "seed")
_SHARES: Final = ("refused", "url_share")
_MAY_BE_0: Final = ("max_queue", "seed", *_SHARES)

SOURCE_BYTES_PER_PX: Final = 0.5
_DRAWN: Final = 20_000


def read_plan(document: Mapping[str, Any]) -> Plan:
    """Read the load, the wish and the machine of a plan.

    Raises:
        BadPlan: a name is unknown, or a value cannot be.
    """
    own = {name: document[name] for name in document if name not in ("mix", "seconds", "machine")}
    try:
        plan = Plan(machine=Machines(**document.get("machine", {})), **own)
    except TypeError as error:
        raise BadPlan(f"the plan has an unknown or a missing name: {error}") from None
    if plan.spread not in SPREADS:
        raise BadPlan(f"spread: {plan.spread!r} is none of {', '.join(SPREADS)}")
    values = {each.name: getattr(plan.machine, each.name) for each in fields(Machines)}
    for name in ("images_per_hour", "p95_s", "refused", "url_share", "seed"):
        values[name] = getattr(plan, name)
    for name, value in values.items():
        _check(name, value)
    return plan


def _check(name: str, value: object) -> None:
    kinds = (int,) if name in _WHOLE else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise BadPlan(f"{name}: has to be a {'whole ' if name in _WHOLE else ''}number")
    if value < 0 or (value == 0 and name not in _MAY_BE_0):
        raise BadPlan(f"{name}: has to be above 0")
    if name in _SHARES and value > 1:
        raise BadPlan(f"{name}: is a share, from 0 to 1")


def read_document(file: Path) -> Mapping[str, Any]:
    """Read a plan's file.

    Raises:
        BadPlan: it is no TOML.
    """
    try:
        return tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadPlan(f"{file}: {error}") from None


def draw_mix(mix: Sequence[Mapping[str, Any]], seed: int, bytes_per_px: float) -> Pictures:
    """Draw pictures of a mix: squares with sides between the two given, evenly, by their shares.

    Raises:
        BadPlan: a share or side is missing or cannot be.
    """
    rng = np.random.default_rng(seed)
    try:
        shares = np.array([float(each["share"]) for each in mix])
        sides = np.array([each["side_px"] for each in mix], dtype=float)
        scales = np.array([float(each.get("scale", 4)) for each in mix])
    except (KeyError, TypeError, ValueError) as error:
        raise BadPlan(f"mix: each needs share and side_px = [least, most]: {error}") from None
    if sides.shape != (len(mix), 2) or shares.min() <= 0 or sides.min() <= 0:
        raise BadPlan("mix: each needs a share above 0 and side_px = [least, most]")
    kind = rng.choice(len(mix), _DRAWN, p=shares / shares.sum())
    px = rng.uniform(sides[kind, 0], sides[kind, 1]) ** 2
    result_bytes = px * scales[kind] ** 2 * bytes_per_px
    return Pictures(px, scales[kind], px * SOURCE_BYTES_PER_PX, result_bytes)
