"""Holders share a weight, and one alone may have any."""

import threading

import pytest

from upscaled.upscale.weighted_semaphore import WeightedSemaphore


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
        assert entered.wait(5)
        thread.join(0.05)
        order.append("first out")
    thread.join(5)
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
