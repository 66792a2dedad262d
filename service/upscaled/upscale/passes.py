"""Plan how often an image goes through a network, and what each pass does to its size."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of the whole image through the network, which enlarges it `gain` times."""

    gain: int
    reduce: int


def plan_passes(scale: int, native_scale: int) -> tuple[Pass, ...]:
    """Plan how often the image goes through the network, and how the last pass is averaged down.

    x2 through an x4 network is one pass averaged by 2; x4 through an x2 network is two passes.
    Where no number of passes gives the scale exactly, ValueError.
    """
    count = 1
    while native_scale > 1 and native_scale**count < scale:
        count += 1
    reduce, rest = divmod(native_scale**count, scale)
    if not reduce or rest or native_scale % reduce:
        raise ValueError(f"a network of native scale {native_scale} cannot make scale {scale}")
    return (*[Pass(native_scale, 1)] * (count - 1), Pass(native_scale // reduce, reduce))


def find_gain(scale: int, native_scale: int) -> int | None:
    """Return how much each pass enlarges an image, None where they differ.

    Raises as `plan_passes`.
    """
    gains = {each.gain for each in plan_passes(scale, native_scale)}
    return gains.pop() if len(gains) == 1 else None
