import os
from pathlib import Path

import pytest

from upscaled_models.processor import cores_by_node, divide_cores, usable_cores


def test_parts_differ_by_one_core_at_most_and_keep_neighbours_together() -> None:
    nodes = [{900, 901, 902}, {903, 904}]  # of no real core, so none shares arithmetic units

    assert divide_cores(2, nodes) == [{900, 901}, {902, 903, 904}]
    assert divide_cores(5, nodes) == [{900}, {901}, {902}, {903}, {904}]
    with pytest.raises(ValueError, match="6 parts of 5 cores"):
        divide_cores(6, nodes)


def test_a_node_counts_by_the_cores_that_this_process_may_run_on(tmp_path: Path) -> None:
    usable = sorted(usable_cores())
    for node, cores in enumerate(
        (f"{usable[0]},4000-4003", "4004", ",".join(map(str, usable[1:])))
    ):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}/cpulist").write_text(f"{cores}\n")

    expected = [{usable[0]}, set(usable[1:])] if usable[1:] else [{usable[0]}]
    assert cores_by_node(tmp_path) == expected


def test_nodes_that_lack_a_usable_core_are_read_as_one_node(tmp_path: Path) -> None:
    (tmp_path / "node0").mkdir()
    (tmp_path / "node0/cpulist").write_text("4000\n")

    assert cores_by_node(tmp_path) == [usable_cores()]
    assert cores_by_node(tmp_path / "nowhere") == [set(os.sched_getaffinity(0))]
