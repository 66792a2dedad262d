"""Export the statistics of the workers and of their request queue for Prometheus."""

from collections.abc import Iterator, Mapping
from math import inf
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from upscaled.pool.executor import ModelStats, PoolStats

_GAUGES: Final = {
    "waiting": ("queue_images", "Images that wait for a worker"),
    "waiting_most": ("queue_limit_images", "Images that may wait; more are answered 429"),
    "keys_waiting": ("queue_keys", "API keys that have images waiting"),
    "most_of_one_key": ("queue_most_of_one_key_images", "Images waiting of the key with most"),
    "running": ("running_images", "Images at workers"),
    "running_most": ("running_limit_images", "Images that the ready workers work on at once"),
    "workers_ready": ("workers_ready", "Workers that are ready"),
    "workers_wanted": ("workers_wanted", "Workers that the settings ask for"),
}
_COUNTERS: Final = {
    "restarts": ("worker_restarts", "Workers that died and were replaced"),
    "failed_starts": ("worker_failed_starts", "Starts of a worker that failed"),
    "faults": ("device_faults", "Images that a device failed and another device made"),
}
_OF_WORKERS: Final = {
    "decoder_deaths": ("decoder_deaths", "Decoder processes that crashed or were killed"),
    "cpu_s": ("worker_cpu_seconds", "Processor time of all workers"),
}
_OF_MODELS: Final = {
    "trunk_px": ("trunk_pixels", "Pixels at which the network's body ran, halo included"),
    "device_s": ("device_seconds", "Seconds that the device was at work"),
    "batches": ("batches", "Batches that the device was given"),
    "windows": ("batch_windows", "Windows in those batches"),
    "slots": ("batch_places", "Windows that those batches could have held"),
}
_OF_EACH_WORKER: Final = {
    "is_ready": ("worker_up", "1 while the worker is ready, else 0"),
    "is_out": ("worker_out", "1 while the device is not used, because it failed repeatedly"),
    "in_flight": ("worker_images", "Images in flight at the worker"),
    "device_s": ("worker_device_seconds", "Seconds that the worker's device computed"),
}


class PoolMetrics(Collector):
    def __init__(self, stats: PoolStats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats
        for field, (name, meaning) in _GAUGES.items():
            yield GaugeMetricFamily(f"upscaled_{name}", meaning, getattr(stats, field))
        for source, table in ((stats, _COUNTERS), (stats.done, _OF_WORKERS)):
            for field, (name, meaning) in table.items():
                yield CounterMetricFamily(f"upscaled_{name}", meaning, getattr(source, field))
        yield from self._by_model()
        yield self._engines()
        yield self._ladders()
        yield self._memory()
        yield from self._by_worker()

    def _by_model(self) -> Iterator[Metric]:
        # A model that has done nothing yet is there too, at zero.
        models = {engine.model: ModelStats() for engine in self._stats.engines}
        models |= self._stats.done.models
        for field, (name, meaning) in _OF_MODELS.items():
            rows: dict[tuple[object, ...], float]
            rows = {(model,): getattr(stats, field) for model, stats in models.items()}
            family = CounterMetricFamily(f"upscaled_{name}", meaning, labels=["model"])
            yield _fill(family, rows)

    def _engines(self) -> Metric:
        labels = ["scale", "model", "engine", "device"]
        family = GaugeMetricFamily(
            "upscaled_engine_info", "What runs each scale's model", labels=labels
        )
        return _fill(family, dict.fromkeys(self._stats.engines, 1))

    def _ladders(self) -> Metric:
        family = GaugeMetricFamily(
            "upscaled_auto_input_pixels",
            "Input pixels up to which auto chooses a model; +Inf: of any size",
            labels=["scale", "model"],
        )
        for scale, ladder in sorted(self._stats.ladders.items()):
            for rung in ladder:
                most_px = inf if rung.most_px is None else rung.most_px
                family.add_metric([str(scale), rung.model], most_px)
        return family

    def _by_worker(self) -> Iterator[Metric]:
        workers = self._stats.workers
        labels = ["worker", "device"]
        for field, (name, meaning) in _OF_EACH_WORKER.items():
            rows: dict[tuple[object, ...], float]
            rows = {(each.number, each.device): getattr(each, field) for each in workers}
            is_sum = name.endswith("seconds")
            kind = CounterMetricFamily if is_sum else GaugeMetricFamily
            yield _fill(kind(f"upscaled_{name}", meaning, labels=labels), rows)

    def _memory(self) -> Metric:
        family = GaugeMetricFamily(
            "upscaled_worker_resident_bytes",
            "Resident memory of each worker, without its decoders",
            labels=["worker"],
        )
        sizes = self._stats.resident_bytes.items()
        return _fill(family, {(number,): size_bytes for number, size_bytes in sizes})


def _fill(
    family: CounterMetricFamily | GaugeMetricFamily, rows: Mapping[tuple[object, ...], float]
) -> Metric:
    """Add one sample for each row, by its labels' values."""
    for labels, value in sorted(rows.items()):
        family.add_metric([str(label) for label in labels], value)
    return family
