"""Cut a version: set its number, head its changelog section, commit and tag."""

import datetime as dt
import re
import subprocess
from pathlib import Path

from packaging.version import InvalidVersion, Version

VERSION_LINES = {
    "pyproject.toml": re.compile(r'^version = "([^"]+)"$', re.MULTILINE),
    "service/upscaled/__init__.py": re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE),
    "docker/Dockerfile": re.compile(r"^ARG UPSCALED_VERSION=(\S+)$", re.MULTILINE),
}
"""Every file that holds the version, and the line it stands in."""

CHANGELOG = "CHANGELOG.md"
_UNRELEASED = "## [Unreleased]\n"
_NEXT_SECTION = re.compile(r"^## \[", re.MULTILINE)


class CannotRelease(RuntimeError):
    """A version cannot be cut, or nothing made of it; the text says why."""


def cut(root: Path, wanted: str, today: dt.date) -> None:
    """Make the clean clone at `root` version `wanted`: one commit, and the tag `v{wanted}`.

    Raises:
        CannotRelease: `wanted` is no release number above today's, the clone has changes that are
            not committed, the tag exists, or the changelog has nothing to release.
    """
    require_clean(root)
    version = _check_newer(wanted, read_version(root))
    changelog = root / CHANGELOG
    released = head_section(changelog.read_text(), version, today)
    tag = f"v{version}"
    if run_git(root, "tag", "--list", tag):
        raise CannotRelease(f"the tag {tag} exists already")
    changelog.write_text(released)
    for name, line in VERSION_LINES.items():
        path = root / name
        text = path.read_text()
        found = _find_version_line(path, line, text)
        path.write_text(text[: found.start(1)] + str(version) + text[found.end(1) :])
    run_git(root, "commit", "--quiet", "--message", f"Release {version}", "--", *_changed_files())
    run_git(root, "tag", "--annotate", "--message", f"upscaled {version}", tag)


def read_version(root: Path) -> Version:
    """Read the version of the tree at `root`.

    Raises:
        CannotRelease: its files name different ones, or a file names none.
    """
    found = {}
    for name, line in VERSION_LINES.items():
        path = root / name
        found[name] = _find_version_line(path, line, path.read_text())[1]
    if len(set(found.values())) != 1:
        raise CannotRelease(f"the versions differ: {found}")
    return Version(found["pyproject.toml"])


def head_section(changelog: str, version: Version, today: dt.date) -> str:
    """Return the changelog with all that is unreleased under `version`, and an empty section above.

    Raises:
        CannotRelease: nothing is unreleased.
    """
    before, heading, after = changelog.partition(_UNRELEASED)
    section = _NEXT_SECTION.split(after, maxsplit=1)[0]
    if not heading or not section.strip():
        raise CannotRelease(f"{CHANGELOG} has nothing under [Unreleased]")
    return f"{before}{_UNRELEASED}\n## [{version}] - {today.isoformat()}\n{after}"


def read_section(changelog: str, version: Version) -> str:
    """Return what the changelog says of `version`, without its heading.

    Raises:
        CannotRelease: it has no section for that version.
    """
    heading = re.search(rf"^## \[{re.escape(str(version))}\].*\n", changelog, re.MULTILINE)
    if heading is None:
        raise CannotRelease(
            f"{CHANGELOG} has no section [{version}]: first `scripts/release cut VERSION`"
        )
    return _NEXT_SECTION.split(changelog[heading.end() :], maxsplit=1)[0].strip() + "\n"


def require_clean(root: Path) -> None:
    """Refuse a clone with changes: what is published must be what the tag names.

    Raises:
        CannotRelease: something is changed or not tracked.
    """
    if changes := run_git(root, "status", "--porcelain"):
        raise CannotRelease(f"commit or remove first:\n{changes}")


def run_git(root: Path, *arguments: str) -> str:
    """Run git in `root` and return what it prints.

    Raises:
        CannotRelease: git failed; the text is its own.
    """
    finished = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    if finished.returncode != 0:
        raise CannotRelease(f"git {arguments[0]}: {finished.stderr.strip()}")
    return finished.stdout.strip()


def _check_newer(wanted: str, current: Version) -> Version:
    try:
        version = Version(wanted)
    except InvalidVersion as error:
        raise CannotRelease(f"{wanted}: not a version, as 0.2.0 is") from error
    if str(version) != wanted or len(version.release) != 3 or version.is_prerelease:
        raise CannotRelease(f"{wanted}: must be three numbers, as in 0.2.0")
    if version <= current:
        raise CannotRelease(f"{wanted}: must be above {current}, which this is")
    return version


def _find_version_line(path: Path, line: re.Pattern[str], text: str) -> re.Match[str]:
    found = line.search(text)
    if found is None:
        raise CannotRelease(f"{path.name} has no line with the version")
    return found


def _changed_files() -> list[str]:
    return [CHANGELOG, *VERSION_LINES]
