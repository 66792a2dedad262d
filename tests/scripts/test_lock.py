import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "lock"


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    loader = SourceFileLoader("lock", str(SCRIPT))
    specification = importlib.util.spec_from_loader("lock", loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["nvidia-cublas", "nvidia-nccl-cu13", "cuda-bindings", "triton"])
def test_packages_of_one_accelerator_stay_out(lock: ModuleType, name: str) -> None:
    assert lock.ACCELERATOR_PACKAGES.match(name)


@pytest.mark.parametrize("name", ["torch", "numpy", "cudatext", "tritonclient"])
def test_other_packages_stay_in(lock: ModuleType, name: str) -> None:
    assert not lock.ACCELERATOR_PACKAGES.match(name)


def test_a_requirements_marker_goes_into_the_lock(lock: ModuleType) -> None:
    markers = lock.read_markers(["uvloop>=0.23; sys_platform != 'win32'", "Typing_Extensions>=4"])
    assert markers == {"uvloop": " ; sys_platform != 'win32'"}
