from collections.abc import Callable
from types import SimpleNamespace
from typing import NoReturn, cast

import pytest
import torch

from tests.service.pool.pools import request
from upscaled.config import load_settings
from upscaled.pool.messages import Failed, FromWorker, WorkerJob
from upscaled.upscale.core import Core
from upscaled.worker.jobs import FrontEnd, JobQueue, JobThreads
from upscaled.worker.main import count_slots
from upscaled_models.backends.device import Device

JOB = WorkerJob(job=1, request=request())


@pytest.mark.parametrize(("kind", "slots"), [("cpu", 4), ("mps", 4), ("cuda", 8)])
def test_a_worker_on_cuda_has_more_slots(kind: str, slots: int) -> None:
    device = Device(torch.device(kind), torch.float32, threads=1)
    assert count_slots(load_settings({}), device) == slots


@pytest.mark.parametrize("wanted", [1, 5, 64])
def test_the_settings_number_of_jobs_wins_over_the_device(wanted: int) -> None:
    device = Device(torch.device("cuda"), torch.float32, threads=1)
    assert count_slots(load_settings({}, jobs_per_worker=wanted), device) == wanted


def fail(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def work_and_fail(check_engines: Callable[[], None]) -> list[FromWorker]:
    """Work on an image that the device fails at; return what was answered."""
    answers: list[FromWorker] = []
    front_end = SimpleNamespace(send=lambda message, payload=b"": answers.append(message))
    core = SimpleNamespace(upscale=fail, check_engines=check_engines)
    queue = JobQueue()
    queue.put(JOB, b"")
    threads = JobThreads(cast(FrontEnd, front_end), queue, cast(Core, core), slots=1)
    try:
        threads._work(*queue.next())
    except RuntimeError:
        return answers
    return answers


def test_an_error_on_a_working_device_fails_the_image() -> None:
    [answer] = work_and_fail(lambda: None)
    assert isinstance(answer, Failed)
    assert "illegal memory access" in answer.reason


def test_a_broken_device_leaves_the_image_unanswered_for_another_device() -> None:
    assert work_and_fail(fail) == []
