import os
import threading
import tracemalloc
from collections.abc import Iterable
from pathlib import Path, PurePath

import pytest

from tests.service.image.samples import picture, save
from upscaled.batch.discovery import Finder, PictureOnInput, Source, is_pattern, read_names
from upscaled.batch.files import LocalFile


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "in"
    for name in ("b.png", "a.jpg", "sub/c.png", "sub/deep/d.png", ".hidden/e.png", ".f.png"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    return top


def find(*arguments: str | Path, output_dir: Path | None = Path("out")) -> list[Source]:
    return list(Finder(output_dir).find(map(str, arguments)))


def listed(sources: Iterable[Source], top: Path) -> list[tuple[str, str]]:
    """(path below `top`, folder of its result)."""
    names = [(str(source.file), str(source.folder)) for source in sources]
    return [(str(Path(name).relative_to(top)), folder) for name, folder in names]


def test_a_folder_is_mirrored_in_order_without_hidden_names(tree: Path) -> None:
    assert listed(find(tree), tree) == [
        ("a.jpg", "."), ("b.png", "."), ("sub/c.png", "sub"), ("sub/deep/d.png", "sub/deep"),
    ]  # fmt: skip


def test_a_file_named_by_itself_is_written_to_the_top_even_if_hidden(tree: Path) -> None:
    (found,) = find(tree / ".hidden" / "e.png")
    assert found == Source(LocalFile(tree / ".hidden" / "e.png"), PurePath(), is_named=True)


def test_links_to_folders_are_not_followed_and_links_to_files_are(tree: Path) -> None:
    (tree / "sub" / "loop").symlink_to(tree)
    (tree / "z.png").symlink_to(tree / "a.jpg")
    (tree / "self.png").symlink_to("self.png")
    (tree / "broken.png").symlink_to("nowhere")
    names = [name for name, _ in listed(find(tree), tree)]
    assert names == ["a.jpg", "b.png", "z.png", "sub/c.png", "sub/deep/d.png"]
    assert {name for name, _ in listed(find(f"{tree}/**/*.png"), tree)} == {
        "b.png", "z.png", "sub/c.png", "sub/deep/d.png",
    }  # fmt: skip


def test_a_folder_that_is_itself_a_link_is_walked(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree)
    assert len(find(tmp_path / "link")) == 4


@pytest.mark.parametrize("is_by_link", [False, True])
@pytest.mark.parametrize(
    ("inside", "left"), [("sub", ["a.jpg", "b.png"]), ("sub/deep", ["a.jpg", "b.png", "sub/c.png"])]
)
def test_the_output_folder_is_never_walked_as_input(
    tree: Path, tmp_path: Path, inside: str, left: list[str], is_by_link: bool
) -> None:
    output_dir = tree / inside
    if is_by_link:
        (tmp_path / "way").symlink_to(tree)
        output_dir = tmp_path / "way" / inside
    names = [name for name, _ in listed(find(tree, output_dir=output_dir), tree)]
    assert names == left


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.png", ["b.png"]),
        ("*", ["a.jpg", "b.png"]),
        ("*/*.png", ["sub/c.png"]),
        ("**", ["a.jpg", "b.png", "sub/c.png", "sub/deep/d.png"]),
        ("**/*.png", ["b.png", "sub/c.png", "sub/deep/d.png"]),
        ("**/deep/*", ["sub/deep/d.png"]),
        ("s?b/[cd].png", ["sub/c.png"]),
        ("sub/**/*.png", ["c.png", "deep/d.png"]),
    ],
)
def test_a_pattern_keeps_places_below_its_fixed_part(
    tree: Path, pattern: str, names: list[str]
) -> None:
    top = tree / "sub" if pattern.startswith("sub") else tree
    found = find(f"{tree}/{pattern}")
    assert [name for name, _ in listed(found, top)] == names
    assert [str(source.folder / source.file.name) for source in found] == names


@pytest.mark.parametrize("pattern", ["*.webp", "absent/*", f"{'n' * 300}/*"])
def test_a_pattern_that_matches_nothing_is_an_error(tree: Path, pattern: str) -> None:
    (found,) = find(f"{tree}/{pattern}")
    assert isinstance(found.error, FileNotFoundError)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tree: Path) -> None:
    (tree / "[a].png").touch()
    assert not is_pattern(f"{tree}/[a].png")
    assert [source.file.name for source in find(tree / "[a].png")] == ["[a].png"]


