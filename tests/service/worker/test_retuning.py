"""A worker measures in idle time, never beside a request."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.service.pool.pools import request
from tests.service.upscale.box_engine import BoxEngine
from upscaled.config import Settings
from upscaled.pool.messages import WorkerJob
from upscaled.upscale.core import Core
from upscaled.upscale.engines import open_autotuner
from upscaled.upscale.loaded_models import LoadedModels
from upscaled.upscale.opening import open_core
from upscaled.worker import retuning
from upscaled.worker.jobs import JobQueue
from upscaled.worker.retuning import IdleTuning
from upscaled_models.autotune import autotuner
from upscaled_models.autotune.cache import Choice
from upscaled_models.autotune.timing import NO_LOAD, Load
from upscaled_models.backends.base import Engine

JOB = WorkerJob(job=1, request=request(scale=2))


def box() -> Engine:
    return cast(Engine, BoxEngine(model="a"))


@dataclass
class FakeRetuner:
    """Hands an engine over after `slices`, if nothing comes between."""

    jobs: JobQueue
    slices: int = 3
    job_at: int = 0
    done: int = 0
    interrupted: int = 0
    better: Engine = field(default_factory=box)

    @property
    def is_done(self) -> bool:
        return self.done >= self.slices

    @property
    def is_measuring(self) -> bool:
        return not self.is_done

    def slice(self, is_idle: object) -> object:
        self.done += 1
        if self.done == self.job_at:
            self.jobs.put(JOB, b"")
        return SimpleNamespace(engine=self.better) if self.is_done else None

    def interrupt(self) -> None:
        self.interrupted += 1


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(retuning, "read_load", lambda: NO_LOAD)
    with LoadedModels(lambda name: box()) as opened:
        with opened.use("a"):
            pass
        yield opened


def minutes(models: LoadedModels, retuner: FakeRetuner, idle_s: float = 0.0) -> IdleTuning:
    upscaler = cast(Core, SimpleNamespace(models=models, settings=Settings()))
    return IdleTuning(upscaler, retuner.jobs, idle_s, {"a": retuner})  # type: ignore[dict-item]


def test_the_models_are_warmed_up_once_when_the_worker_is_first_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retuning, "LOOK_EVERY_S", 1e-9)
    runs: list[str] = []
    core = cast(Core, SimpleNamespace(check_engines=lambda: runs.append("all")))
    jobs = JobQueue()
    idle = IdleTuning(core, jobs)
    jobs.put(JOB, b"")
    idle.warm_up()
    assert runs == [], "a job is in flight"
    jobs.settle(JOB.job)
    idle.warm_up()
    idle.warm_up()
    assert runs == ["all"]


def test_an_idle_worker_measures_and_adopts(models: LoadedModels) -> None:
    retuner = FakeRetuner(JobQueue())
    minutes(models, retuner).tune()
    with models.use("a") as engine:
        assert engine is retuner.better


def test_a_worker_that_had_a_job_a_moment_ago_does_not_measure(models: LoadedModels) -> None:
    retuner = FakeRetuner(JobQueue())
    minutes(models, retuner, idle_s=30).tune()
    assert retuner.done == 0


def test_a_worker_on_a_busy_machine_does_not_measure(
    models: LoadedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retuning, "read_load", lambda: Load(0.3, 0.0, 0.0, None))
    retuner = FakeRetuner(JobQueue())
    minutes(models, retuner).tune()
    assert retuner.done == 0


def test_a_job_interrupts_a_measurement_which_continues_after_its_answer(
    models: LoadedModels,
) -> None:
    retuner = FakeRetuner(JobQueue(), job_at=2)
    idle = minutes(models, retuner, idle_s=1e-9)
    idle.tune()
    assert (retuner.done, retuner.interrupted) == (2, 1)
    idle.tune()
    assert retuner.done == 2
    retuner.jobs.settle(JOB.job)
    idle.tune()
    assert (retuner.done, retuner.interrupted) == (3, 1)


def test_a_job_queue_is_idle_from_the_last_answer_on() -> None:
    jobs = JobQueue()
    assert jobs.idle_s > 0
    jobs.put(JOB, b"")
    jobs.next()
    assert jobs.idle_s == 0
    jobs.settle(JOB.job)
    assert 0 < jobs.idle_s < 5


@pytest.mark.parametrize("values", [{"precision": "exact"}, {"tuning": False}])
def test_without_tuning_no_thread_is_started(values: dict[str, object], tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path).model_copy(update=values)
    IdleTuning(cast(Core, SimpleNamespace(settings=settings)), JobQueue()).start(niceness=0)
    assert "retuning" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.slow
def test_a_choice_of_a_busy_start_is_measured_in_an_idle_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real model, runtimes and clock."""
    monkeypatch.setattr(autotuner, "read_load", lambda: Load(1.0, 0.0, 4.0, 0.9))
    monkeypatch.setattr(retuning, "read_load", lambda: NO_LOAD)
    settings = Settings(data_dir=tmp_path, device="cpu", model_x2="upscaled-x2", tile_window_px=96)

    def choice() -> Choice:
        found = open_autotuner(settings, "upscaled-x2").find_choice()
        assert found is not None
        return found

    with open_core(settings, scales=(2,), decoders=0) as upscaler:
        assert choice().is_from_table
        IdleTuning(upscaler, JobQueue(), idle_s=0.0).tune()
        assert not choice().is_from_table
        assert choice().untried == []
        assert upscaler.label("upscaled-x2") == choice().label
