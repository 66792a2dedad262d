"""Fetching for the front end: the body counts as it comes, and is bounded here once more."""

import os

import pytest

from tests.service.api.origin import origin, response
from upscaled.api.image_url import SourceFetcher
from upscaled.api.memory import MemoryBudget
from upscaled.config import load_settings
from upscaled.errors import FileSizeTooLarge, RateLimitExceeded
from upscaled.fetch.client import FetchClient
from upscaled.fetch.messages import FetchOptions

PHOTO = os.urandom(5000)


async def test_what_is_fetched_counts_against_the_memory_of_all() -> None:
    budget = MemoryBudget(len(PHOTO))
    settings = load_settings({}, source_private_cidrs="127.0.0.1/32")
    sources = SourceFetcher(settings)
    async with origin() as web:
        web.answers["/photo"] = response(PHOTO)
        for is_room in (True, False):
            with budget.share(1) as share:
                share.take(0 if is_room else 1)
                fetching = sources.fetch(f"{web.url}/photo", share)
                if is_room:
                    assert await fetching == PHOTO
                else:
                    with pytest.raises(RateLimitExceeded):
                        await fetching
    await sources.close()
    assert budget.held_bytes == 0


@pytest.mark.parametrize("is_over", [False, True])
async def test_a_process_that_sends_more_than_it_should_is_not_believed(is_over: bool) -> None:
    settings = load_settings({}, max_file_bytes=len(PHOTO) - is_over)
    unlimited = FetchOptions(10 * len(PHOTO), 20, private_cidrs=("127.0.0.1/32",))
    sources = SourceFetcher(settings, FetchClient(unlimited))
    async with origin() as web:
        web.answers["/photo"] = response(PHOTO)
        with MemoryBudget(10 * len(PHOTO)).share(1) as share:
            fetching = sources.fetch(f"{web.url}/photo", share)
            if is_over:
                with pytest.raises(FileSizeTooLarge):
                    await fetching
            else:
                assert await fetching == PHOTO
    await sources.close()