def test_a_folder_without_an_output_folder_and_a_missing_one_are_errors(tree: Path) -> None:
    (found,) = find(tree, output_dir=None)
    assert isinstance(found.error, IsADirectoryError)
    (gone,) = Finder(Path("out")).walk(tree / "gone")
    assert isinstance(gone.error, FileNotFoundError)


def test_sources_are_found_folder_by_folder(tree: Path) -> None:
    found = Finder(Path("out")).walk(tree)
    next(found)
    (tree / "sub" / "late.png").touch()  # not listed yet
    assert "late.png" in [source.file.name for source in found]


def test_memory_does_not_grow_with_the_number_of_folders(tmp_path: Path) -> None:
    for folder in range(20):
        (tmp_path / f"{folder:03}").mkdir()
        for number in range(50):
            (tmp_path / f"{folder:03}" / f"{number}.png").touch()
    # Threads that other tests left may allocate meanwhile: the least of three counts.
    peak_bytes = min(_walk_traced(tmp_path, 20 * 50) for _ in range(3))
    assert peak_bytes < 60_000, "1000 paths would be 200 kB"


def _walk_traced(folder: Path, files: int) -> int:
    """The most memory that was allocated during a walk, in bytes."""
    found = Finder(Path("out")).walk(folder)
    next(found)
    tracemalloc.start()
    try:
        assert sum(1 for _ in found) == files - 1
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def names_of(data: bytes, separator: bytes) -> list[str]:
    reading, writing = os.pipe()
    try:
        os.write(writing, data)
        os.close(writing)
        return list(read_names(reading, separator, threading.Event()))
    finally:
        os.close(reading)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_list_has_a_name_on_each_line(end: bytes) -> None:
    assert names_of(b"a.png\n\nb c.png\n-\n*.png" + end, b"\n") == [
        "a.png", "b c.png", "-", "*.png",
    ]  # fmt: skip


def test_a_list_may_end_names_in_nul_so_that_they_hold_anything() -> None:
    assert names_of(b"a\nb.png\0\xff.png\0", b"\0") == ["a\nb.png", os.fsdecode(b"\xff.png")]


def test_names_of_a_list_are_no_patterns(tree: Path) -> None:
    finder = Finder(Path("out"), [str(tree / "*.png"), str(tree / "a.jpg"), str(tree)])
    found = list(finder.find(["-"]))
    assert [source.file.name for source in found] == [
        "*.png", "a.jpg", "a.jpg", "b.png", "c.png", "d.png",
    ]  # fmt: skip


def test_a_list_that_does_not_end_is_left_when_the_batch_is_over() -> None:
    reading, writing = os.pipe()
    is_over = threading.Event()
    names: list[str] = []

    def read() -> None:
        names.extend(read_names(reading, b"\n", is_over))

    reader = threading.Thread(target=read)
    reader.start()
    os.write(writing, b"a.png\nhalf")
    is_over.set()
    reader.join(60)
    os.close(writing)
    os.close(reading)
    assert not reader.is_alive()
    assert "half" not in names


@pytest.mark.parametrize("name", ["BMW.png", "P5 final.jpg", "FLIF.png", "%PDF-.png", "GIF89a.jpg"])
@pytest.mark.parametrize("separator", [b"\n", b"\0"])
def test_names_that_begin_like_a_picture_are_names(name: str, separator: bytes) -> None:
    listed = separator.join((name.encode(), b"b.png", b""))
    assert names_of(listed, separator) == [name, "b.png"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_a_picture_where_names_belong_is_refused(kind: str) -> None:
    with pytest.raises(PictureOnInput, match=f"standard input is a {kind} picture"):
        names_of(save(picture(), kind), b"\n")


def test_bytes_that_are_no_names_are_failures_of_their_own(tmp_path: Path) -> None:
    names = ["a\0b", "x" * 5000, "/".join(["y" * 200] * 30)]
    sources = list(Finder(tmp_path / "out", names).find(["-"]))
    assert [source.is_named for source in sources] == [True] * 3
    assert str(sources[0].error) == "[Errno 22] is no file name"
