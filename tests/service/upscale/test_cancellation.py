import pytest

from tests.service.image.samples import picture
from tests.service.upscale.box_engine import BoxEngine
from upscaled.upscale.cancellation import Cancellation, Cancelled
from upscaled.upscale.scheduler import Scheduler


@pytest.mark.parametrize("is_early", [True, False])
def test_a_cancellation_reaches_every_stream_before_or_while_it_is_open(
    is_early: bool,
) -> None:
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
