"""Other people's images, sound and broken, through the real server: every file, both ways.

`corpus.tsv` says what each is answered at 2x. The outcome was reviewed by eye; a failure prints the
line that would be true now, to be put there after looking at the picture.
`corpus_extra_formats.tsv` says what is answered otherwise where every format is switched on. The
network is a bilinear one, so that the time goes where files differ: into reading, probing and
decoding.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.bilinear_model import add_bilinear_model
from tests.conformance.answer_checks import check_refused
from tests.conformance.listener import Listener, answers, listening
from tests.conformance.raw_http import Reply, Target
from tests.conformance.requesting import perform
from tests.conformance.table import AT_ONCE_S, STATUSES, Refused, json_body
from tests.fuzzing.campaign import Campaign, find_faults
from tests.fuzzing.seeds import make_seeds
from tests.running import Server, serve

TABLE = Path(__file__).with_name("corpus.tsv")
EXTRA_TABLE = Path(__file__).with_name("corpus_extra_formats.tsv")
QUICK_OUTPUT_PIXELS = 3_000_000
QUICK_FILES_OF_A_KIND = 6
SETTINGS = {
    "UPSCALED_MODEL_X2": "bilinear",
    "UPSCALED_THREADS": "1",
    "UPSCALED_RATE_PER_S": "10000",
    "UPSCALED_RATE_BURST": "10000",
    "UPSCALED_SOURCE_PRIVATE_CIDRS": "127.0.0.0/8",
}
BOUNDARY = "corpus-boundary-51c0"
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Outcome:
    """One line of the table. A success has a format and a size, a refusal has an error code."""

    file: str
    sha256: str
    status: str
    error_code: str
    format: str
    width_px: str
    height_px: str


def read_table(table: Path = TABLE) -> list[Outcome]:
    with table.open(newline="") as lines:
        return [Outcome(*line) for line in list(csv.reader(lines, delimiter="\t"))[1:]]


def choose_quick(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The first few files of each folder with each answer, without large results."""
    chosen: dict[tuple[str, str, str], list[Outcome]] = {}
    for wanted in outcomes:
        pixels = int(wanted.width_px or 0) * int(wanted.height_px or 0)
        if pixels <= QUICK_OUTPUT_PIXELS and not wanted.file.startswith("quality/"):
            kind = (wanted.file.rsplit("/", 1)[0], wanted.error_code, wanted.format)
            chosen.setdefault(kind, []).append(wanted)
    return [wanted for alike in chosen.values() for wanted in alike[:QUICK_FILES_OF_A_KIND]]


OUTCOMES = read_table()
QUICK_OUTCOMES = choose_quick(OUTCOMES)
EXTRA_OUTCOMES = {wanted.file: wanted for wanted in read_table(EXTRA_TABLE)}
EVERY_FILE = pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(
            wanted, id=wanted.file, marks=() if wanted in QUICK_OUTCOMES else pytest.mark.slow
        )
        for wanted in OUTCOMES
    ],
)


@pytest.fixture(scope="module")
def images_dir(shared_dir: Path) -> Path:
    return shared_dir / "images"


@pytest.fixture(scope="module")
def server(images_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve_bilinear(tmp_path_factory.mktemp("corpus")) as server:
        yield server


@contextmanager
def serve_bilinear(data_dir: Path, **settings: str) -> Iterator[Server]:
    add_bilinear_model(data_dir)
    chosen: dict[str, Any] = {**SETTINGS, **settings}
    with serve(data_dir, **chosen) as server:
        yield server


@pytest.fixture(scope="module")
def target(server: Server) -> Target:
    return Target(server.url, server.key)


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


def upload(data: bytes, target: Target) -> Reply:
    """A form whose file has no type, and a name without a suffix."""
    lines = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="file"\r\n\r\n',
        f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="scale"\r\n\r\n2\r\n'
        f"--{BOUNDARY}--\r\n",
    )
    headers = [
        ("X-API-KEY", target.api_key),
        ("Accept", "image/*"),
        ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}"),
    ]
    body = lines[0].encode() + data + lines[1].encode()
    return target.send("POST", "/v1/upscale", headers, body)


def fetch(data: bytes, target: Target, listener: Listener, name: str) -> Reply:
    path = f"/{hashlib.sha256(name.encode()).hexdigest()}"
    url = listener.on(path, answers(200, data, "application/octet-stream"))
    return perform(json_body({"image_url": url, "scale": 2}).plus(("Accept", "image/*")), target)


