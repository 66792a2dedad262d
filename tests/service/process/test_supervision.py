import pytest

from upscaled.process.supervision import Limits


@pytest.mark.parametrize(
    ("failures", "wait_s"), [(0, 0), (1, 0.5), (2, 1), (3, 2), (7, 30), (10_000, 30)]
)
def test_restarts_come_at_once_and_then_ever_more_slowly(failures: int, wait_s: float) -> None:
    assert Limits(work_s=1).restart_after_s(failures) == wait_s
