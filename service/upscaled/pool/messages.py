"""Messages between the front end and one worker, each the header of a frame.

    front end                     worker
    Configure                 ->
                              <-  WorkerReady, or Unusable and the worker ends
    WorkerJob + source bytes  ->
                              <-  JobProgress ...       (Alive every second, whatever else is sent)
                              <-  ResultPiece + some bytes of the result ...
                              <-  Done + its last bytes | JobRefused | Failed | JobCancelled
    Cancel                    ->

Several jobs may be in flight at once, each by its number. Every job gets exactly one of the four
answers, in no order, unless the worker dies.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, JsonValue, TypeAdapter

from upscaled.pool.executor import UpscaleRequest, WorkerStats
from upscaled.upscale.model_choice import AutoChoice, Rung
from upscaled.upscale.result import Result

ALIVE_EVERY_S: Final = 1.0
"""Time between two `Alive` of a worker, sent from a thread of its own, whatever it works on."""

MAX_RESULT_BYTES: Final = 2**29
"""Limits a result: 6000 x 6000 pixels of 16 bits with alpha are 288 MB uncompressed."""


class Message(BaseModel, frozen=True, extra="forbid"):
    """A message, which has these fields and no others."""


class Configure(Message):
    """Configures a worker with the settings that it needs: no key, no database."""

    kind: Literal["configure"] = "configure"
    settings: dict[str, JsonValue]


class WorkerJob(Message):
    """Job to upscale one image; its encoded bytes are the payload."""

    kind: Literal["job"] = "job"
    job: int
    request: UpscaleRequest


class Cancel(Message):
    """Cancels a job at its next tile, if it is not answered yet."""

    kind: Literal["cancel"] = "cancel"
    job: int


class WorkerReady(Message):
    """Reports that the worker has loaded its models and accepts jobs. Maps have the scales as keys.

    models: the best model of each scale. labels: what runs it and in which precision, as "torch
    float32". ladders: which models `auto` chooses from and for which images, best first. plans: the
    models and settings that the ladders follow from, the same on machines of any speed.
    seconds_per_px: by model name, the device seconds that the worker measured for one input pixel
    of a large image. slots: how many jobs it works on at once.
    """

    kind: Literal["ready"] = "ready"
    device: str
    models: dict[int, str]
    labels: dict[int, str]
    ladders: dict[int, list[Rung]] = {}
    plans: dict[int, str] = {}
    seconds_per_px: dict[str, float] = {}
    slots: int = Field(ge=1)

    @property
    def choice(self) -> AutoChoice:
        """Return the ladders and plans of `auto` on the worker's machine."""
        ladders = {scale: tuple(ladder) for scale, ladder in self.ladders.items()}
        return AutoChoice(plans=self.plans, ladders=ladders)


class Unusable(Message):
    """Reports that the worker cannot start, for a reason that a restart alone will not mend."""

    kind: Literal["unusable"] = "unusable"
    reason: str


class Alive(Message):
    """Reports every `ALIVE_EVERY_S` that the worker does not hang, and its work since its start."""

    kind: Literal["alive"] = "alive"
    stats: WorkerStats = WorkerStats()


class JobProgress(Message):
    """Reports the tiles of a job that are done, from 0 again where the image is begun anew."""

    kind: Literal["progress"] = "progress"
    job: int
    done: int
    total: int


class ResultPiece(Message):
    """Passes a piece of a job's file on, the payload, while other rows are still computed.

    offset: of the piece in the file; 0 where the file is begun, also anew.
    """

    kind: Literal["piece"] = "piece"
    job: int
    offset: int = Field(ge=0)


class Done(Message):
    """Answers with a finished image; the payload is what follows the pieces of its file.

    `result.data` is empty.
    """

    kind: Literal["done"] = "done"
    job: int
    result: Result


class JobRefused(Message):
    """Answers that the image is at fault, with what a client may see of the `ServiceError`."""

    kind: Literal["refused"] = "refused"
    job: int
    error_code: str
    public_text: str


class Failed(Message):
    """Answers that the program is at fault; the reason is for the log."""

    kind: Literal["failed"] = "failed"
    job: int
    reason: str


class JobCancelled(Message):
    """Answers that the job was stopped by a `Cancel`."""

    kind: Literal["cancelled"] = "cancelled"
    job: int


ToWorker = Configure | WorkerJob | Cancel
Answer = Done | JobRefused | Failed | JobCancelled
FromWorker = WorkerReady | Unusable | Alive | JobProgress | ResultPiece | Answer

_TO_WORKER: TypeAdapter[ToWorker] = TypeAdapter(Annotated[ToWorker, Field(discriminator="kind")])
_FROM_WORKER: TypeAdapter[FromWorker] = TypeAdapter(
    Annotated[FromWorker, Field(discriminator="kind")]
)


def encode(message: ToWorker | FromWorker) -> bytes:
    """Return a message as the header of a frame."""
    return message.model_dump_json().encode()


def decode_to_worker(header: bytes) -> ToWorker:
    """Return a message to a worker from its header; ValidationError of pydantic for any other."""
    return _TO_WORKER.validate_json(header)


def decode_from_worker(header: bytes) -> FromWorker:
    """Return a message from a worker from its header; raises as `decode_to_worker`."""
    return _FROM_WORKER.validate_json(header)
