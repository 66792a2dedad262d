"""What is likely fastest on a processor, by its instructions: taken where measuring has to wait.

Orders by runtime and type, the likeliest first. Measured by processor time on two cores of an AMD
EPYC (Zen 4), its instructions hidden for the lower rows: seconds per megapixel and core.

| | upscaled-x4 | upscaled-x4, AVX2 alone |
|---|---|---|
| openvino int8 | 1.0 | 1.8 |
| openvino bfloat16 | 1.7 | |
| torch bfloat16 | 2.2 | |
| openvino float32 | 3.5 | 3.6 |
| torch float32 | 3.8 | 4.0 |

Without VNNI, 8-bit products are added up in 16 bits and may saturate (upscaled-x4: 41.0 dB against
float32 instead of 46.4), so 8 bits have to be proven on the machine itself. AMX and NEON were not
at hand: AMX multiplies 8 bits at twice the rate of bfloat16 (Intel, Architecture Instruction Set
Extensions), and of NEON only torch's float32 is taken for granted.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from upscaled_models.autotune.candidates import Candidate
from upscaled_models.families import Family
from upscaled_models.processor import read_processor_flags


class InstructionSet(StrEnum):
    """What a processor computes small networks with, the most capable first."""

    AMX = "AMX"
    AVX512_BF16 = "AVX-512 bf16"
    VNNI = "VNNI"
    AVX2 = "AVX2"
    NEON = "NEON"
    OTHER = "no known instruction set"


_FLAGS: Final[Mapping[InstructionSet, Sequence[str]]] = {
    InstructionSet.AMX: ("amx_int8", "amx_bf16"),
    InstructionSet.AVX512_BF16: ("avx512_bf16", "avx512_vnni"),
    InstructionSet.VNNI: ("avx512_vnni|avx_vnni",),
    InstructionSet.AVX2: ("avx2",),
    InstructionSet.NEON: ("asimd",),
}
"""By Linux's names in `/proc/cpuinfo`; each row needs every word, or one of a pair."""

_FLOAT32: Final = ("openvino float32", "torch float32")
_BFLOAT16: Final = ("openvino bfloat16", "torch bfloat16")

LIKELIEST: Final[Mapping[InstructionSet, Sequence[str]]] = {
    InstructionSet.AMX: ("openvino int8", *_BFLOAT16, *_FLOAT32),
    InstructionSet.AVX512_BF16: ("openvino int8", *_BFLOAT16, *_FLOAT32),
    InstructionSet.VNNI: ("openvino int8", *_FLOAT32),
    InstructionSet.AVX2: _FLOAT32,
    InstructionSet.NEON: ("torch float32",),
    InstructionSet.OTHER: ("torch float32",),
}
"""Labels of candidates; every order ends with float32 by torch, which runs everywhere."""

_REFUSED: Final[Mapping[Family, frozenset[str]]] = {"rrdb": frozenset(_BFLOAT16)}
"""By family, what would only be proven and refused: bfloat16 moves flat colours of x4plus by up to
5 levels."""


EXACT_8_BITS: Final = frozenset(
    {InstructionSet.AMX, InstructionSet.AVX512_BF16, InstructionSet.VNNI}
)
"""Where 8-bit products are added up in 32 bits, as in every proof that comes with a file."""


def find_instruction_set(flags: frozenset[str] | None = None) -> InstructionSet:
    """This processor's, or that of one with such flags."""
    present = read_processor_flags() if flags is None else flags
    for name, needed in _FLAGS.items():
        if all(any(word in present for word in each.split("|")) for each in needed):
            return name
    return InstructionSet.OTHER


def likeliest(family: Family, instructions: InstructionSet | None = None) -> Sequence[str]:
    """Labels of the candidates that may be taken unmeasured, the likeliest first.

    Args:
        instructions: None: of this processor.
    """
    order = LIKELIEST[find_instruction_set() if instructions is None else instructions]
    refused = _REFUSED.get(family, frozenset())
    return [label for label in order if label not in refused]


def likeliest_first(candidates: Sequence[Candidate], order: Sequence[str]) -> list[Candidate]:
    """The same, in the table's order; what the table does not name comes behind it."""

    def rank(candidate: Candidate) -> int:
        return order.index(candidate.label) if candidate.label in order else len(order)

    return sorted(candidates, key=rank)