def describe(reply: Reply, file: str, data: bytes) -> Outcome:
    """The line of the table that this reply makes true."""
    sha256 = hashlib.sha256(data).hexdigest()
    if reply.status != 200:
        return Outcome(file, sha256, str(reply.status), reply.json()["error_code"], "", "", "")
    with Image.open(io.BytesIO(reply.body)) as image:
        image.load()
        width_px, height_px = image.size
        return Outcome(file, sha256, "200", "", image.format or "", str(width_px), str(height_px))


def check(reply: Reply, wanted: Outcome, data: bytes) -> None:
    found = describe(reply, wanted.file, data)
    assert found == wanted, "now true:\n" + "\t".join(astuple(found))
    if wanted.error_code:
        check_refused(reply, Refused(wanted.error_code, within_s=AT_ONCE_S))


def stored_files(server: Server) -> set[Path]:
    """Whatever lies in the data folder but the database, which grows as it likes, and the server's
    own probes."""
    files = {path for path in server.data_dir.rglob("*") if path.is_file()}
    files = {path for path in files if path.parent.name != "trial"}
    return {path for path in files if ".db" not in path.name and "sqlite" not in path.name}


@EVERY_FILE
def test_an_uploaded_file_has_the_answer_of_the_table(
    wanted: Outcome, images_dir: Path, target: Target
) -> None:
    data = (images_dir / wanted.file).read_bytes()
    check(upload(data, target), wanted, data)


@EVERY_FILE
def test_a_fetched_file_has_the_answer_of_the_table(
    wanted: Outcome, images_dir: Path, target: Target, listener: Listener
) -> None:
    data = (images_dir / wanted.file).read_bytes()
    check(fetch(data, target, listener, wanted.file), wanted, data)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_with_every_format_enabled_every_file_has_the_answer_of_the_tables(
    images_dir: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    with serve_bilinear(tmp_path, UPSCALED_EXTRA_FORMATS="avif,bmp,heic,tiff") as server:
        target = Target(server.url, server.key)
        for plain in OUTCOMES:
            wanted = EXTRA_OUTCOMES.get(plain.file, plain)
            data = (images_dir / wanted.file).read_bytes()
            check(upload(data, target), wanted, data)
        assert [line for line in server.stderr if '"decoder_died"' in line] == []


def test_damaged_files_are_refused_quickly_and_the_server_keeps_running(server: Server) -> None:
    statistics = Campaign(server, list(make_seeds().values()), seed=1).run(files=100)
    statistics.rss_kib.clear()  # too few files to speak of memory
    assert find_faults(statistics) == []
    assert {"200", "malformed_image"} <= set(statistics.outcomes)


@pytest.mark.parametrize(
    "outcomes",
    [
        pytest.param(QUICK_OUTCOMES, id="some"),
        pytest.param(OUTCOMES, id="all", marks=pytest.mark.slow),
    ],
)
def test_no_refused_file_leaves_a_file_behind(
    outcomes: list[Outcome],
    images_dir: Path,
    server: Server,
    target: Target,
    listener: Listener,
) -> None:
    before = stored_files(server)
    for wanted in outcomes:
        if wanted.error_code:
            data = (images_dir / wanted.file).read_bytes()
            assert upload(data, target).status == int(wanted.status)
            assert fetch(data, target, listener, wanted.file).status == int(wanted.status)
    assert stored_files(server) == before


def test_every_file_of_the_corpus_is_in_the_table(images_dir: Path) -> None:
    found = {
        path.relative_to(images_dir).as_posix()
        for path in images_dir.rglob("*")
        if path.is_file() and path.name != "MANIFEST.tsv"
    }
    assert found == {wanted.file for wanted in OUTCOMES}
    assert EXTRA_OUTCOMES.keys() < found


def test_the_table_holds_no_answer_outside_the_contract() -> None:
    for wanted in (*OUTCOMES, *EXTRA_OUTCOMES.values()):
        if wanted.error_code:
            assert wanted.status == str(STATUSES[wanted.error_code]) == "400", wanted
        else:
            assert wanted.format in ("JPEG", "PNG"), wanted
            assert (wanted.status, int(wanted.width_px) % 2) == ("200", 0), wanted
