import io
import tarfile
import zipfile
from pathlib import Path

from scripts.releasing.notices import Notice, read_notices, write_notices


def _wheel(name: str, files: dict[str, str], *metadata: str) -> tuple[str, bytes]:
    content = io.BytesIO()
    info = f"{name}-1.0.dist-info"
    head = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *metadata]
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"{info}/METADATA", "\n".join(head) + "\n\n")
        archive.writestr(f"{name}/LICENSE.py", "no licence")
        for path, text in files.items():
            archive.writestr(f"{info}/{path}", text)
    return f"{name}-1.0-py3-none-any.whl", content.getvalue()


def _bundle(folder: Path, *wheels: tuple[str, bytes]) -> Path:
    archive = folder / "bundle.tar"
    with tarfile.open(archive, "w") as bundle:
        for name, content in wheels:
            member = tarfile.TarInfo(f"bundle/wheels/{name}")
            member.size = len(content)
            bundle.addfile(member, io.BytesIO(content))
    return archive


def test_licences_are_found_in_old_and_in_new_wheels(tmp_path: Path) -> None:
    old = _wheel("older", {"COPYING": "old text", "RECORD": ""}, "License: BSD")
    new = _wheel("newer", {"licenses/sub/FILE": "new text"}, "License-Expression: MIT")
    none = _wheel("without", {"top_level.txt": "without"})
    assert read_notices(_bundle(tmp_path, old, none, new)) == [
        Notice("newer", "1.0", "MIT", ("new text",)),
        Notice("older", "1.0", "BSD", ("old text",)),
        Notice("without", "1.0", "", ()),
    ]


def test_our_own_wheel_is_no_third_party(tmp_path: Path) -> None:
    own = _wheel("upscaled", {"licenses/LICENSE": "ours"}, "License-Expression: Apache-2.0")
    assert read_notices(_bundle(tmp_path, own)) == []


def test_a_licence_text_shared_by_several_packages_is_printed_once() -> None:
    notices = [Notice(name, "1", "MIT", ("as is",)) for name in ("a", "b")]
    text = write_notices([*notices, Notice("c", "1", "", ())])
    assert text.count("as is") == 1
    assert "## b 1\n\nThe same text as in a.\n" in text
    assert "- c 1: named in the text below only\n" in text
    assert text.endswith("## c 1\n\nThe package carries no licence text.\n")
