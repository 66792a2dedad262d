"""Bombs are refused from their heads: quickly, and without memory for what they promise."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service.decoding.decoder import Decoder
from service.errors import ServiceError
from service.image.sniff import BY_SETTING, ENABLED
from tests.service.bombs import make_bombs

MIB = 1024 * 1024
ALL = ENABLED | BY_SETTING
P99_S = 0.2
PROBE = """
import resource, sys, time
from pathlib import Path
from service.errors import ServiceError
from service.image.probe import probe

def rss_kib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024

folder, formats = Path(sys.argv[1]), frozenset(sys.argv[2].split(","))
probe_of_none = [probe(path.read_bytes(), formats) for path in folder.glob("good.*")]
largest = max(path.stat().st_size for path in folder.iterdir())
bytes(2 * largest)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(folder.glob("bomb*")):
    source = path.read_bytes()
    started = time.perf_counter()
    try:
        probe(source, formats)
        word = "taken"
    except ServiceError as error:
        word = error.error_code
    print(word, time.perf_counter() - started)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, rss_kib())
"""


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    return make_bombs()


def p99(times: list[float]) -> float:
    return sorted(times)[int(0.99 * (len(times) - 1))]


def test_there_are_a_hundred(bombs: dict[str, bytes]) -> None:
    assert len(bombs) >= 100
    heads = {source[:4] for source in bombs.values()}
    assert len(heads) >= 7


def test_the_front_end_refuses_all_of_them_in_little_memory(
    bombs: dict[str, bytes], tmp_path: Path
) -> None:
    """Its largest memory ever grows by less than 5 MiB beyond room for two such files."""
    for number, source in enumerate(bombs.values()):
        (tmp_path / f"bomb{number:03}").write_bytes(source)
    command = [sys.executable, "-c", PROBE, str(tmp_path), ",".join(ALL)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *lines, last = done.stdout.splitlines()
    words = dict(zip(bombs, (line.split()[0] for line in lines), strict=True))
    assert {name for name, word in words.items() if word == "taken"} == set()
    assert p99([float(line.split()[1]) for line in lines]) < P99_S
    assert int(last.split()[0]) < 5 * 1024


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(ALL, processes=1) as decoder:
        yield decoder


def test_the_decoder_refuses_all_of_them_in_little_memory(
    bombs: dict[str, bytes], decoder: Decoder
) -> None:
    """Should one ever come so far: no process dies of it, none swells."""
    decoder.warm_up()
    with pytest.raises(ServiceError):
        decoder.decode(b"nothing")
    process = psutil.Process(decoder.pids()[0])
    idle_bytes = process.memory_info().rss
    times = []
    for name, source in bombs.items():
        started = time.perf_counter()
        with pytest.raises(ServiceError):
            decoder.decode(source)
        times.append(time.perf_counter() - started)
        assert decoder.pids() == [process.pid], name
    status = Path(f"/proc/{process.pid}/status")
    if status.exists():
        (peak_kib,) = (
            line.split()[1] for line in status.read_text().splitlines() if "VmHWM" in line
        )
        assert int(peak_kib) * 1024 - idle_bytes < 64 * MIB
    assert p99(times) < P99_S
