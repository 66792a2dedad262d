"""Find data files of installed packages without importing the packages.

Their code cannot even be imported beside a current torchvision. Files are checked by SHA-256.
"""

from dataclasses import dataclass
from typing import Final

from upscaled_models.files import find_installed, read_checked

REQUIREMENTS: Final = "scripts/evaluation/requirements.lock"
INSTALL_HINT: Final = (
    f"pip install --no-deps --no-build-isolation --require-hashes -r {REQUIREMENTS} "
    "(in upscaled's environment)"
)
"""The command that installs the packages for measuring, which the service does not need."""


class MissingPackage(Exception):
    """A package that measuring needs is not installed; the text says how to install it."""

    def __init__(self, package: str) -> None:
        super().__init__(f"{package} is not installed: {INSTALL_HINT}")


@dataclass(frozen=True)
class PackagedFile:
    package: str
    path: str
    sha256: str


def read_packaged(file: PackagedFile) -> bytes:
    """Return the content of a package's file.

    Raises:
        MissingPackage: the package is not installed, or lacks the file.
        WeightsError: the file is not the known one, so figures could not be compared.
    """
    path = find_installed(file.package, file.path)
    if path is None:
        raise MissingPackage(file.package)
    if not path.is_file():
        raise MissingPackage(f"{file.package} with {file.path}")
    return read_checked(path, file.sha256)
