import pytest

from scripts.simulation.measurement import MeasuredSize, fit_costs, measure_costs, read_bench
from scripts.simulation.plan import BadPlan


def test_the_front_end_s_costs_are_the_line_through_what_was_measured() -> None:
    sizes = [
        MeasuredSize(px, px / 1e6, 0.002 + 0.01 * megabytes, megabytes, ratio)
        for px, megabytes, ratio in ((1e4, 0.1, 0.3), (1e5, 1.0, 0.2), (1e6, 5.0, 0.1))
    ]
    costs = fit_costs(sizes)
    assert costs.front_end_s == pytest.approx((0.002, 0.01))
    assert costs.bytes_per_px == 0.2
    assert costs.seconds_by_px == ((1e4, 0.01), (1e5, 0.1), (1e6, 1.0))


def test_no_fitted_cost_is_negative() -> None:
    sizes = [MeasuredSize(px, 1.0, 1.0 - px, px, 0.2) for px in (0.1, 0.2, 0.3)]
    for_each_s, per_megabyte_s = fit_costs(sizes).front_end_s
    assert for_each_s == pytest.approx(1.0)
    assert per_megabyte_s == 0


def test_the_bench_s_single_requests_are_read() -> None:
    alone = {"64": {"p50_s": 0.01, "p95_s": 0.02}, "512": {"p50_s": 0.3, "p95_s": 0.4}}
    assert read_bench({"http": {"alone": alone}}) == [(64**2, 0.01), (512**2, 0.3)]


@pytest.mark.parametrize("report", [{}, {"http": {}}, {"http": {"alone": {"64": {}}}}, []])
def test_a_report_without_requests_is_refused(report: dict[str, object]) -> None:
    with pytest.raises(BadPlan, match="scripts/bench http"):
        read_bench(report)


@pytest.mark.slow
def test_costs_are_measured_on_a_real_service() -> None:
    costs = measure_costs("upscaled-x4-faithful", sides_px=(64, 96), for_s=0.1, is_tuned=False)
    (small_px, small_s), (large_px, large_s) = costs.seconds_by_px
    assert (small_px, large_px) == (64**2, 96**2)
    assert small_s > 0
    assert large_s > 0
    assert 0.01 < costs.bytes_per_px < 3
    assert sum(costs.front_end_s) > 0
