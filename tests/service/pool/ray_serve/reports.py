"""Reports of replicas, for tests."""

from upscaled.pool.executor import ModelStats, WorkerStats
from upscaled.pool.messages import WorkerReady
from upscaled.pool.ray_serve.messages import ReplicaReport
from upscaled.upscale.model_choice import Rung

MODEL = "upscaled-x4"


def report(
    replica: str = "a",
    *,
    accepts: bool = True,
    sha256: str = "a" * 64,
    most_px: int | None = None,
    seconds_per_px: float = 1e-6,
    plan: str = "upscaled-x4 0123",
) -> ReplicaReport:
    """The report of a replica with one worker that has upscaled three batches."""
    return ReplicaReport(
        replica=replica,
        accepts=accepts,
        ready=WorkerReady(
            device="cpu",
            models={4: MODEL},
            labels={4: "torch float32"},
            ladders={4: [Rung(model=MODEL, most_px=most_px)]},
            plans={4: plan},
            seconds_per_px={MODEL: seconds_per_px},
            slots=4,
        ),
        hashes={MODEL: sha256},
        done=WorkerStats(models={MODEL: ModelStats(batches=3)}),
        resident_bytes=[1000],
        waiting=1,
        waiting_most=32,
        keys_waiting=1,
        most_of_one_key=1,
        running=2,
        running_most=4,
        workers_ready=1,
        workers_wanted=1,
        restarts=1,
        failed_starts=0,
    )
