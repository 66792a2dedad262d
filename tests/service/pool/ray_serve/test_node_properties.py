"""A node's task reports what it is, and whether dead processes are reaped there."""

import platform
import subprocess
import sys
from importlib.metadata import version

import pytest

from upscaled.pool.ray_serve.node_properties import NodeProperties, collect_properties, try_reaping

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# Adopts what its descendants leave, as a container's first process does, and never waits for it.
NEGLIGENT = """
import ctypes
from upscaled.pool.ray_serve.node_properties import try_reaping
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
print(try_reaping())
"""


def test_properties_are_of_this_machine_and_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "not-to-be-shown")
    text = collect_properties()
    properties = NodeProperties.model_validate_json(text)
    assert (properties.python, properties.upscaled) == (
        platform.python_version(),
        version("upscaled"),
    )
    assert properties.environment["RAY_AUTH_MODE"] == "token"
    assert "not-to-be-shown" not in text


def test_an_orphan_whose_new_parent_reaps_is_gone() -> None:
    is_reaped, adopted_by = try_reaping()
    assert is_reaped is True
    assert adopted_by


def test_an_orphan_whose_new_parent_does_not_reap_is_noticed() -> None:
    command = [sys.executable, "-c", NEGLIGENT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("(False, 'python")
