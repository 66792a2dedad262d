"""Measure how many metered images a second a PostgreSQL takes, without any image."""

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from scripts.simulation.plan import BadPlan
from upscaled.config import Settings, load_settings
from upscaled.state import open_state
from upscaled.state.rate import RateLimit

FRONT_ENDS: Final = 4
MEASURED_FOR_S: Final = 3.0
_CREDITS: Final = 1_000_000
_UNLIMITED: Final = RateLimit(per_s=100_000, burst=100_000)


def measure_database(url: str, for_s: float = MEASURED_FOR_S) -> float:
    """Spend credits from several processes, each with an API key of its own.

    Each image has what a request has: its key's look-up, its rate, a hold and a capture.

    Args:
        url: of an empty database, which is left with the keys and entries of the measurement.

    Raises:
        BadPlan: the database has keys.
    """
    with tempfile.TemporaryDirectory(prefix="capacity-") as folder:
        settings = load_settings({}, data_dir=Path(folder), database_url=url)
        with open_state(settings) as state:
            if not state.keys.is_empty():
                raise BadPlan("the database has API keys: the measurement needs an empty one")
            names = [f"measured-{number}" for number in range(FRONT_ENDS)]
            secrets = [state.keys.create(name, credits=_CREDITS) for name in names]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(FRONT_ENDS, mp_context=context) as pool:
            rates = pool.map(
                spend, [settings] * FRONT_ENDS, secrets, [for_s] * FRONT_ENDS, chunksize=1
            )
            return sum(rates)


def spend(settings: Settings, secret: str, for_s: float) -> float:
    """Do what the state does for one image after another; return images a second."""
    images = 0
    with open_state(settings) as state:
        begun_s = time.monotonic()
        while (spent_s := time.monotonic() - begun_s) < for_s or not images:
            key = state.keys.verify(secret)
            if key is None:
                raise BadPlan("a key of the measurement was revoked")
            state.rate.take(key.id, _UNLIMITED)
            state.credits.capture(state.credits.hold(key.id, f"{secret[:20]}-{images}"))
            images += 1
    return images / spent_s
