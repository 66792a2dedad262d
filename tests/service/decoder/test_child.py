import mmap
import os
import signal
import subprocess
import sys

import pytest

from upscaled.decoder.child import MIB, limits_of
from upscaled.decoder.pool import is_fault_of_file
from upscaled.process.confinement import measure_address_space


def run_limited(work: str, *, cpu_s: float = 5) -> int:
    """Return the exit status of a process that works under the limits of a small file."""
    program = (
        "import signal\n"
        "from upscaled.decoder.child import FileLimits, constrain\n"
        "from upscaled.process.confinement import measure_address_space\n"
        f"constrain(FileLimits({64 * MIB}, {cpu_s}, {MIB}), measure_address_space())\n"
        f"{work}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    return done.returncode


def test_a_process_that_computes_too_long_is_ended() -> None:
    assert run_limited("while True: pass", cpu_s=0.1) == -signal.SIGPROF


def test_a_process_may_wait_longer_than_it_may_compute() -> None:
    """As one does that other programs of the machine keep from a core."""
    assert run_limited("import time; time.sleep(0.5)", cpu_s=0.1) == 0


@pytest.mark.parametrize(
    "work",
    [
        "bytearray({} * 64 * 2**20 - 2**25)",
        "import os; fd = os.memfd_create('a'); [os.write(fd, bytes(2**20)) for _ in range({})]",
    ],
    ids=["memory", "writing"],
)
def test_no_memory_and_no_address_space_is_allocated_beyond_the_limit(work: str) -> None:
    assert run_limited(work.format(1)) == 0
    assert run_limited(work.format(2)) == 1


def test_limits_of_memory_time_and_result_grow_with_the_image() -> None:
    small, large = limits_of(1000, 64 * 64), limits_of(1000, 6000 * 6000)
    assert large.memory_bytes > small.memory_bytes + 4 * 36_000_000
    assert large.cpu_s > small.cpu_s
    longer = limits_of(9_000_000, 3000 * 3000)
    assert longer.cpu_s >= limits_of(1000, 3000 * 3000).cpu_s + 8
    assert limits_of(25_000_000).cpu_s == limits_of(1000).cpu_s, "a header has no more work"
    assert large.result_bytes > 8 * 36_000_000  # colour and alpha in 16 bits


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
def test_the_measured_address_space_includes_what_is_mapped() -> None:
    """In a mapping of its own: memory that this process has freed may serve an allocation again."""
    before = measure_address_space()
    with mmap.mmap(-1, 64 * MIB) as held:
        after = measure_address_space()
        assert before is not None
        assert after is not None
        assert after - before >= len(held)


def test_a_crash_and_a_limit_are_the_fault_of_the_file() -> None:
    assert is_fault_of_file(-signal.SIGSEGV)
    assert is_fault_of_file(run_limited("import os; os.abort()"))
    assert is_fault_of_file(run_limited("while True: pass", cpu_s=0.1))
    assert is_fault_of_file(run_limited("bytearray(128 * 2**20)"))  # MemoryError


def test_a_kill_and_a_stop_are_not_the_fault_of_the_file() -> None:
    assert not is_fault_of_file(-signal.SIGKILL)
    assert not is_fault_of_file(-signal.SIGHUP)
    assert not is_fault_of_file(-signal.SIGRTMIN)


def test_a_decoder_process_loads_no_http_client() -> None:
    """Which made its start a tenth longer, and has no use where bytes are untrusted."""
    program = (
        "import sys, upscaled.decoder.child; "
        "sys.exit(' '.join({'http.client', 'urllib.request', 'email'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
