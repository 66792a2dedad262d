import platform

import pytest

from scripts.bundling.target import (
    CannotBundle,
    Glibc,
    Target,
    parse_manylinux,
    read_target,
    this_platform,
)


def test_a_target_is_read_from_its_tag() -> None:
    target = read_target("manylinux_2_28_aarch64", "3.12", "cuda")
    assert target == Target("3.12", (2, 28), "aarch64", "cuda")


@pytest.mark.parametrize(
    ("tag", "named"),
    [
        ("manylinux_2_28_x86_64", ((2, 28), "x86_64")),
        ("manylinux2014_aarch64", ((2, 17), "aarch64")),
        ("manylinux1_x86_64", ((2, 5), "x86_64")),
        ("linux_x86_64", None),
        ("any", None),
        ("win_amd64", None),
    ],
)
def test_a_tag_names_the_oldest_c_library(tag: str, named: tuple[Glibc, str] | None) -> None:
    assert parse_manylinux(tag) == named


def test_wheels_for_older_c_libraries_suit_under_both_their_names() -> None:
    tags = Target("3.11", (2, 28), "x86_64", "cpu").platform_tags()
    assert tags[:2] == ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"]
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"} < set(tags)
    assert "manylinux_2_29_x86_64" not in tags


def test_an_old_target_has_no_newer_tags() -> None:
    tags = Target("3.11", (2, 12), "x86_64", "cpu").platform_tags()
    assert "manylinux2010_x86_64" in tags
    assert "manylinux2014_x86_64" not in tags


@pytest.mark.parametrize("tag", ["musllinux_1_2_x86_64", "macosx_14_0_arm64", "win_amd64", "x"])
def test_what_the_installer_cannot_serve_is_refused(tag: str) -> None:
    with pytest.raises(CannotBundle, match=f"--platform {tag}: must name a C library"):
        read_target(tag, "3.11", "cpu")


@pytest.mark.parametrize("python", ["3.10", "3", "2.7", "3.11.2", "cp311"])
def test_a_python_that_upscaled_does_not_run_on_is_refused(python: str) -> None:
    with pytest.raises(CannotBundle, match=f"--python {python}: must be 3.11 or newer"):
        read_target("manylinux_2_28_x86_64", python, "cpu")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this machine has no glibc")
def test_this_machine_is_a_target() -> None:
    assert read_target(this_platform(), "3.11", "cpu").machine == platform.machine()
