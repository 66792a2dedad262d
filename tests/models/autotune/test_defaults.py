import pytest

from tests.models.autotune.fakes import NOTHING_TRIED, FakeEngine, FakeMeter, Levels, candidate
from upscaled_models.accuracy import RECORDED_BAR
from upscaled_models.autotune.cache import Choice
from upscaled_models.autotune.candidates import Candidate
from upscaled_models.autotune.defaults import (
    LIKELIEST,
    choose_likeliest,
    likeliest,
    likeliest_first,
)
from upscaled_models.autotune.space import SearchSpace, Sizes
from upscaled_models.processor import InstructionSet, find_instruction_set

LABELS = ("torch bfloat16", "openvino float32", "openvino bfloat16", "openvino int8")
SLOW = 125e-6
"""Seconds for a pixel, as x4plus in float32 on two cores."""


def candidates(**broken: FakeEngine) -> list[Candidate]:
    """One candidate for each label; backends and types are only names here."""
    made = []
    for label in LABELS:
        backend, dtype = label.split()
        engine = broken.get(dtype, FakeEngine(seconds_per_px=SLOW / 5))
        bare = candidate(engine, dtype, RECORDED_BAR if dtype == "int8" else FLOAT_BAR)
        made.append(Candidate(backend, dtype, bare.threads, bare.version, bare.bar, bare.open))
    return made


FLOAT_BAR = candidate().bar


def take(
    instructions: InstructionSet, meter: FakeMeter, reference: FakeEngine, **broken: FakeEngine
) -> Choice:
    space = SearchSpace(
        candidate(reference, "float32"),
        likeliest_first(candidates(**broken), likeliest("plain", instructions)),
        Sizes((256, 128), (1,)),
        is_slow=True,
    )
    order = likeliest("plain", instructions)
    return choose_likeliest(space, order, "no time", meter, NOTHING_TRIED)[0]


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("avx2 avx512_vnni avx512_bf16 amx_int8 amx_bf16", InstructionSet.AMX),
        ("avx2 avx512_vnni avx512_bf16", InstructionSet.AVX512_BF16),
        ("avx2 avx512_vnni", InstructionSet.VNNI),
        ("avx2 avx_vnni", InstructionSet.VNNI),
        ("avx2 fma", InstructionSet.AVX2),
        ("fp asimd", InstructionSet.NEON),
        ("sse2", InstructionSet.OTHER),
    ],
)
def test_a_processor_is_known_by_its_most_capable_instructions(
    flags: str, found: InstructionSet
) -> None:
    assert find_instruction_set(frozenset(flags.split())) is found


def test_every_order_ends_with_what_runs_everywhere() -> None:
    assert set(LIKELIEST) == set(InstructionSet)
    assert all(order[-1] == "torch float32" for order in LIKELIEST.values())


def test_8_bits_are_a_default_only_where_their_sums_cannot_saturate() -> None:
    safe = {each for each in InstructionSet if "openvino int8" in likeliest("plain", each)}
    assert safe == {InstructionSet.AMX, InstructionSet.AVX512_BF16, InstructionSet.VNNI}


def test_a_type_too_inaccurate_for_a_family_is_not_tried_at_a_start() -> None:
    assert "openvino bfloat16" in likeliest("plain", InstructionSet.AMX)
    assert likeliest("rrdb", InstructionSet.AMX) == [
        "openvino int8",
        "openvino float32",
        "torch float32",
    ]


def test_candidates_are_in_the_order_of_the_table_and_complete() -> None:
    def ordered(instructions: InstructionSet) -> list[str]:
        order = likeliest("plain", instructions)
        return [each.label for each in likeliest_first(candidates(), order)]

    assert ordered(InstructionSet.AVX512_BF16) == [
        "openvino int8",
        "openvino bfloat16",
        "torch bfloat16",
        "openvino float32",
    ]
    assert ordered(InstructionSet.AVX2)[0] == "openvino float32"
    assert set(ordered(InstructionSet.AVX2)) == set(LABELS)
    assert [each.label for each in likeliest_first(candidates(), ())] == list(LABELS)


def test_a_slow_model_with_a_recorded_proof_costs_a_start_little_float32() -> None:
    """One picture of 64 px in float32: everything else is the candidate itself."""
    meter, reference = FakeMeter(), FakeEngine(seconds_per_px=SLOW)

    choice = take(InstructionSet.AVX512_BF16, meter, reference)

    assert (choice.runtime, choice.dtype) == ("openvino", "int8")
    assert choice.ns_per_px == pytest.approx(SLOW / 5 * 1e9)
    assert reference.shapes == [(1, 64, 64, 3)]
    assert choice.is_from_table
    assert not choice.is_settled
    assert choice.untried == [
        *(f"{label} on 1 threads" for label in ("openvino bfloat16", "torch bfloat16")),
        *(f"{label} on 1 threads" for label in ("openvino float32", "fake float32")),
    ]


def test_a_default_with_a_wrong_picture_is_refused() -> None:
    def noise(levels: Levels) -> Levels:
        return levels[:, ::-1]

    wrong = FakeEngine(noise, SLOW / 5)
    choice = take(InstructionSet.VNNI, FakeMeter(), FakeEngine(seconds_per_px=SLOW), int8=wrong)

    assert choice.dtype == "float32"
    assert choice.runtime == "openvino"
    assert "dB of the 25" in choice.refused["openvino int8 on 1 threads"]


def test_float32_is_the_default_where_no_other_works() -> None:
    wrong = FakeEngine(lambda levels: levels * 0, SLOW)
    choice = take(
        InstructionSet.VNNI, FakeMeter(), FakeEngine(seconds_per_px=SLOW), int8=wrong, float32=wrong
    )

    assert (choice.runtime, choice.dtype, choice.proof) == ("fake", "float32", None)
