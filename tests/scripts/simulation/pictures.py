"""Pictures and costs that are alike, so that what they need can be worked out by hand."""

import numpy as np

from scripts.simulation.plan import Costs, Pictures


def alike(px: float = 1e6, source_bytes: float = 1e6, result_bytes: float = 2e6) -> Pictures:
    """A thousand pictures of this size."""
    one = np.ones(1000)
    return Pictures(one * px, one * 4, one * source_bytes, one * result_bytes)


def second_each(front_end_s: tuple[float, float] = (0.0, 0.0)) -> Costs:
    """A second of a worker for a megapixel."""
    return Costs(((1e6, 1.0),), front_end_s, bytes_per_px=0.2)
