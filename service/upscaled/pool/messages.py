"""What may stand in a frame's header: the conversation of the front end with one worker.

    front end                     worker
    Configure                 ->
                              <-  Ready, or Unusable and the worker ends
    Job + source bytes        ->
                              <-  Progress ...          (Alive every second, whatever else is said)
                              <-  Done + result bytes | Refused | Failed | Cancelled
    Cancel                    ->

Several jobs may be under way at once, each by its number. Every job gets exactly one of the four
answers, in no order, unless the worker dies.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from upscaled.image.output import OutputSpec
from upscaled.pool.stats import WorkerFigures
from upscaled.upscale.model_choice import Rung


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Configure(_Message):
    """The settings a worker needs: no key, no database."""

    kind: Literal["configure"] = "configure"
    settings: dict[str, JsonValue]


class Job(_Message):
    """One image to upscale; its encoded bytes are the payload.

    `key_id`: the API key that sent it; the images of one key share what it gets of the device.
    `output`: what its result is to be, decided from its header.
    `model`: the one that was asked for by name; "" for the best this machine can afford.
    """

    kind: Literal["job"] = "job"
    job: int
    request_id: str
    scale: int
    output: OutputSpec
    key_id: int = 0
    model: str = ""


class Cancel(_Message):
    """Stop this job at its next tile, if it is not answered yet."""

    kind: Literal["cancel"] = "cancel"
    job: int


class Ready(_Message):
    """Models are loaded and warm. Maps have the scales as keys unless they say otherwise.

    `labels`: what runs each model and in which precision, as "torch float32".
    `seconds_per_px`: what the warm-up took for one input pixel; a first guess of the pace.
    `ladders`: by scale, which models `auto` chooses from and for which pictures, best first.
    `model_seconds_per_px`: device seconds for one input pixel of a large picture, by model name.
    `places`: how many jobs it takes at once.
    """

    kind: Literal["ready"] = "ready"
    device: str
    models: dict[int, str]
    labels: dict[int, str]
    seconds_per_px: dict[int, float]
    ladders: dict[int, list[Rung]] = {}
    model_seconds_per_px: dict[str, float] = {}
    places: int = Field(ge=1)


class Unusable(_Message):
    """The worker cannot start, for a reason that a restart alone will not mend."""

    kind: Literal["unusable"] = "unusable"
    reason: str


class Alive(_Message):
    """Sent every second: a worker that falls silent hangs. `figures`: since it was started."""

    kind: Literal["alive"] = "alive"
    figures: WorkerFigures = WorkerFigures()


class Progress(_Message):
    kind: Literal["progress"] = "progress"
    job: int
    done: int
    total: int


class Done(_Message):
    """The finished image's facts; its encoded bytes are the payload.

    `network_s` is the time between decoding and encoding, in turn with other images; `device_s`
    what this image alone had of the device. `tempered_with`: the faithful model that the result of
    `model` was mixed with, or "". `label`: what ran `model` and in which precision.
    """

    kind: Literal["done"] = "done"
    job: int
    media_type: str
    width_px: int
    height_px: int
    model: str
    tempered_with: str = ""
    label: str = ""
    decode_s: float
    network_s: float
    encode_s: float
    device_s: float


class Refused(_Message):
    """The image is at fault: the two values of a `ServiceError` that a client may see."""

    kind: Literal["refused"] = "refused"
    job: int
    error_code: str
    public_text: str


class Failed(_Message):
    """The program is at fault: `reason` is for the log."""

    kind: Literal["failed"] = "failed"
    job: int
    reason: str


class Cancelled(_Message):
    kind: Literal["cancelled"] = "cancelled"
    job: int


ToWorker = Configure | Job | Cancel
Answer = Done | Refused | Failed | Cancelled
FromWorker = Ready | Unusable | Alive | Progress | Answer

_TO_WORKER: TypeAdapter[ToWorker] = TypeAdapter(Annotated[ToWorker, Field(discriminator="kind")])
_FROM_WORKER: TypeAdapter[FromWorker] = TypeAdapter(
    Annotated[FromWorker, Field(discriminator="kind")]
)


def encode(message: ToWorker | FromWorker) -> bytes:
    return message.model_dump_json().encode()


def decode_to_worker(header: bytes) -> ToWorker:
    """Raises `pydantic.ValidationError` for anything else."""
    return _TO_WORKER.validate_json(header)


def decode_from_worker(header: bytes) -> FromWorker:
    """Raises `pydantic.ValidationError` for anything else."""
    return _FROM_WORKER.validate_json(header)
