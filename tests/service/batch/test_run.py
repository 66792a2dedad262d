import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.service.batch.benches import Batch
from tests.service.upscale.true_engine import TrueEngine
from upscaled.batch.discovery import Source
from upscaled.batch.files import LocalFile
from upscaled.batch.journal import FILE_NAME
from upscaled.batch.outcome import Kind, Outcome
from upscaled.batch.run import Stop, run_batch


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


pytestmark = pytest.mark.usefixtures("_lent_decoder")


@dataclass
class Gated(TrueEngine):
    """Waits at each window until it is let go."""

    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    gate: threading.Event = field(default_factory=threading.Event)

    def start(self, *arguments: object, **more: object) -> object:  # type: ignore[override]
        self.arrived.release()
        assert self.gate.wait(60)
        return super().start(*arguments, **more)  # type: ignore[arg-type]


class BrokenPipe(list[Outcome]):
    """Outcomes that cannot be written."""

    def append(self, _: Outcome) -> None:
        raise BrokenPipeError


def test_no_more_sources_are_drawn_than_may_be_in_flight(batch: Batch) -> None:
    path = batch.add("a.png")
    drawn: list[Source] = []
    engine = batch.engine = Gated(model="upscaled-x2")

    def sources() -> Iterator[Source]:
        for _ in range(100):
            drawn.append(Source(LocalFile(path)))
            yield drawn[-1]

    stop = Stop()
    outcomes: list[Outcome] = []
    with batch.upscaling(stop, outcomes) as upscaling:
        places = upscaling.max_in_flight
        running = threading.Thread(target=run_batch, args=(sources(), upscaling, stop))
        running.start()
        assert engine.arrived.acquire(timeout=60)
        time.sleep(0.1)
        # Those beside the first say at once that it is under way already, and draw the next.
        assert len(outcomes) + 1 <= len(drawn) <= len(outcomes) + places
        engine.gate.set()
        running.join(60)
    assert len(drawn) == len(outcomes) == 100


def test_cancelling_a_batch_leaves_nothing_of_files_in_flight(batch: Batch) -> None:
    for number in range(6):
        batch.add(f"{number}.png", number, size=(200, 200))
    engine = batch.engine = Gated(model="upscaled-x2")
    stop = Stop()

    def cut_off() -> None:
        assert engine.arrived.acquire(timeout=60)
        stop.cancel()
        engine.gate.set()

    cutting = threading.Thread(target=cut_off)
    cutting.start()
    assert batch.run(stop=stop) == {}
    cutting.join()
    assert batch.results() == []
    assert set(batch.run_kinds().values()) == {Kind.UPSCALED}


def test_stopping_a_batch_finishes_files_in_flight(batch: Batch) -> None:
    for number in range(20):
        batch.add(f"{number:02}.png", number)
    engine = batch.engine = Gated(model="upscaled-x2")
    stop = Stop()

    def request() -> None:
        assert engine.arrived.acquire(timeout=60)
        stop.requested.set()
        engine.gate.set()

    asking = threading.Thread(target=request)
    asking.start()
    outcomes = batch.run(stop=stop)
    asking.join()
    assert 1 <= len(outcomes) < 20
    assert {outcome.kind for outcome in outcomes.values()} == {Kind.UPSCALED}
    assert len(batch.results()) == len(outcomes)


def test_an_error_of_the_listener_ends_the_batch(batch: Batch) -> None:
    for number in range(20):
        batch.add(f"{number:02}.png", number)

    stop = Stop()
    paths = sorted(batch.source_dir.iterdir())
    with batch.upscaling(stop, BrokenPipe()) as upscaling, pytest.raises(BrokenPipeError):
        run_batch((Source(LocalFile(path)) for path in paths), upscaling, stop)
    assert all(not name.startswith(".") for name in batch.results()), "no unfinished file"
    assert (batch.output_dir / FILE_NAME).exists()


def test_large_results_wait_for_one_another_and_all_are_made(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upscaled.batch.file_job.MAX_CANVAS_PX", 5000)
    for number in range(6):
        batch.add(f"{number}.png", number)  # 4800 px of result each
    assert set(batch.run_kinds().values()) == {Kind.UPSCALED}


def test_the_batch_size_of_the_device_decides_how_many_files_are_in_flight(batch: Batch) -> None:
    with batch.upscaling(Stop(), []) as upscaling:
        assert upscaling.max_in_flight == 4
        batch.engine.batch = 8
        assert upscaling.max_in_flight == 18
        batch.engine.small_batch = 16
        assert upscaling.max_in_flight == 34
        batch.engine.small_batch = 64
        assert upscaling.max_in_flight == 34
