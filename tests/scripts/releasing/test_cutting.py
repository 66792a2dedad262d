import datetime as dt
import subprocess
from pathlib import Path

import pytest
from packaging.version import Version

from scripts.releasing.cutting import CannotRelease, cut, read_section, read_version, run_git

TODAY = dt.date(2030, 1, 2)
CHANGELOG = """\
# Changelog

## [Unreleased]

### Added
- A picture.

## [1.2.3] - 2029-01-01

### Fixed
- A fault.
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Make a clone with nothing in it but what holds a version."""
    for name, text in {
        "pyproject.toml": '[project]\nname = "upscaled"\nversion = "1.2.3"\n',
        "service/upscaled/__init__.py": '"""Doc."""\n\n__version__ = "1.2.3"\n',
        "docker/Dockerfile": "FROM scratch\nARG UPSCALED_VERSION=1.2.3\n",
        "CHANGELOG.md": CHANGELOG,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    run_git(tmp_path, "init", "--quiet")
    run_git(tmp_path, "config", "user.name", "A")
    run_git(tmp_path, "config", "user.email", "a@example.com")
    run_git(tmp_path, "add", "--all")
    run_git(tmp_path, "commit", "--quiet", "--message", "Start")
    return tmp_path


def test_a_cut_sets_the_version_everywhere_and_tags_one_commit(clone: Path) -> None:
    cut(clone, "1.3.0", TODAY)
    assert read_version(clone) == Version("1.3.0")
    assert run_git(clone, "log", "-1", "--format=%s") == "Release 1.3.0"
    assert run_git(clone, "rev-parse", "v1.3.0^{commit}") == run_git(clone, "rev-parse", "HEAD")
    assert run_git(clone, "status", "--porcelain") == ""


def test_a_cut_heads_what_was_unreleased_and_leaves_an_empty_section_for_more(clone: Path) -> None:
    cut(clone, "1.3.0", TODAY)
    text = (clone / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n\n## [1.3.0] - 2030-01-02\n\n### Added\n- A picture.\n" in text
    assert text.endswith(CHANGELOG.partition("- A picture.\n")[2])
    assert read_section(text, Version("1.3.0")) == "### Added\n- A picture.\n"
    assert read_section(text, Version("1.2.3")) == "### Fixed\n- A fault.\n"


def test_a_second_cut_needs_something_new_to_release(clone: Path) -> None:
    cut(clone, "1.3.0", TODAY)
    with pytest.raises(CannotRelease, match=r"nothing under \[Unreleased\]"):
        cut(clone, "1.4.0", TODAY)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("1.2.3", "must be above 1.2.3"),
        ("1.2.2", "must be above 1.2.3"),
        ("1.3", "must be three numbers"),
        ("1.3.0rc1", "must be three numbers"),
        ("v1.3.0", "must be three numbers"),
        ("next", "not a version"),
    ],
)
def test_a_number_that_is_no_release_above_this_one_is_refused(
    clone: Path, wanted: str, reason: str
) -> None:
    with pytest.raises(CannotRelease, match=reason):
        cut(clone, wanted, TODAY)
    assert run_git(clone, "status", "--porcelain") == ""


def test_the_next_patch_is_admitted(clone: Path) -> None:
    cut(clone, "1.2.4", TODAY)
    assert read_version(clone) == Version("1.2.4")


def test_changes_that_are_not_committed_stop_a_cut(clone: Path) -> None:
    (clone / "more").touch()
    with pytest.raises(CannotRelease, match=r"commit or remove first:\n.*more"):
        cut(clone, "1.3.0", TODAY)


def test_a_tag_that_exists_stops_a_cut_before_anything_is_written(clone: Path) -> None:
    run_git(clone, "tag", "v1.3.0")
    with pytest.raises(CannotRelease, match=r"the tag v1\.3\.0 exists"):
        cut(clone, "1.3.0", TODAY)
    assert run_git(clone, "status", "--porcelain") == ""


@pytest.mark.parametrize("name", ["service/upscaled/__init__.py", "docker/Dockerfile"])
def test_files_with_different_versions_are_named(clone: Path, name: str) -> None:
    file = clone / name
    file.write_text(file.read_text().replace("1.2.3", "1.2.4"))
    with pytest.raises(CannotRelease, match=r"the versions differ: .*1\.2\.3.*1\.2\.4"):
        read_version(clone)


def test_a_version_without_a_section_has_not_been_cut() -> None:
    with pytest.raises(CannotRelease, match=r"no section \[1.3.0\]: first `scripts/release cut"):
        read_section(CHANGELOG, Version("1.3.0"))


def test_this_tree_has_one_version() -> None:
    root = Path(__file__).resolve().parents[3]
    printed = subprocess.run(
        [root / ".venv/bin/upscaled", "--version"], check=True, capture_output=True, text=True
    )
    assert printed.stdout == f"upscaled {read_version(root)}\n"
