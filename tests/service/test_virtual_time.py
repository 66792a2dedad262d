from hypothesis import given
from hypothesis import strategies as st

from upscaled.virtual_time import Flow, VirtualClock


def test_a_flow_that_was_idle_begins_at_the_clock() -> None:
    clock, busy, idle = VirtualClock(), Flow(), Flow()
    clock.begin(busy)
    for _ in range(5):
        clock.charge(busy, 10, waiting=1)
    assert clock.start_tag(idle) == busy.charged == 50
    clock.begin(idle)
    assert idle.charged == 50


def test_a_flow_ahead_of_the_clock_is_not_set_back() -> None:
    clock, large, small = VirtualClock(), Flow(), Flow()
    clock.charge(large, 100, waiting=2)
    clock.charge(small, 1, waiting=2)
    clock.begin(large)
    assert large.charged == 100
    assert clock.time == 50.5


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 9)), min_size=1))
def test_the_clock_never_goes_back_and_advances_with_every_item(
    items: list[tuple[int, int]],
) -> None:
    clock, flow = VirtualClock(), Flow()
    for work, waiting in items:
        before = clock.time
        clock.charge(flow, work, waiting)
        assert clock.time >= before + work / waiting
