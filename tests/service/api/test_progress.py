"""Tracker of requests in flight: steps, estimates, and permission by API key."""

import asyncio

import pytest

from upscaled.api.progress import MAX_WATCHERS_PER_KEY, Progress, ProgressTracker, Step
from upscaled.errors import MalformedImage, RateLimitExceeded


def test_the_remaining_time_follows_from_the_tiles_done() -> None:
    progress = Progress()
    assert progress.step == Step("receive", 0, None, None)
    progress.note_queued()
    assert progress.step == Step("queue", 0, None, None)
    progress.note_tile(0, 8, at_s=100)
    assert progress.step == Step("network", 0, 8, None)
    progress.note_tile(2, 8, at_s=103)
    assert progress.step == Step("network", 2, 8, 9.0)
    progress.note_tile(8, 8, at_s=104)
    assert progress.step == Step("encode", 8, 8, 0.0)


def test_before_the_first_tile_the_estimate_is_the_expected_time() -> None:
    progress = Progress()
    progress.note_queued(8.0)
    assert progress.step == Step("queue", 0, None, None)
    progress.note_tile(0, 4)
    assert progress.step == Step("network", 0, 4, 8.0)


def test_a_repeated_image_is_estimated_anew() -> None:
    progress = Progress()
    progress.note_tile(0, 4, at_s=100)
    progress.note_tile(3, 4, at_s=150)
    progress.note_tile(0, 16, at_s=150)
    progress.note_tile(1, 16, at_s=152)
    assert progress.step == Step("network", 1, 16, 30.0)


async def test_only_the_key_that_sent_a_request_finds_it() -> None:
    tracker = ProgressTracker(arrival_wait_s=0.01)
    with tracker.track(1, "mine") as progress:
        assert await tracker.find(1, "mine") is progress
        assert await tracker.find(2, "mine") is None
        assert await tracker.find(1, "other") is None
    assert await tracker.find(1, "mine") is None


async def test_a_watcher_may_connect_a_moment_before_its_request() -> None:
    tracker = ProgressTracker(arrival_wait_s=30)
    finding = asyncio.create_task(tracker.find(1, "soon"))
    await asyncio.sleep(0)
    with tracker.track(1, "unrelated"):
        await asyncio.sleep(0.01)
        assert not finding.done()
        with tracker.track(1, "soon") as progress:
            assert await finding is progress


async def test_the_later_of_two_requests_with_equal_ids_is_shown_until_it_ends() -> None:
    tracker = ProgressTracker(arrival_wait_s=0.01)
    with tracker.track(1, "twice"):
        with tracker.track(1, "twice") as later:
            assert await tracker.find(1, "twice") is later
        assert await tracker.find(1, "twice") is None
    assert await tracker.find(1, "twice") is None


async def test_a_waiting_watcher_receives_the_end_and_its_error_code() -> None:
    tracker = ProgressTracker()

    async def refuse() -> None:
        with tracker.track(1, "bad"):
            await asyncio.sleep(0.01)
            raise MalformedImage

    refusing = asyncio.create_task(refuse())
    progress = await tracker.find(1, "bad")
    assert progress is not None
    await progress.wait_beyond(progress.step)
    with pytest.raises(MalformedImage):
        await refusing
    assert progress.is_ended
    assert progress.error_code == "malformed_image"


def test_watchers_are_limited_for_each_key() -> None:
    tracker = ProgressTracker()
    slots = [tracker.count_watcher(1) for _ in range(MAX_WATCHERS_PER_KEY)]
    for slot in slots:
        slot.__enter__()
    with pytest.raises(RateLimitExceeded), tracker.count_watcher(1):
        pass
    with tracker.count_watcher(2):
        pass
    slots[0].__exit__(None, None, None)
    with tracker.count_watcher(1):
        pass
