import pytest

from upscaled_models.backends.cuda.tiling import (
    COLUMNS,
    MAX_STAGES,
    MIN_STAGES,
    RESERVED_BYTES,
    choose_tiling,
)

KIB = 1024
H100 = (228 * KIB, 227 * KIB)
A100 = (164 * KIB, 163 * KIB)
RTX_4090 = (100 * KIB, 99 * KIB)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("shared", [H100, A100, RTX_4090])
def test_blocks_fit_the_shared_memory_of_a_multiprocessor(
    columns: int, shared: tuple[int, int]
) -> None:
    tiling = choose_tiling(columns, *shared)

    assert tiling is not None
    assert MIN_STAGES <= tiling.stages <= MAX_STAGES
    assert tiling.shared_bytes <= shared[1]
    assert tiling.resident * (tiling.shared_bytes + RESERVED_BYTES) <= shared[0]
    assert tiling.blocks * tiling.warps_n == columns
    assert tiling.warps % (tiling.warps_n * tiling.warps_x) == 0


def test_two_blocks_share_a_multiprocessor_where_both_fit() -> None:
    sizes = {name: choose_tiling(4, *gpu) for name, gpu in (("h", H100), ("4", RTX_4090))}

    assert {name: each.resident for name, each in sizes.items() if each} == {"h": 2, "4": 1}


def test_too_little_shared_memory_is_reported() -> None:
    assert choose_tiling(8, 48 * KIB, 48 * KIB) is None
