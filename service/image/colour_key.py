"""Transparency that a file tells by a colour instead of a channel."""

import numpy as np
from numpy.typing import NDArray


def alpha_from_key(is_key: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The alpha plane of a colour key: transparent where the mask `[H, W]` holds, else opaque."""
    return np.where(is_key, np.uint8(0), np.uint8(255))
