import pytest

from tests.service.image.samples import picture
from tests.service.upscale.box_engine import BoxEngine
from upscaled.upscale.cancellation import Cancellation
from upscaled.upscale.lane import Cancelled
from upscaled.upscale.scheduler import Scheduler


@pytest.mark.parametrize("is_early", [True, False])
def test_it_reaches_every_lane_whether_it_comes_before_or_while_they_are_open(
    is_early: bool,
) -> None:
    cancellation = Cancellation()
    cancellation.check()
    if is_early:
        cancellation.cancel()
    with Scheduler() as scheduler:
        lanes = scheduler.open_lane(BoxEngine()), scheduler.open_lane(BoxEngine())
        with cancellation.reaching(*lanes):
            cancellation.cancel()
            for lane in lanes:
                with pytest.raises(Cancelled):
                    list(lane.run([picture(16, 16)]))
    with pytest.raises(Cancelled):
        cancellation.check()


def test_it_does_not_reach_lanes_of_work_that_is_over() -> None:
    cancellation = Cancellation()
    with Scheduler() as scheduler:
        lane = scheduler.open_lane(BoxEngine())
        with cancellation.reaching(lane):
            pass
        cancellation.cancel()
        assert len(list(lane.run([picture(16, 16)]))) == 1
