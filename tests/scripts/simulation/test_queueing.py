"""The simulation agrees with queueing theory wherever that has a formula."""

import math

import numpy as np
import pytest

from scripts.simulation.queueing import (
    SPREADS,
    WARM_UP_SHARE,
    Cluster,
    Floats,
    Simulated,
    draw_arrivals,
    mean_wait_s,
    share_that_waits,
    simulate,
)

IMAGES = 40_000
NO_LIMIT = 10**9
ONE_AT_A_TIME = Cluster(machines=1, slots=1, max_queue=NO_LIMIT)


def exponential(rng: np.random.Generator) -> Floats:
    return rng.exponential(1.0, IMAGES)


def constant(_: np.random.Generator) -> Floats:
    return np.ones(IMAGES)


def very_uneven(rng: np.random.Generator) -> Floats:
    """Nine of ten images take 0.1 s, the tenth 9.1 s."""
    return np.where(rng.random(IMAGES) < 0.9, 0.1, 9.1)


def run(cluster: Cluster, work_s: Floats, load: float, spread: str = "random") -> Simulated:
    """Simulate at this share of all workers' time; the mean work is 1 s."""
    rng = np.random.default_rng(7)
    rate = load * cluster.machines * cluster.workers
    return simulate(cluster, draw_arrivals(rng, len(work_s), rate), work_s, spread, seed=7)


def drawn(work: object) -> Floats:
    assert callable(work)
    made: Floats = work(np.random.default_rng(3))
    return made


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_one_worker_with_random_work_is_m_m_1(load: float) -> None:
    simulated = run(ONE_AT_A_TIME, drawn(exponential), load)
    mean_s = 1 / (1 - load)
    assert np.mean(simulated.latencies_s) == pytest.approx(mean_s, rel=0.05)
    for percent in (50, 95):
        exact_s = -math.log(1 - percent / 100) * mean_s
        assert simulated.percentile_s(percent) == pytest.approx(exact_s, rel=0.08)


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_one_worker_with_constant_work_is_m_d_1(load: float) -> None:
    simulated = run(ONE_AT_A_TIME, drawn(constant), load)
    assert np.mean(simulated.latencies_s) == pytest.approx(1 + load / (2 * (1 - load)), rel=0.03)


@pytest.mark.parametrize("workers", [2, 8])
def test_workers_of_one_machine_with_random_work_are_m_m_c(workers: int) -> None:
    cluster, load = Cluster(1, workers, slots=1, max_queue=NO_LIMIT), 0.6
    work_s = drawn(exponential)
    simulated = run(cluster, work_s, load)
    waits_s = simulated.latencies_s - simulated.work_s
    assert np.mean(waits_s) == pytest.approx(mean_wait_s(workers, load, 1), rel=0.1)
    waiting = np.mean(waits_s > 1e-9)
    assert waiting == pytest.approx(share_that_waits(workers, load), rel=0.08)


@pytest.mark.parametrize("workers", [4, 8])
def test_workers_of_one_machine_with_constant_work_are_m_d_c(workers: int) -> None:
    """Between a half and the whole of M/M/c, and near Cosmetatos's approximation."""
    cluster, load = Cluster(1, workers, slots=1, max_queue=NO_LIMIT), 0.5
    wait_s = np.mean(run(cluster, drawn(constant), load).latencies_s) - 1
    of_m_m_c_s = mean_wait_s(workers, load, 1)
    assert of_m_m_c_s / 2 < wait_s < of_m_m_c_s
    more = (1 - load) * (workers - 1) * (math.sqrt(4 + 5 * workers) - 2) / (16 * load * workers)
    assert wait_s == pytest.approx(of_m_m_c_s * (1 + more) / 2, rel=0.1)


@pytest.mark.parametrize("work", [exponential, constant, very_uneven])
def test_a_shared_device_answers_alike_on_the_mean_whatever_the_work(work: object) -> None:
    """M/G/1 with processor sharing: the mean depends on the mean work alone."""
    cluster = Cluster(machines=1, slots=NO_LIMIT)
    simulated = run(cluster, drawn(work), 0.6)
    assert np.mean(simulated.latencies_s) == pytest.approx(1 / (1 - 0.6), rel=0.08)


def test_a_shared_device_slows_each_image_alike() -> None:
    simulated = run(Cluster(machines=1, slots=NO_LIMIT), drawn(very_uneven), 0.6)
    slowed = simulated.latencies_s / simulated.work_s
    small = simulated.work_s < 1
    for images in (small, ~small):
        assert np.mean(slowed[images]) == pytest.approx(1 / (1 - 0.6), rel=0.12)


@pytest.mark.parametrize("load", [0.8, 1.5])
def test_a_full_queue_refuses_as_m_m_1_k(load: float) -> None:
    max_queue = 4
    simulated = run(Cluster(1, slots=1, max_queue=max_queue), drawn(exponential), load)
    most = max_queue + 1
    exact = (1 - load) * load**most / (1 - load ** (most + 1))
    assert simulated.refused_share == pytest.approx(exact, rel=0.05)


def test_machines_chosen_at_random_are_queues_of_their_own() -> None:
    cluster = Cluster(20, slots=1, max_queue=NO_LIMIT)
    simulated = run(cluster, drawn(exponential), 0.7)
    assert np.mean(simulated.latencies_s) == pytest.approx(1 / (1 - 0.7), rel=0.06)


def test_two_choices_by_count_are_the_supermarket_model() -> None:
    cluster, load = Cluster(100, slots=1, max_queue=NO_LIMIT), 0.9
    simulated = run(cluster, drawn(exponential), load, "two by count")
    exact_s = sum(load ** (2**at - 2) for at in range(1, 12))
    assert np.mean(simulated.latencies_s) == pytest.approx(exact_s, rel=0.06)


@pytest.mark.slow
def test_small_images_wait_longer_the_less_is_compared_between_machines() -> None:
    cluster = Cluster(10, slots=8, max_queue=NO_LIMIT)
    work_s = drawn(very_uneven)
    by_spread = {spread: run(cluster, work_s, 0.7, spread) for spread in SPREADS}
    p99_s = [by_spread[spread].percentile_s(99) for spread in SPREADS]
    assert p99_s == sorted(p99_s, reverse=True)


def test_the_same_seed_gives_the_same_figures() -> None:
    cluster = Cluster(3)
    first, second = (run(cluster, drawn(exponential), 0.7, "two by count") for _ in range(2))
    np.testing.assert_array_equal(first.latencies_s, second.latencies_s)


def test_the_share_that_waits_is_erlangs_table() -> None:
    assert share_that_waits(1, 0.7) == pytest.approx(0.7)
    assert share_that_waits(2, 0.5) == pytest.approx(1 / 3)
    assert share_that_waits(10, 0.8) == pytest.approx(0.4092, abs=1e-4)


def test_images_of_the_start_are_not_counted_and_refused_ones_have_no_latency() -> None:
    work_s = np.array([1.0] * 20)
    arrived_at_s = np.zeros(20)
    simulated = simulate(Cluster(1, slots=2, max_queue=3), arrived_at_s, work_s, "turns", seed=1)
    assert len(simulated.latencies_s) == 20 - 20 * WARM_UP_SHARE
    assert sum(~np.isnan(simulated.latencies_s)) == 3
    assert simulated.refused_share == pytest.approx(15 / 18)
    assert math.isnan(simulated.percentile_s(99, work_within_s=0.5))
