"""Collect what replicas report, add it up, and find where they would make different pictures."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Final

from pydantic import ValidationError

from upscaled.bucket.endpoint import find_endpoint
from upscaled.config import Settings
from upscaled.logs import event
from upscaled.pool.cost import CostModel
from upscaled.pool.executor import EngineInUse, PoolStats, WorkerStats
from upscaled.pool.ray_serve.messages import ReplicaLost, ReplicaReport, Replicas
from upscaled.upscale.model_choice import Rung

_REPORTS_EVERY_S: Final = 2.0

_GONE_AFTER_S: Final = 10.0
"""Silence after which a replica no longer counts; longer than one request for a report may take."""

_log = logging.getLogger(__name__)


class Reports:
    """The newest report of each replica.

    here, gone: by the replica's name; of those that report, and of those that did. difference: why
    the same file could become another picture elsewhere (`find_difference`).
    """

    def __init__(self, settings: Settings, replicas: Replicas, cost: CostModel) -> None:
        self.here: dict[str, ReplicaReport] = {}
        self.gone: dict[str, ReplicaReport] = {}
        self.difference = ""
        self._settings = settings
        self._replicas = replicas
        self._cost = cost
        self._returned = ""
        self._seen_at: dict[str, float] = {}
        self._has_first = asyncio.Event()

    async def first(self) -> ReplicaReport:
        """Wait, if need be for ever, until a replica has reported; return a report."""
        await self._has_first.wait()
        return next(iter((self.here or self.gone).values()))

    async def watch(self) -> None:
        """Fetch the reports of all replicas repeatedly, until cancelled."""
        while True:
            answers: list[bytes] = []
            with suppress(ReplicaLost):
                answers = await self._replicas.reports()
            self._note(answers)
            await asyncio.sleep(_REPORTS_EVERY_S)

    def _note(self, answers: list[bytes]) -> None:
        """Adopt the newest reports; count a replica without one for a while as gone."""
        now = asyncio.get_running_loop().time()
        difference = ""
        for answer in answers:
            try:
                report = ReplicaReport.model_validate_json(answer)
            except ValidationError:
                difference = "a replica is of another version: its report cannot be read"
                continue
            if report.replica not in self.here:
                self._cost.assume(report.ready)
            self.here[report.replica] = report
            self.gone.pop(report.replica, None)
            self._seen_at[report.replica] = now
        for name in [name for name in self.here if now - self._seen_at[name] > _GONE_AFTER_S]:
            self.gone[name] = self.here.pop(name)
        if self.here:
            self._has_first.set()
        difference = find_difference(tuple(self.here.values())) or difference
        if difference and difference != self.difference:
            _log.error("not ready: %s", difference, extra=event("replicas_differ"))
        self.difference = difference
        self._note_returned()

    def _note_returned(self) -> None:
        """Log each new reason why replicas do not store results in this front end's bucket."""
        reports, url = tuple(self.here.values()), self._settings.results_url
        trouble = find_returning(reports, url, find_endpoint(self._settings.s3_endpoint))
        if trouble and trouble != self._returned:
            fields = event("results_returned")
            _log.warning("results pass through this front end: %s", trouble, extra=fields)
        self._returned = trouble


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
