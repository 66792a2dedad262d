"""The real `upscaled serve`, in a process of its own, for tests that need all of it.

    with serve(tmp_path, UPSCALED_RATE_PER_S="1000") as server:
        requests.get(server.url + "/healthz")
        server.key                                  # an API key that works

Nothing of the environment's `UPSCALED_*` reaches it. It computes in float32 unless a test sets
another precision: the same picture on every machine, and no first start that measures. For the same
reason it takes no models out of an installed package unless a test sets that.
"""

import os
import pty
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.databases import SQLITE_FILE, make_tables

REPOSITORY_DIR = Path(__file__).resolve().parents[1]
UPSCALED = (sys.executable, "-c", "from upscaled.cli import main; main()")
NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
"""Before a command, and it has no more rights than any other user's processes (Linux)."""


class ServerDied(Exception):
    """The server ended before it was ready; the text is what it printed."""


@dataclass
class Server:
    """A running server. `stdout` and `stderr` grow while it runs; `announced`: it said "ready"."""

    process: subprocess.Popen[str]
    data_dir: Path
    environment: Mapping[str, str]
    url: str = ""
    key: str = ""
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    announced: threading.Event = field(default_factory=threading.Event)
    tls: ssl.SSLContext | None = None

    def run(self, *arguments: str) -> str:
        """The standard output of another `upscaled` command on the same data."""
        return run_upscaled(self.environment, *arguments).stdout

    def create_key(self, name: str, *, credits: int = 0) -> str:
        """A further API key."""
        return self.run("keys", "create", name, "--credits", str(credits)).split()[-1]

    def front_end(self) -> psutil.Process:
        """The process that answers; `process` is its supervisor."""
        (front_end,) = psutil.Process(self.process.pid).children()
        return front_end

    def is_ready(self) -> bool:
        return self._status("/readyz") == 200

    def wait_ready(self, timeout_s: float = 100) -> None:
        """Wait until it says so and `GET /readyz` agrees; raises `ServerDied` or `TimeoutError`."""
        self._wait_until(lambda: self.announced.is_set() and self.is_ready(), timeout_s)

    def wait_listening(self, timeout_s: float = 100) -> None:
        """Wait until the service answers at all; its models may still be loading."""
        self._wait_until(lambda: bool(self.url) and self._is_live(), timeout_s)

    def wait_said(self, text: str, timeout_s: float = 100) -> None:
        """Wait for `text` in a line of standard error."""
        self._wait_until(lambda: any(text in line for line in self.stderr), timeout_s)

    def stop(self, sig: int = signal.SIGTERM, timeout_s: float = 60) -> int:
        """Send a signal and wait: the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(timeout_s)

    def _is_live(self) -> bool:
        return self._status("/healthz") == 200

    def _status(self, path: str) -> int:
        """The status of a GET; 0 while nothing answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5, context=self.tls) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def _wait_until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None:
                raise ServerDied("".join(self.stdout + self.stderr))
            if time.monotonic() > deadline:
                raise TimeoutError("".join(self.stdout + self.stderr))
            time.sleep(0.02)


@contextmanager
def serve(
    data_dir: Path,
    *,
    arguments: Sequence[str] = ("--port", "0"),
    program: Sequence[str] = UPSCALED,
    is_waiting: bool = True,
    has_tables: bool = True,
    timeout_s: float = 100,
    tls: ssl.SSLContext | None = None,
    **settings: str,
) -> Iterator[Server]:
    """Run `upscaled serve` on a free port until the block ends.

    Args:
        data_dir: UPSCALED_DATA_DIR; a new folder gives a new API key in `Server.key`.
        program: what is run in place of `upscaled`.
        is_waiting: whether to wait for `/readyz`.
        has_tables: whether a new folder gets the tables beforehand, which a first start would make.
        tls: what trusts the certificate of a server that serves https.
        settings: further `UPSCALED_*` variables.
    """
    environment = clean_environment(
        **{
            "UPSCALED_DATA_DIR": str(data_dir),
            "UPSCALED_PRECISION": "exact",
            "UPSCALED_AUTO_BUDGET_S": "0",  # the fastest networks alone
            **settings,
        }
    )
    if has_tables and not (data_dir / SQLITE_FILE).exists():
        make_tables(data_dir)
    process = subprocess.Popen(
        [*program, "serve", *arguments],
        cwd=REPOSITORY_DIR,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    server = Server(process, data_dir, environment, tls=tls)
    readers = [
        threading.Thread(target=_read_stdout, args=(server,)),
        threading.Thread(target=_read_stderr, args=(server,)),
    ]
    for reader in readers:
        reader.start()
    try:
        if is_waiting:
            server.wait_ready(timeout_s)
        yield server
    finally:
        try:
            server.stop()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            for reader in readers:
                reader.join(60)


def children_of(server: Server, module: str) -> list[psutil.Process]:
    """Return the processes below the server's that run `module`, the oldest first."""
    found = []
    for process in psutil.Process(server.process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if module in process.cmdline():
                found.append(process)
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment, its `UPSCALED_*` variables replaced by the given ones.

    Models out of an installed package are left there, unless the given ones say otherwise.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UPSCALED_")}
    return {**kept, "UPSCALED_PACKAGED_MODELS": "false", **settings}


def run_upscaled(
    environment: Mapping[str, str], *arguments: str, timeout_s: float = 100, is_checked: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run one `upscaled` command to its end."""
    return subprocess.run(
        [*UPSCALED, *arguments],
        cwd=REPOSITORY_DIR,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=is_checked,
    )


def run_on_terminal(environment: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Run one `upscaled` command with a terminal as standard output: (exit status, the output)."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*UPSCALED, *arguments], stdout=follower, cwd=REPOSITORY_DIR, env=dict(environment)
    )
    os.close(follower)
    output = b""
    with open(leader, "rb", buffering=0) as terminal, suppress(OSError):
        # Linux answers EIO, other systems nothing more, when the other end is closed.
        while chunk := terminal.read(65_536):
            output += chunk
    return process.wait(), output.decode()


def _read_stdout(server: Server) -> None:
    assert server.process.stdout is not None
    with server.process.stdout as lines:
        for line in lines:
            server.stdout.append(line)
            if match := re.match(r"upscaled \S+ on (https?://\S+)", line):
                server.url = match[1]
            if match := re.match(r"Your API key, shown this once: (\S+)", line):
                server.key = match[1]
            if line.startswith("ready ("):
                server.announced.set()


def _read_stderr(server: Server) -> None:
    assert server.process.stderr is not None
    with server.process.stderr as lines:
        for line in lines:
            server.stderr.append(line)
