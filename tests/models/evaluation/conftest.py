"""A picture that is the same on every machine, for figures that others' code gave for it."""

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def texture() -> NDArray[np.uint8]:
    """Coloured noise, smoothed twice: 320x224 px, of numpy's arithmetic alone."""
    noise = np.random.default_rng(7).integers(0, 256, (224, 320, 3)).astype(np.float64)
    for _ in range(2):
        moved = (np.roll(noise, 1, 0), np.roll(noise, 1, 1), np.roll(noise, (1, 1), (0, 1)))
        noise = (noise + sum(moved)) / 4
    return np.clip(np.rint(128 + (noise - 128) * 2), 0, 255).astype(np.uint8)
