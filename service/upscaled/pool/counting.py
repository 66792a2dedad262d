"""From batches on the device to a worker's figures."""

from functools import cache

from upscaled.config import Settings
from upscaled.pool.tally import Tally
from upscaled.upscale.scheduler import BatchDone, OnBatch
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore


def count_batches(tally: Tally, settings: Settings) -> OnBatch:
    """What has every batch counted by its model's name, its cost in trunk pixels."""
    store = ModelStore(settings.models_dir)

    @cache
    def find(model: str) -> ModelSpec:
        return store.find(model)

    def count(done: BatchDone) -> None:
        trunk_px = find(done.engine.model).trunk_pixels(done.width_px, done.height_px)
        tally.note_batch(
            done.engine.model,
            windows=done.windows,
            places=done.places,
            trunk_px=done.windows * trunk_px,
            device_s=done.seconds,
        )

    return count
