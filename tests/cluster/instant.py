"""Workers that answer at once, so that only the way of the bytes to them and back takes time.

instant.py worker --fd N --lifeline M     a worker
instant.py server serve --port 8001       `upscaled serve` with such workers of its own
tests.cluster.instant:build               the deployment of replicas with such workers

Such a worker opens its models as any other, so that front ends and replicas agree; but an image's
result is its source, repeated: twice at x2, four times at x4.
"""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from upscaled.pool.messages import WorkerJob
from upscaled.pool.ray_serve.options import DeploymentArguments, deployment_options
from upscaled.upscale.result import Result, Timings

if TYPE_CHECKING:
    from ray import serve

BUILD = "tests.cluster.instant:build"
SERVER = (sys.executable, __file__, "server")
_WORKER = (sys.executable, str(Path(__file__).resolve()), "worker")


def build(args: DeploymentArguments) -> "serve.Application":
    """Return the application, as that of the product but for its workers."""
    from ray import serve

    from upscaled.pool.ray_serve.replica import UpscaleReplica

    options = deployment_options(args)
    return serve.deployment(**options)(UpscaleReplica).bind(command=_WORKER)


def run_worker() -> None:
    from upscaled.worker import jobs, main

    def repeat(_: jobs.JobThreads, job: WorkerJob, source: bytes) -> Result:
        request = job.request
        width_px, height_px = (
            each * request.scale for each in (request.width_px, request.height_px)
        )
        data, media_type = source * request.scale, request.output.media_type
        took = Timings(0, 0, 0, 0)
        return Result(data, media_type, width_px, height_px, "instant", "instant", took)

    setattr(jobs.JobThreads, "_upscale", repeat)  # noqa: B010  (mypy forbids to assign a method)
    main.main()


def run_server() -> None:
    from upscaled.cli import main, server
    from upscaled.pool.local import LocalPool

    vars(server)["LocalPool"] = partial(LocalPool, command=_WORKER)
    main()


if __name__ == "__main__":
    _, what, *rest = sys.argv
    sys.argv = ["upscaled", *rest]
    {"worker": run_worker, "server": run_server}[what]()
