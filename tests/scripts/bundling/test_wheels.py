from pathlib import Path

import pytest

from scripts.bundling.target import Target
from scripts.bundling.wheels import UnfitWheel, Wheel, needs_of_all, read_wheel
from tests.scripts.bundling.making import make_wheel

TARGET = Target("3.11", (2, 28), "x86_64", "cpu")


def _make(folder: Path, name: str, *lines: str, **more: str) -> Wheel:
    return read_wheel(make_wheel(folder, name, *lines, **more))


def _names(wheel: Wheel, target: Target, *extras: str) -> list[str]:
    return [need.name for need in wheel.needs(target, extras)]


def test_a_wheel_says_what_it_is(tmp_path: Path) -> None:
    wheel = _make(tmp_path, "Some-Part", "License-Expression: MIT", "Requires-Dist: other>=2")
    assert (wheel.name, str(wheel.version), wheel.licence) == ("some-part", "1.0", "MIT")
    assert [str(need) for need in wheel.requires] == ["other>=2"]
    assert len(wheel.sha256) == 64


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License-Expression: MIT AND BSD-3-Clause", "License: ignored"], "MIT AND BSD-3-Clause"),
        (["License: BSD"], "BSD"),
        (["License: UNKNOWN", "Classifier: License :: OSI Approved :: MIT License"], "MIT License"),
        (["License: a whole text,\n        of two lines"], ""),
        ([], ""),
    ],
)
def test_its_licence_is_found_wherever_it_is_written(
    tmp_path: Path, lines: list[str], licence: str
) -> None:
    assert _make(tmp_path, "part", *lines).licence == licence


def test_needs_are_the_target_s_not_this_machine_s(tmp_path: Path) -> None:
    wheel = _make(
        tmp_path,
        "part",
        "Requires-Dist: always",
        "Requires-Dist: on-arm; platform_machine == 'aarch64'",
        "Requires-Dist: on-windows; sys_platform == 'win32'",
        "Requires-Dist: on-new; python_version >= '3.13'",
    )
    assert _names(wheel, TARGET) == ["always"]
    assert _names(wheel, Target("3.13", (2, 28), "aarch64", "cpu")) == [
        "always",
        "on-arm",
        "on-new",
    ]


def test_extras_bring_their_needs_only_where_asked_for(tmp_path: Path) -> None:
    wheel = _make(tmp_path, "part", "Requires-Dist: decoder; extra == 'heic'")
    assert _names(wheel, TARGET) == []
    assert _names(wheel, TARGET, "heic") == ["decoder"]


def test_needs_are_followed_through_what_is_there(tmp_path: Path) -> None:
    root = _make(tmp_path, "root", "Requires-Dist: driver[fast]; extra == 'db'")
    driver = _make(
        tmp_path, "driver", "Requires-Dist: core; extra == 'fast'", "Requires-Dist: driver[slow]"
    )
    assert needs_of_all(root, [], {}, TARGET) == []
    needs = needs_of_all(root, ["db"], {root.name: root, driver.name: driver}, TARGET)
    assert {need.name for need in needs} == {"driver", "core"}


def test_a_wheel_in_a_version_that_another_does_not_take_is_refused(tmp_path: Path) -> None:
    root = _make(tmp_path, "root", "Requires-Dist: part<1.0")
    part = _make(tmp_path, "part")
    with pytest.raises(UnfitWheel, match=r"root needs part<1\.0, but there is part-1\.0-py3"):
        needs_of_all(root, [], {part.name: part}, TARGET)


def test_the_oldest_c_library_is_the_oldest_of_its_tags(tmp_path: Path) -> None:
    tags = "cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64"
    assert _make(tmp_path, "part", tags=tags).needed_glibc() == (2, 27)
    assert _make(tmp_path, "pure").needed_glibc() is None


def test_a_cuda_build_is_recognised_by_its_dependencies(tmp_path: Path) -> None:
    line = "Requires-Dist: nvidia-cublas==13.0; platform_system == 'Linux'"
    assert _make(tmp_path, "torch", line).is_cuda_build(TARGET)
    assert not _make(tmp_path, "torch", "Requires-Dist: sympy").is_cuda_build(TARGET)


def test_a_damaged_wheel_is_refused_by_name(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, "part")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnfitWheel, match=r"part-1\.0-py3-none-any\.whl: not a readable wheel"):
        read_wheel(path)
