"""The front end's books on its workers: who there is, what they did, and what those before did."""

from collections.abc import Mapping

from upscaled.pool.messages import Ready
from upscaled.pool.stats import EngineInUse, PoolFigures, WorkerFigures
from upscaled.pool.worker_process import WorkerProcess
from upscaled.upscale.model_choice import Rung


class Books:
    """Kept by the pool, which tells it who comes and goes."""

    def __init__(self) -> None:
        self.restarts = 0
        self.failed_starts = 0
        self._present: dict[WorkerProcess, tuple[int, Ready]] = {}
        self._done_before = WorkerFigures()
        self._ladders: dict[int, tuple[Rung, ...]] = {}

    def join(self, number: int, worker: WorkerProcess, ready: Ready) -> None:
        self._present[worker] = (number, ready)
        self._ladders = {scale: tuple(ladder) for scale, ladder in ready.ladders.items()}

    def leave(self, worker: WorkerProcess) -> None:
        """What it did stays counted. It is a restart only if it died by itself."""
        if self._present.pop(worker, None) is not None:
            self._done_before += worker.figures
            self.restarts += worker.gone.is_set()

    def note_failed_start(self) -> None:
        self.failed_starts += 1

    def label(self, worker: WorkerProcess, scale: int) -> str:
        """What runs a scale's model at this worker; "" for one that has left."""
        _, ready = self._present.get(worker, (0, None))
        return ready.labels.get(scale, "") if ready else ""

    def read(
        self,
        *,
        waiting: int,
        waiting_most: int,
        keys_waiting: int,
        most_of_one_key: int,
        running: int,
        workers_wanted: int,
        seconds_per_px: Mapping[tuple[str, int], float] | None = None,
    ) -> PoolFigures:
        """All there is to tell, with what only the pool knows."""
        done = self._done_before
        for worker in self._present:
            done += worker.figures
        return PoolFigures(
            waiting=waiting,
            waiting_most=waiting_most,
            keys_waiting=keys_waiting,
            most_of_one_key=most_of_one_key,
            running=running,
            running_most=sum(ready.places for _, ready in self._present.values()),
            workers_ready=len(self._present),
            workers_wanted=workers_wanted,
            restarts=self.restarts,
            failed_starts=self.failed_starts,
            engines=frozenset(self._engines()),
            done=done,
            resident_bytes={
                number: worker.figures.resident_bytes
                for worker, (number, _) in self._present.items()
            },
            ladders=self._ladders,
            seconds_per_px=seconds_per_px or {},
        )

    def _engines(self) -> set[EngineInUse]:
        return {
            EngineInUse(scale, model, ready.labels.get(scale, ""), ready.device)
            for _, ready in self._present.values()
            for scale, model in ready.models.items()
        }
