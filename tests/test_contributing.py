"""CONTRIBUTING.md's list of modules is made of their docstrings' first sentences."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (ROOT / "service" / "upscaled", ROOT / "models" / "upscaled_models")


def first_sentence(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def describe_modules() -> str:
    """One line for each module, under a heading for each folder."""
    lines: list[str] = []
    for package in PACKAGES:
        for folder in sorted({file.parent for file in package.rglob("*.py")}):
            files = [file for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
            if folder.name == "versions" or not files:
                continue
            name = folder.relative_to(package.parent).as_posix()
            lines += ["", f"**`{name}/`** {first_sentence(folder / '__init__.py')}", ""]
            lines += [f"- `{file.stem}`: {first_sentence(file)}" for file in files]
    return "\n".join(lines[1:])


def test_the_list_of_modules_is_the_codes() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.search(r"<!-- modules:.*?-->\n(.*?)\n<!-- /modules -->", guide, re.DOTALL)
    assert found is not None
    expected = describe_modules()
    assert found[1] == expected, f"put this into CONTRIBUTING.md:\n{expected}"


def test_every_module_has_a_sentence_about_what_it_does() -> None:
    silent = [
        file
        for package in PACKAGES
        for file in package.rglob("*.py")
        if file.parent.name != "versions" and not first_sentence(file).endswith((".", ":"))
    ]
    assert silent == []


def test_the_twelve_modules_that_an_upload_is_followed_by_are_there() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.search(r"^Twelve modules are enough.*?\n\n", guide, re.DOTALL | re.MULTILINE)
    assert found is not None
    names = re.findall(r"`([a-z_/]+)`", found[0])
    assert len(names) == 12
    package = ROOT / "service" / "upscaled"
    assert [name for name in names if not (package / f"{name}.py").is_file()] == []
