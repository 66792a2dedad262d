"""The board of what is under way: steps, estimates, and who may see what."""

import asyncio

import pytest

from upscaled.api.progress import MAX_WATCHERS_PER_KEY, Progress, ProgressTracker, Step
from upscaled.errors import MalformedImage, RateLimitExceeded


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_estimate_goes_on_at_the_pace_of_the_tiles_so_far() -> None:
    clock = Clock()
    progress = Progress(clock)
    assert progress.step == Step("receive", 0, None, None)
    progress.note_queued()
    assert progress.step == Step("queue", 0, None, None)
    progress.note_tile(0, 8)
    assert progress.step == Step("network", 0, 8, None)
    clock.now_s += 3
    progress.note_tile(2, 8)
    assert progress.step == Step("network", 2, 8, 9.0)
    clock.now_s += 1
    progress.note_tile(8, 8)
    assert progress.step == Step("encode", 8, 8, 0.0)


def test_before_the_first_tile_the_estimate_is_what_was_expected() -> None:
    progress = Progress(Clock())
    progress.note_queued(8.0)
    assert progress.step == Step("queue", 0, None, None)
    progress.note_tile(0, 4)
    assert progress.step == Step("network", 0, 4, 8.0)


def test_an_image_that_is_begun_anew_is_estimated_anew() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.note_tile(0, 4)
    clock.now_s += 50
    progress.note_tile(3, 4)
    progress.note_tile(0, 16)
    clock.now_s += 2
    progress.note_tile(1, 16)
    assert progress.step == Step("network", 1, 16, 30.0)


async def test_only_the_key_that_sent_a_request_finds_it() -> None:
    board = ProgressTracker(arrival_wait_s=0.01)
    with board.track(1, "mine") as progress:
        assert await board.find(1, "mine") is progress
        assert await board.find(2, "mine") is None
        assert await board.find(1, "other") is None
    assert await board.find(1, "mine") is None


async def test_a_watcher_may_come_a_moment_before_its_request() -> None:
    board = ProgressTracker(arrival_wait_s=30)
    finding = asyncio.create_task(board.find(1, "soon"))
    await asyncio.sleep(0)
    with board.track(1, "unrelated"):
        await asyncio.sleep(0.01)
        assert not finding.done()
        with board.track(1, "soon") as progress:
            assert await finding is progress


async def test_of_two_requests_with_one_id_the_later_is_shown_until_it_ends() -> None:
    board = ProgressTracker(arrival_wait_s=0.01)
    with board.track(1, "twice"):
        with board.track(1, "twice") as later:
            assert await board.find(1, "twice") is later
        assert await board.find(1, "twice") is None
    assert await board.find(1, "twice") is None


async def test_a_watcher_that_waits_hears_of_the_end_and_why() -> None:
    board = ProgressTracker()

    async def refuse() -> None:
        with board.track(1, "bad"):
            await asyncio.sleep(0.01)
            raise MalformedImage

    refusing = asyncio.create_task(refuse())
    progress = await board.find(1, "bad")
    assert progress is not None
    await progress.wait_beyond(progress.step)
    with pytest.raises(MalformedImage):
        await refusing
    assert progress.is_ended
    assert progress.error_code == "malformed_image"


def test_a_key_has_so_many_watchers_and_takes_none_of_another_s() -> None:
    board = ProgressTracker()
    places = [board.count_watcher(1) for _ in range(MAX_WATCHERS_PER_KEY)]
    for place in places:
        place.__enter__()
    with pytest.raises(RateLimitExceeded), board.count_watcher(1):
        pass
    with board.count_watcher(2):
        pass
    places[0].__exit__(None, None, None)
    with board.count_watcher(1):
        pass
