"""Add up what replicas report, and find where they would make different pictures."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from upscaled.pool.ray_serve.messages import ReplicaReport
from upscaled.pool.stats import EngineInUse, PoolStats, WorkerStats
from upscaled.upscale.model_choice import Rung


def add_reports(
    here: Sequence[ReplicaReport],
    gone: Sequence[ReplicaReport],
    ladders: Mapping[int, tuple[Rung, ...]],
    seconds_per_px: Mapping[tuple[str, int], float],
) -> PoolStats:
    """Return the statistics of all replicas: those `here`, and the finished work of those `gone`.

    ladders, seconds_per_px: the front end's own.
    """
    ever = (*here, *gone)
    sizes = [size_bytes for report in here for size_bytes in report.resident_bytes]
    return PoolStats(
        waiting=sum(report.waiting for report in here),
        waiting_most=sum(report.waiting_most for report in here),
        keys_waiting=max((report.keys_waiting for report in here), default=0),
        most_of_one_key=max((report.most_of_one_key for report in here), default=0),
        running=sum(report.running for report in here),
        running_most=sum(report.running_most for report in here),
        workers_ready=sum(report.workers_ready for report in here),
        workers_wanted=sum(report.workers_wanted for report in here),
        restarts=sum(report.restarts for report in ever),
        failed_starts=sum(report.failed_starts for report in ever),
        faults=sum(report.faults for report in ever),
        engines=frozenset(
            EngineInUse(scale, model, report.ready.labels.get(scale, ""), report.ready.device)
            for report in here
            for scale, model in report.ready.models.items()
        ),
        done=sum((report.done for report in ever), WorkerStats()),
        resident_bytes=dict(enumerate(sizes)),
        ladders=ladders,
        seconds_per_px=seconds_per_px,
    )


def find_difference(reports: Sequence[ReplicaReport]) -> str:
    """Describe why the same file could become another picture elsewhere; "" where it could not."""
    for one, other in pairwise(reports):
        if one.hashes != other.hashes:
            differing = sorted(dict(one.hashes.items() ^ other.hashes.items()))
            return f"replicas have different files of {', '.join(differing)}"
        for scale, plan in one.ready.plans.items():
            if plan != (others := other.ready.plans.get(scale, "")):
                return f"at x{scale} replicas have different choices for auto: {plan}; {others}"
    return ""


def find_returning(reports: Sequence[ReplicaReport], results_url: str, endpoint: str = "") -> str:
    """Describe why replicas do not store results in the front end's bucket; "" if they do.

    results_url: "" where it stores them in a folder. endpoint: "" for Amazon's.
    """
    if not results_url:
        return ""
    for report in reports:
        if report.results_trouble:
            return f"a replica does not store them: {report.results_trouble}"
        if report.results_url != results_url.rstrip("/"):
            return "a replica has another UPSCALED_RESULTS_URL"
        if report.results_endpoint != endpoint:
            return (
                "a replica reaches the bucket at another endpoint "
                "(UPSCALED_S3_ENDPOINT, or AWS_ENDPOINT_URL_S3 and the like)"
            )
    return ""
