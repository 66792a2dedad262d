import threading

import pytest

from tests.service.image.samples import picture
from tests.service.upscale.box_engine import BoxEngine
from upscaled.upscale.concurrency import Cancellation, Cancelled, WeightedSemaphore
from upscaled.upscale.scheduler import Scheduler


@pytest.mark.parametrize("is_early", [True, False])
def test_a_cancellation_reaches_every_stream_before_or_while_it_is_open(is_early: bool) -> None:
    cancellation = Cancellation()
    cancellation.check()
    if is_early:
        cancellation.cancel()
    with Scheduler() as scheduler:
        streams = scheduler.open_stream(BoxEngine()), scheduler.open_stream(BoxEngine())
        with cancellation.reaching(*streams):
            cancellation.cancel()
            for stream in streams:
                with pytest.raises(Cancelled):
                    list(stream.run([picture(16, 16)]))
    with pytest.raises(Cancelled):
        cancellation.check()


def test_a_cancellation_does_not_reach_streams_of_finished_work() -> None:
    cancellation = Cancellation()
    with Scheduler() as scheduler:
        stream = scheduler.open_stream(BoxEngine())
        with cancellation.reaching(stream):
            pass
        cancellation.cancel()
        assert len(list(stream.run([picture(16, 16)]))) == 1


def test_holders_share_the_weight_and_one_alone_may_be_heavier() -> None:
    semaphore, order = WeightedSemaphore(10), []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with semaphore.hold(5):
            order.append("second in")

    with semaphore.hold(4), semaphore.hold(6):
        thread = threading.Thread(target=second)
        thread.start()
        assert entered.wait(60)
        thread.join(0.05)
        order.append("first out")
    thread.join(60)
    assert order == ["first out", "second in"]
    with semaphore.hold(1000):
        pass


def test_what_weighs_nothing_never_waits() -> None:
    semaphore = WeightedSemaphore(10)
    with semaphore.hold(1000), semaphore.hold(0), semaphore.hold(0):
        pass
    with semaphore.hold(0), semaphore.hold(10):
        pass


def test_a_holder_that_fails_gives_its_weight_back() -> None:
    semaphore = WeightedSemaphore(10)
    with pytest.raises(ValueError, match="broken"), semaphore.hold(10):
        raise ValueError("broken")
    with semaphore.hold(1), semaphore.hold(9):
        pass
