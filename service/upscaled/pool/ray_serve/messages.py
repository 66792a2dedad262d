"""Messages between a front end and a replica: JSON in bytes, with the image's bytes beside them.

    front end                        replica
    WorkerJob, source bytes      ->
                                 <-  Busy at once where the queue refuses it; else
                                     Alive at once, and every second in which nothing else is sent
                                 <-  JobProgress ...
                                 <-  Done, result bytes (none where it has stored them itself)
                                     | JobRefused | Failed | DeviceFaultMessage | Busy
    (asks each replica for it)   <-  ReplicaReport

Ray pickles what it carries, and an unpickled object of ours could do anything: bytes cannot.
"""

from collections.abc import AsyncGenerator
from typing import Annotated, Final, Literal, Protocol

from pydantic import Field, TypeAdapter

from upscaled.errors import RefusalReason
from upscaled.pool.executor import WorkerStats
from upscaled.pool.messages import (
    Alive,
    Done,
    Failed,
    JobProgress,
    JobRefused,
    Message,
    WorkerReady,
)

APPLICATION: Final = "upscaled"
DEPLOYMENT: Final = "UpscaleReplica"

# Ray Serve's own names.
CONTROLLER: Final = "SERVE_CONTROLLER_ACTOR"
NAMESPACE: Final = "serve"

ONLY_JOB: Final = 0
"""The number in messages about a job: each call of a replica is about one."""


class ReplicaLost(Exception):
    """A replica died, hung or was replaced while it upscaled an image; another can upscale it."""


class NoReplicaFree(Exception):
    """Ray refused a call: every replica has as many calls as it may have."""


class Busy(Message):
    """Answers that the replica's request queue refused the image; fields as `RateLimitExceeded`."""

    kind: Literal["busy"] = "busy"
    retry_after_s: int
    reason: RefusalReason
    detail: str = ""


class DeviceFaultMessage(Message):
    """Answers that the replica's device failed the image, and that it has no other to try.

    replica: its name, as in `ReplicaReport`.
    """

    kind: Literal["device_fault"] = "device_fault"
    replica: str
    reason: str


class ReplicaReport(Message):
    """Reports the state of a replica: its workers' models, and its part of `PoolStats`.

    replica: an id made at its start. accepts: an image sent now would be worked on. hashes: the
    SHA-256 of every model's file that it has, by name. results_url: where it stores results itself;
    results_trouble: why it does not.
    """

    replica: str
    accepts: bool
    ready: WorkerReady
    hashes: dict[str, str]
    results_url: str = ""
    results_endpoint: str = ""
    results_trouble: str = ""
    done: WorkerStats
    resident_bytes: list[int]
    waiting: int
    waiting_most: int
    keys_waiting: int
    most_of_one_key: int
    running: int
    running_most: int
    workers_ready: int
    workers_wanted: int
    restarts: int
    failed_starts: int
    faults: int = 0


ReplicaMessage = Alive | JobProgress | Done | JobRefused | Failed | Busy | DeviceFaultMessage

_FROM_REPLICA: TypeAdapter[ReplicaMessage] = TypeAdapter(
    Annotated[ReplicaMessage, Field(discriminator="kind")]
)


def frame(message: ReplicaMessage, payload: bytes = b"") -> tuple[bytes, bytes]:
    return message.model_dump_json().encode(), payload


def decode_from_replica(header: bytes) -> ReplicaMessage:
    """Return a replica's message from its JSON; ValidationError of pydantic where it is none."""
    return _FROM_REPLICA.validate_json(header)


class Replicas(Protocol):
    """The replicas of a deployment, as a front end reaches them."""

    async def start(self) -> None:
        """Connect in the background, and again whenever the deployment is made anew."""

    async def stop(self) -> None:
        """End each call with `ReplicaLost`, and disconnect."""

    def upscale(self, job: bytes, source: bytes) -> AsyncGenerator[tuple[bytes, bytes], None]:
        """Yield a replica's messages about one image; closing the iterator cancels the work.

        Raises:
            ReplicaLost, NoReplicaFree: see there.
            InternalError: the program of the replica is at fault.
        """

    async def reports(self) -> list[bytes]:
        """Return a `ReplicaReport` of every replica that answers in time.

        Raises:
            ReplicaLost: the cluster cannot be reached, or no replica runs.
        """
