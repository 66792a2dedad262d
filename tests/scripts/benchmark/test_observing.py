import json

import pytest

from scripts.benchmark.observing import compare, main, time_the_work


def test_a_difference_in_every_pair_is_found_under_common_noise() -> None:
    noise = [0.010 + 0.001 * (number % 7) for number in range(300)]
    report = compare([seconds + 0.0005 for seconds in noise], noise)
    assert report["difference"] == pytest.approx(0.0005 / 0.013, rel=0.01)
    assert report["low"] == report["high"] == report["difference"]


def test_alike_ones_differ_by_nothing() -> None:
    report = compare([0.01, 0.02, 0.03], [0.01, 0.02, 0.03])
    assert (report["difference"], report["low"], report["high"]) == (0, 0, 0)


def test_counting_timing_and_logging_a_request_is_a_matter_of_microseconds() -> None:
    """1 % of a small request is 90 us on a quiet machine; a busy one gets its due."""
    assert 5 < min(time_the_work(500) for _ in range(5)) < 300


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_kinds_are_answered_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--pairs", "4"])
    *_, last = capsys.readouterr().out.splitlines()
    report = json.loads(last)
    assert 0 < report["work_us"] < 1000
    assert report["hushed_us"] > 1000
    assert report["low"] <= report["difference"] <= report["high"]
