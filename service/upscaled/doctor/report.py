"""What the golden run reports while it goes, a line of JSON each."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from upscaled.upscale.model_choice import Rung


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Platform(_Report):
    """What there is to compute with. openvino: its version, or why it cannot be used.
    gpus: name and memory of each that torch sees. cuda: what torch was built for; "" for none.
    """

    kind: Literal["platform"] = "platform"
    torch: str
    cuda: str
    openvino: str
    is_openvino_usable: bool
    gpus: list[str]


class Opened(_Report):
    """An engine is open. is_chosen: a start would open just this one, without measuring.
    unsettled: why what was chosen is to be measured again; "" where it is not.
    """

    kind: Literal["opened"] = "opened"
    scale: int
    model: str
    label: str
    proof: str
    window_px: int
    is_chosen: bool
    unsettled: str = ""
    seconds: float


class Ladders(_Report):
    """By scale, which pictures go to which model, best first."""

    kind: Literal["ladders"] = "ladders"
    ladders: dict[int, list[Rung]]


class Made(_Report):
    """A golden picture went the whole way. psnr_db: against what it must be, None where that is
    not known for this model; is_plausible: everywhere the source's colours, and its size.
    """

    kind: Literal["made"] = "made"
    scale: int
    model: str
    psnr_db: float | None
    is_plausible: bool
    decode_s: float
    network_s: float
    encode_s: float


class Connections(_Report):
    """What was tried to be reached, and whether the kernel was asked or only Python."""

    kind: Literal["connections"] = "connections"
    is_isolated: bool
    targets: list[str]
    lost_packets: int


class Trouble(_Report):
    """Why it goes no further. step: "engine" or "golden picture"."""

    kind: Literal["trouble"] = "trouble"
    step: str
    text: str


Report = Platform | Opened | Ladders | Made | Connections | Trouble
_READER: TypeAdapter[Report] = TypeAdapter(Annotated[Report, Field(discriminator="kind")])


def read_report(line: bytes | str) -> Report:
    """
    Raises:
        ValueError: it is none.
    """
    return _READER.validate_json(line)
