"""Files of packages: missing ones are named with the way to install them, changed ones refused."""

from dataclasses import replace

import pytest

from upscaled_models.errors import WeightsError
from upscaled_models.quantise.installed import MissingPackage, PackagedFile, read_packaged

NUMPY = PackagedFile(
    "numpy", "numpy/py.typed", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)


def test_a_package_that_is_not_installed_is_named_with_the_way_to_install_it() -> None:
    missing = replace(NUMPY, package="no-such-package")
    with pytest.raises(MissingPackage, match="no-such-package is not installed: pip install"):
        read_packaged(missing)


def test_a_package_without_the_file_is_named_too() -> None:
    with pytest.raises(MissingPackage, match=r"numpy with numpy/gone\.npz"):
        read_packaged(replace(NUMPY, path="numpy/gone.npz"))


def test_a_file_with_another_hash_is_refused() -> None:
    assert read_packaged(NUMPY) == b""
    with pytest.raises(WeightsError, match=r"py\.typed: SHA-256 is e3b0"):
        read_packaged(replace(NUMPY, sha256="0" * 64))
