"""What must not happen, whatever is sent."""

from tests.fuzzing.campaign import Tally

REFUSED_WITHIN_S = 1.0
LARGEST_SLOPE_KIB = 50.0


def find_faults(tally: Tally) -> list[str]:
    """What must not be, in words."""
    faults = [f"file {number}: {word}" for number, word in sorted(tally.failures.items())]
    if not tally.is_front_end_alive:
        faults.append("the front end died")
    if tally.slowest_refusal_s > REFUSED_WITHIN_S:
        faults.append(f"file {tally.slowest_refusal}: refused in {tally.slowest_refusal_s:.2f} s")
    if tally.slope_kib_per_1000 > LARGEST_SLOPE_KIB:
        faults.append(f"front end grows by {tally.slope_kib_per_1000:.0f} KiB in 1,000 files")
    return faults
