"""The workers' figures as Prometheus families: made anew of one snapshot for each scrape."""

from collections.abc import Iterator
from math import inf
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from upscaled.pool.stats import ModelFigures, PoolFigures

_GAUGES: Final = {
    "waiting": ("queue_images", "Images that wait for a worker"),
    "waiting_most": ("queue_limit_images", "Images that may wait; more are answered 429"),
    "keys_waiting": ("queue_keys", "API keys that have images waiting"),
    "most_of_one_key": ("queue_most_of_one_key_images", "Images waiting of the key with most"),
    "running": ("running_images", "Images at workers"),
    "running_most": ("running_limit_images", "Images that the ready workers take at once"),
    "workers_ready": ("workers_ready", "Workers that are ready"),
    "workers_wanted": ("workers_wanted", "Workers that the settings ask for"),
}
_COUNTERS: Final = {
    "restarts": ("worker_restarts", "Workers that died and were replaced"),
    "failed_starts": ("worker_failed_starts", "Starts of a worker that came to nothing"),
}
_OF_MODELS: Final = {
    "trunk_px": ("trunk_pixels", "Pixels at which the network's body ran, halo included"),
    "device_s": ("device_seconds", "Seconds that the device was at work"),
    "batches": ("batches", "Batches that the device was given"),
    "windows": ("batch_windows", "Windows in those batches"),
    "places": ("batch_places", "Windows that those batches had room for"),
}


class PoolMetrics(Collector):
    def __init__(self, figures: PoolFigures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        for field, (name, meaning) in _GAUGES.items():
            yield _gauge(name, meaning, getattr(figures, field))
        for field, (name, meaning) in _COUNTERS.items():
            yield _counter(name, meaning, getattr(figures, field))
        done = figures.done
        yield _counter(
            "decoder_deaths", "Decoder processes that crashed or were killed", done.decoder_deaths
        )
        yield _counter("worker_cpu_seconds", "Processor time of all workers", done.cpu_s)
        yield from self._by_model()
        yield self._engines()
        yield self._ladders()
        yield self._memory()

    def _by_model(self) -> Iterator[Metric]:
        # A model that has done nothing yet is there too, at zero.
        models = {engine.model: ModelFigures() for engine in self._figures.engines}
        models |= self._figures.done.models
        for field, (name, meaning) in _OF_MODELS.items():
            family = CounterMetricFamily(f"upscaled_{name}", meaning, labels=["model"])
            for model, figures in sorted(models.items()):
                family.add_metric([model], getattr(figures, field))
            yield family

    def _engines(self) -> Metric:
        labels = ["scale", "model", "engine", "device"]
        family = GaugeMetricFamily(
            "upscaled_engine_info", "What runs each scale's model", labels=labels
        )
        for scale, model, label, device in sorted(self._figures.engines):
            family.add_metric([str(scale), model, label, device], 1)
        return family

    def _ladders(self) -> Metric:
        family = GaugeMetricFamily(
            "upscaled_auto_input_pixels",
            "Input pixels up to which auto takes a model; +Inf: of any size",
            labels=["scale", "model"],
        )
        for scale, ladder in sorted(self._figures.ladders.items()):
            for rung in ladder:
                most_px = inf if rung.most_px is None else rung.most_px
                family.add_metric([str(scale), rung.model], most_px)
        return family

    def _memory(self) -> Metric:
        family = GaugeMetricFamily(
            "upscaled_worker_resident_bytes",
            "Resident memory of each worker, without its decoders",
            labels=["worker"],
        )
        for number, size_bytes in sorted(self._figures.resident_bytes.items()):
            family.add_metric([str(number)], size_bytes)
        return family


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"upscaled_{name}", meaning, value=value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(f"upscaled_{name}", meaning, value=value)
