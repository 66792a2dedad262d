import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """`upscaled serve` runs on uvloop, so these tests do."""
    return {"uvloop": uvloop.new_event_loop}
