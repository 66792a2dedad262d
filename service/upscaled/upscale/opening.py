"""Open the core: the models of the ladders, the decoders and the threads of one device."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import cv2

from upscaled.config import SCALES, Settings
from upscaled.decoder.pool import Decoder, count_decoders
from upscaled.logs import event
from upscaled.upscale.core import Core
from upscaled.upscale.engines import choose_device, limit_memory, open_model
from upscaled.upscale.ladder import LadderPlan, plan_ladder
from upscaled.upscale.loaded_models import LoadedModels
from upscaled.upscale.model_choice import Rung
from upscaled.upscale.scheduler import BatchCounter, Scheduler
from upscaled.upscale.speed import Speed, find_speed, read_speed, warm_up
from upscaled_models.backends.base import Engine
from upscaled_models.processor import count_cores
from upscaled_models.registry import ModelSpec

_log = logging.getLogger(__name__)


@contextmanager
def open_core(
    settings: Settings,
    *,
    scales: tuple[int, ...] = SCALES,
    open_engine: Callable[[str], Engine] | None = None,
    counter: BatchCounter | None = None,
    niceness: int = 0,
    decoders: int | None = None,
    named_by: str | None = None,
    is_warm: bool = False,
    measures: bool = True,
) -> Iterator[Core]:
    """Open the core of one device; OpenCV has one thread in this process until it is closed.

    The other cores are the network's, or other images'.

    Args:
        scales: their models are opened now, others when needed.
        open_engine: opens a model by its name, instead of `upscaled.upscale.engines.open_model`.
        niceness: of the threads that the network computes in, on top of the process's own; that of
            small images has none.
        decoders: how many files are decoded at once, by processes that start now; None: as suits
            this machine; 0: as suits it, by processes that start when they are needed.
        named_by: what named the model in the settings, where it was not its variable; error texts
            name it.
        is_warm: run each model once as soon as it is opened, unless its speed is known.
        measures: measure what the ladders depend on, where this machine has not done so before;
            else vivid models of unknown speed get no image, and default ones of unknown speed every
            one.

    Raises:
        SettingsError: a device or a model that is not here, or a window too small for the model.
        ModelError: an unknown model, or a weights file that cannot be used.
        InternalError: a model's result is not finite in float32.
        OSError: no process that decodes can be started.
    """
    limit_memory(settings)
    with ExitStack() as stack:
        stack.callback(cv2.setNumThreads, cv2.getNumThreads())
        cv2.setNumThreads(1)
        scheduler = stack.enter_context(Scheduler(counter, niceness=niceness))
        decoder = _open_decoder(stack, settings, decoders)
        plans = [plan_ladder(settings, scale, named_by) for scale in scales]
        opener = _Opener(settings, scheduler, open_engine, is_warm=is_warm)
        models = opener.keep_models(stack, plans, niceness)
        ladders = {plan.scale: opener.build_ladder(plan, models, measures) for plan in plans}
        models.preload(rung.model for ladder in ladders.values() for rung in ladder)
        threads = _start_threads(stack, settings)
        yield Core(settings, models, scheduler, decoder, ladders, opener.seconds_per_px, threads)


def _start_threads(stack: ExitStack, settings: Settings) -> ThreadPoolExecutor | None:
    """Start the threads of post-processing: as many as the network has, beside a GPU all cores.

    Beside a network on the processor, too: it loses less where all its threads are delayed alike,
    and behind an image's last window the cores are free. None where a second one has no core.
    """
    device = choose_device(settings)
    count = device.threads if device.is_cpu else count_cores()
    return stack.enter_context(ThreadPoolExecutor(count)) if count > 1 else None


def _open_decoder(stack: ExitStack, settings: Settings, decoders: int | None) -> Decoder:
    decoder = Decoder(
        settings.formats,
        processes=decoders or count_decoders(),
        log_format=settings.log_format,
    )
    stack.enter_context(decoder)
    # Its processes start while the models are opened.
    decoder.warm_up(count_decoders() if decoders is None else decoders)
    return decoder


class _Opener:
    """Opens engines, and measures the seconds of a pixel with each: `seconds_per_px`, by model."""

    def __init__(
        self,
        settings: Settings,
        scheduler: Scheduler,
        open_engine: Callable[[str], Engine] | None,
        *,
        is_warm: bool,
    ) -> None:
        self.seconds_per_px: dict[str, float] = {}
        self._settings = settings
        self._scheduler = scheduler
        self._open_engine = open_engine or partial(open_model, settings)
        self._is_warm = is_warm
        self._measured: set[str] = set()

    def keep_models(self, stack: ExitStack, plans: list[LadderPlan], niceness: int) -> LoadedModels:
        """Open the store of models in memory; the small ones of each ladder are never unloaded."""
        return stack.enter_context(
            LoadedModels(
                self._open,
                niceness=niceness,
                idle_unload_s=self._settings.idle_unload_s,
                kept=frozenset(name for plan in plans for name in plan.kept),
            )
        )

    def build_ladder(
        self, plan: LadderPlan, models: LoadedModels, measures: bool
    ) -> tuple[Rung, ...]:
        """Build a ladder by the stored speeds of its slow models, or those measured now."""
        found = ((each.name, self._find_speed(each, models, measures)) for each in plan.bounded)
        ladder = plan.build({name: speed for name, speed in found if speed is not None})
        for rung in ladder:
            fields = {"scale": plan.scale, **rung.model_dump()}
            _log.info("x%d: %s", plan.scale, rung.describe(), extra=event("ladder", **fields))
        return ladder

    def _open(self, model: str) -> Engine:
        """Open a model; warm it up where that is wanted and its speed is not found otherwise.

        A slow model would take seconds for it at every start.
        """
        engine = self._open_engine(model)
        if self._is_warm and model not in self._measured | self.seconds_per_px.keys():
            self.seconds_per_px[model] = warm_up(engine, self._scheduler)
        return engine

    def _find_speed(self, spec: ModelSpec, models: LoadedModels, measures: bool) -> Speed | None:
        speed = read_speed(self._settings, spec)
        if not measures:
            return speed
        if speed is None:
            self._measured.add(spec.name)
            with models.use(spec.name) as engine:
                speed = find_speed(self._settings, spec, engine, self._scheduler)
        self.seconds_per_px[spec.name] = speed.s_per_px
        return speed
