"""SECURITY.md's statements about what the product never calls."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted([*(ROOT / "service").rglob("*.py"), *(ROOT / "models").rglob("*.py")])
DECODING = {"imread", "imreadmulti", "imdecode", "imdecodemulti", "VideoCapture", "dnn"}


def attributes_of_opencv(tree: ast.AST) -> set[str]:
    """Return what a module takes from cv2, by attribute or by import."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "cv2":
                found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cv2":
            found.update(alias.name for alias in node.names)
    return found


def test_the_product_decodes_nothing_with_opencv() -> None:
    found = {path: attributes_of_opencv(ast.parse(path.read_text())) for path in MODULES}
    assert any(found.values())  # or the scan finds nothing at all
    assert {str(path): names & DECODING for path, names in found.items() if names & DECODING} == {}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import cv2\ncv2.imdecode(data, 1)", {"imdecode"}),
        ("from cv2 import VideoCapture", {"VideoCapture"}),
    ],
)
def test_the_scan_finds_calls_by_attribute_and_by_imported_name(code: str, names: set[str]) -> None:
    assert attributes_of_opencv(ast.parse(code)) == names


def test_the_findings_name_what_the_wheel_really_contains() -> None:
    import cv2

    libraries = Path(cv2.__file__).parents[1] / "opencv_python_headless.libs"
    if not libraries.is_dir():
        pytest.skip("OpenCV is not the pinned wheel")
    names = {path.name.partition("-")[0] for path in libraries.iterdir()}
    stated = (ROOT / "SECURITY.md").read_text()
    for library in ("libssl", "libcrypto", "libavcodec", "libavformat"):
        assert (library in names) == (f"`{library}`" in stated)
