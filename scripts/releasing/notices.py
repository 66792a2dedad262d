"""Third-party notices of a bundle: the licence texts that its wheels carry."""

import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path, PurePosixPath

from scripts.bundling.parts import OWN_PACKAGE, read_licence

_LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice|authors)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Notice:
    """Licence of one package. licence: as its metadata has it; texts: the files it carries."""

    package: str
    version: str
    licence: str
    texts: tuple[str, ...]


def read_notices(archive: Path) -> list[Notice]:
    """Read the notices of every wheel in the bundle `archive` but our own, by name."""
    found = []
    with tarfile.open(archive) as bundle:
        for member in bundle:
            if member.isfile() and member.name.endswith(".whl"):
                wheel = io.BytesIO(read_member(bundle, member.name))
                found.append(_read_wheel_notice(wheel))
    return sorted(
        (notice for notice in found if notice.package != OWN_PACKAGE),
        key=lambda notice: notice.package.lower(),
    )


def read_member(bundle: tarfile.TarFile, name: str) -> bytes:
    """Read one file of a bundle.

    Raises:
        KeyError: it has no file of that name.
    """
    content = bundle.extractfile(name)
    if content is None:
        raise KeyError(f"{name}: not a file")
    return content.read()


def write_notices(notices: list[Notice]) -> str:
    """Lay the notices out as one text; a licence text that several share stands in it once."""
    lines = ["# Packages in this bundle and their licences", ""]
    lines += [f"- {each.package} {each.version}: {_name_licence(each)}" for each in notices]
    first_with: dict[str, str] = {}
    for notice in notices:
        lines += ["", f"## {notice.package} {notice.version}"]
        for text in notice.texts:
            digest = hashlib.sha256(text.encode()).hexdigest()
            owner = first_with.setdefault(digest, notice.package)
            if owner == notice.package:
                lines += ["", text.strip()]
            else:
                lines += ["", f"The same text as in {owner}."]
        if not notice.texts:
            lines += ["", "The package carries no licence text."]
    return "\n".join(lines) + "\n"


def _read_wheel_notice(wheel: io.BytesIO) -> Notice:
    with zipfile.ZipFile(wheel) as archive:
        # Of its own: packages inside it may have some too.
        top = zipfile.Path(archive).iterdir()
        (info,) = [folder for folder in top if folder.name.endswith(".dist-info")]
        package = PathDistribution(info)
        names = sorted(_licence_files(archive.namelist(), PurePosixPath(info.name)))
        texts = tuple(archive.read(name).decode("utf-8", "replace") for name in names)
        return Notice(package.name, package.version, read_licence(package), texts)


def _licence_files(names: list[str], info: PurePosixPath) -> Iterator[str]:
    """Yield the files beside the metadata that hold a licence, wherever its standard puts them."""
    for name in names:
        path = PurePosixPath(name)
        is_beside = info in path.parents and not name.endswith("/")
        if is_beside and (path.parts[1] == "licenses" or _LICENCE_FILE.match(path.name)):
            yield name


def _name_licence(notice: Notice) -> str:
    return notice.licence or "named in the text below only"
