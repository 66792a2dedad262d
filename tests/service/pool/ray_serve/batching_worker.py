"""The real worker, whose engine takes several windows at once on a processor, as one does on a GPU.

Run as a script, in place of `python -m upscaled.worker.main`. Engines for processors compute one
window after the other, and small pictures beside them, since a batch saves nothing there.
"""

from dataclasses import fields
from functools import partial

from upscaled.config import Settings
from upscaled.upscale import opening
from upscaled.upscale.engines import open_model
from upscaled.worker import main as worker
from upscaled_models.backends.torch.engine import TorchEngine

BATCH = 4


class BatchingEngine(TorchEngine):
    """Engine that computes windows in batches, and none beside them."""

    @property
    def concurrent(self) -> None:
        return None


def open_for_batches(settings: Settings, model: str) -> BatchingEngine:
    engine = open_model(settings, model)
    assert isinstance(engine, TorchEngine)
    same = BatchingEngine(**{each.name: getattr(engine, each.name) for each in fields(engine)})
    return same.sized(window_px=engine.info.window_px, batch=BATCH, proof="")


if __name__ == "__main__":
    open_core = opening.open_core
    opening.open_core = lambda settings, **options: open_core(
        settings, open_engine=partial(open_for_batches, settings), **options
    )
    worker.main()
