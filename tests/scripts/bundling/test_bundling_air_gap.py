"""A bundle is installed and serves where there is no network; takes minutes, so CI does it.

A bare Debian, a network namespace with nothing but its loopback, and strace watching: neither the
installer nor the service may even try to reach anyone else.
"""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.debian import require_programs
from tests.docker.container import CONTAINER_PROGRAMS, Container
from tests.scripts.bundling.connections import TRACER, outside, reached
from tests.scripts.bundling.making import make_own_model, make_signing_key

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = ROOT / "scripts" / "sample" / "cat.jpg"
PREFIX = "/opt/upscaled"
NAME_SERVER = "192.0.2.53"
SERVICE: dict[str, Any] = {
    "User": "10001:10001",
    "Env": ["UPSCALED_DATA_DIR=/data", "UPSCALED_MODEL_X2=our-own", "PATH=/usr/bin:/bin"],
    "Cmd": [f"{PREFIX}/bin/upscaled", "serve", "--port", "8000"],
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Machine:
    """The machine without a network: `root` is its disk, `traces` what strace wrote, out here."""

    root: Path
    traces: Path

    def run(self, command: Sequence[str], trace: str) -> subprocess.CompletedProcess[str]:
        """Run one command there as root, traced."""
        inside = ["chroot", str(self.root), "env", "-i", "HOME=/root", "PATH=/usr/bin:/bin"]
        traced = [*TRACER, "-o", str(self.traces / trace), *inside, *command]
        root = shlex.quote(str(self.root))
        script = f"""ip link set lo up
            mount --bind /dev {root}/dev
            mount -t proc proc {root}/proc
            exec {shlex.join(traced)}"""
        alone = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
        return subprocess.run(
            [*alone, "sh", "-euc", script], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def install(self, *arguments: str, trace: str) -> subprocess.CompletedProcess[str]:
        (installer,) = self.root.glob("bundle/*/install")
        return self.run([f"/{installer.relative_to(self.root)}", PREFIX, *arguments], trace)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    require_programs("strace", "ssh-keygen", *CONTAINER_PROGRAMS)
    folder = tmp_path_factory.mktemp("air-gap")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def archive(work: Path) -> Path:
    """Make the documented archive: signed, and with a model of the user's own."""
    make_own_model("our-own", work / "models")
    command = [str(ROOT / "scripts" / "bundle"), "--models-dir", str(work / "models")]
    command += ["--sign", str(make_signing_key(work / "key")), "--output", str(work / "dist")]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return Path(finished.stdout.strip())


@pytest.fixture(scope="module")
def machine(work: Path, archive: Path, debian_root: Path) -> Machine:
    """Make a Debian with the unpacked bundle, no pip, and a name server that does not answer."""
    root = work / "root"
    subprocess.run(["cp", "-a", str(debian_root), str(root)], check=True)
    for pip in (*root.glob("usr/lib/python3*/ensurepip"), root / "usr/share/python-wheels"):
        shutil.rmtree(pip)
    (root / "etc" / "resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")
    for folder in ("bundle", "data", "keys"):
        (root / folder).mkdir()
    subprocess.run(["tar", "-C", str(root / "bundle"), "-xf", str(archive)], check=True)
    archive.unlink()  # hundreds of megabytes
    shutil.copy(work / "key.pub", root / "keys")
    shutil.copy(make_signing_key(work / "another").with_suffix(".pub"), root / "keys")
    (work / "traces").mkdir()
    return Machine(root, work / "traces")


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Machine:
    arguments = ["--data-dir", "/data", "--signer", "/keys/key.pub"]
    finished = machine.install(*arguments, trace="install")
    assert finished.returncode == 0, finished.stderr
    serve = f"UPSCALED_DATA_DIR=/data {PREFIX}/bin/upscaled serve --host 0.0.0.0 --port 8000"
    assert serve in finished.stdout
    return machine


@pytest.fixture(scope="module")
def service(installed: Machine, work: Path) -> Iterator[Container]:
    """Run the service there, as a user without rights, on a disk it cannot write to."""
    data = work / "data"
    shutil.copytree(installed.root / "data", data)
    subprocess.run(["chown", "-R", SERVICE["User"], str(data)], check=True)
    tracer = [*TRACER, "-o", str(installed.traces / "serve")]
    container = Container(installed.root, SERVICE, data, work / "log", tracer)
    try:
        _wait_ready(container)
        yield container
    finally:
        container.stop(timeout_s=60)


def _wait_ready(container: Container) -> None:
    deadline_s = time.monotonic() + 180
    ready = ["curl", "-sf", "http://127.0.0.1:8000/readyz"]
    while container.reach(ready).returncode != 0:
        assert container.is_running(), container.log.read_text()
        assert time.monotonic() < deadline_s, container.log.read_text()
        time.sleep(0.3)


def test_the_trace_records_an_attempt_to_connect(machine: Machine) -> None:
    """Show that the trace records a connection, so that an empty trace means none."""
    code = """import socket
for host in ('192.0.2.1', 'upscaled.example'):
    try: socket.create_connection((host, 80), timeout=1)
    except OSError: pass"""
    finished = machine.run(["timeout", "20", "python3", "-c", code], "control")
    assert finished.returncode in (0, 124), finished.stderr
    assert outside(reached(machine.traces / "control")) == {"192.0.2.1", NAME_SERVER}


def test_another_signer_is_refused_before_anything_is_installed(machine: Machine) -> None:
    refused = machine.install("--signer", "/keys/another.pub", trace="another-signer")
    assert refused.returncode == 1
    assert "MANIFEST.sha256 is not signed by the key in /keys/another.pub" in refused.stderr
    assert not (machine.root / PREFIX.lstrip("/")).exists()


def test_a_damaged_wheel_is_refused_by_name_before_anything_is_installed(machine: Machine) -> None:
    (wheel,) = machine.root.glob("bundle/*/wheels/torch-*.whl")
    with wheel.open("r+b") as content:
        content.seek(wheel.stat().st_size // 2)
        (byte,) = content.read(1)
        content.seek(-1, 1)
        content.write(bytes([byte ^ 1]))
        content.flush()
        refused = machine.install(trace="damaged")
        content.seek(-1, 1)
        content.write(bytes([byte]))
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == f"wheels/{wheel.name}: damaged"
    assert not (machine.root / PREFIX.lstrip("/")).exists()


def test_the_installer_opens_no_connection(installed: Machine) -> None:
    assert outside(reached(installed.traces / "install")) == set()


def test_the_models_are_in_the_folder_of_the_service(installed: Machine) -> None:
    command = ["env", "UPSCALED_DATA_DIR=/data", f"{PREFIX}/bin/upscaled", "models", "verify"]
    verified = installed.run(command, "verify")
    assert verified.returncode == 0, verified.stderr
    states = dict(re.findall(r"^(\S+) +(.+?) *$", verified.stdout, re.MULTILINE))
    assert {states[name] for name in ("upscaled-x2", "upscaled-x4", "our-own")} == {"ok"}


def test_a_second_run_installs_nothing(installed: Machine) -> None:
    stamp = installed.root / PREFIX.lstrip("/") / "bin" / "upscaled"
    before = stamp.stat().st_mtime_ns
    again = installed.install("--data-dir", "/data", trace="again")
    assert again.returncode == 0, again.stderr
    assert "is in /opt/upscaled already" in again.stderr
    assert stamp.stat().st_mtime_ns == before


@pytest.mark.parametrize(("scale", "largest_mean"), [(4, 4.0), (2, 255.0)])
def test_a_picture_is_upscaled_over_http(
    service: Container, tmp_path: Path, scale: int, largest_mean: float
) -> None:
    """At scale 4 by the shipped model; at 2 by the user's own, whose weights are drawn."""
    made = service.execute([f"{PREFIX}/bin/upscaled", "keys", "create", f"caller-{scale}"])
    assert made.returncode == 0, made.stderr
    result = tmp_path / "result.jpg"
    client = [sys.executable, str(ROOT / "tests" / "docker" / "client.py")]
    api_key = made.stdout.splitlines()[-1]
    address = "http://127.0.0.1:8000"
    sent = service.reach([*client, address, api_key, str(SAMPLE), str(result), str(scale)])
    assert sent.stdout == "200 image/jpeg\n", sent.stderr + service.log.read_text()
    with Image.open(SAMPLE) as before, Image.open(result) as after:
        assert after.size == (before.width * scale, before.height * scale)
        again = np.asarray(after.resize(before.size, Image.Resampling.BOX), np.int16)
        difference = np.abs(again - np.asarray(before, np.int16)).mean()
    assert difference < largest_mean


def test_the_first_start_took_the_official_weights_of_the_bundle(service: Container) -> None:
    listed = service.execute([f"{PREFIX}/bin/upscaled", "models", "verify"])
    states = dict(re.findall(r"^(\S+) +(.+?) *$", listed.stdout, re.MULTILINE))
    assert states["realesrgan-x4plus"] == "ok", listed.stdout


def test_the_service_opens_no_connection(service: Container, installed: Machine) -> None:
    """Last: start, tuning, work and stop are over."""
    assert service.stop(timeout_s=60) == 0, service.log.read_text()
    addresses = reached(installed.traces / "serve")
    assert outside(addresses) == set()
