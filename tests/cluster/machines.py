"""Divide this machine into several, by namespaces of network, processes and mounts.

with network() as hub, machine(hub, "node", 4, folder) as node:
    node.start(["ray", "start", ...], environment, log)
    node.cut(); node.heal(); node.power_off(); node.boot()
"""

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

_LOOK_EVERY_S = 0.5
_PROGRAMS = ("ip", "mount", "nsenter", "pkill", "setpriv", "unshare")

_INIT = """
mount --bind {own} {shared}
mount -t tmpfs -o size=1g,mode=1777 tmpfs /dev/shm
echo up
# As the first process of these, the shell reaps processes that have ended.
sleep infinity & wait
"""


@dataclass(frozen=True)
class Hub:
    """The switch that joins all machines; this one has the first address."""

    name: str
    subnet: str

    def address(self, number: int) -> str:
        return f"{self.subnet}.{number}"


@contextmanager
def network() -> Iterator[Hub]:
    """Make a switch that leads nowhere else; skip where this machine makes no namespaces."""
    if os.geteuid() != 0:
        pytest.skip("only root makes machines of namespaces")
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no machines of namespaces without {', '.join(missing)}")
    _clear()
    mark = os.getpid()
    hub = Hub(f"upm{mark}", f"198.{18 + mark // 256 % 2}.{mark % 256}")
    made = subprocess.run(["ip", "netns", "add", hub.name], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this machine makes no namespace: {made.stderr.strip()}")
    try:
        _ip("-n", hub.name, "link", "add", "name", "switch", "type", "bridge")
        _ip("-n", hub.name, "link", "set", "dev", "switch", "up")
        link = f"{hub.name}h"
        _ip("link", "add", "name", link, "type", "veth", "peer", "name", "host", "netns", hub.name)
        _ip("-n", hub.name, "link", "set", "dev", "host", "master", "switch", "up")
        _ip("address", "add", f"{hub.address(1)}/24", "dev", link)
        _ip("link", "set", "dev", link, "up")
        yield hub
    finally:
        _ip("netns", "delete", hub.name)  # its ends of all links, and so the links


@dataclass
class Machine:
    """A machine. own: its folder, which its processes see at `shared`, a path that all have."""

    hub: Hub
    name: str
    number: int
    own: Path
    shared: Path
    init: psutil.Process | None = None
    started: "list[subprocess.Popen[Any]]" = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.hub.address(self.number)

    @property
    def _namespace(self) -> str:
        return f"{self.hub.name}-{self.name}"

    def join(self) -> None:
        """Make its network."""
        _ip("netns", "add", self._namespace)
        _ip("-n", self.hub.name, "link", "add", "name", self.name, "type", "veth",
            "peer", "name", "eth0", "netns", self._namespace)  # fmt: skip
        _ip("-n", self.hub.name, "link", "set", "dev", self.name, "master", "switch", "up")
        _ip("-n", self._namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", self._namespace, "link", "set", "dev", link, "up")

    def leave(self) -> None:
        self.power_off()
        _ip("netns", "delete", self._namespace)

    def boot(self) -> None:
        """Start its first process anew; all that ran before has ended."""
        script = _INIT.format(own=shlex.quote(str(self.own)), shared=shlex.quote(str(self.shared)))
        errors = self.own.with_suffix(".boot").open("ab")
        process = subprocess.Popen(
            # It ends with this process, however that ends; so do all processes of the machine.
            ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{self._namespace}",
             "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
             "bash", "-euc", script],
            stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        errors.close()
        assert process.stdout is not None
        with process.stdout as output:
            assert output.readline() == "up\n", f"{self.name} does not boot"
        self.started = [process]
        (self.init,) = psutil.Process(process.pid).children()

    def power_off(self) -> None:
        """End all its processes at once, as when its power fails."""
        if self.init:
            self.init.kill()
            self.init = None
        for process in self.started:
            process.wait(60)

    def cut(self) -> None:
        """Take it off the network; its processes go on."""
        _ip("-n", self._namespace, "link", "set", "dev", "eth0", "down")

    def heal(self) -> None:
        _ip("-n", self._namespace, "link", "set", "dev", "eth0", "up")

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, user: int = 0
    ) -> "subprocess.Popen[bytes]":
        """Start a program there. It ends with the machine, not with the process that is returned.

        Args:
            user: the id it runs as, and its group's.
        """
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*self._enter(user), *command], env=environment, stdout=output, stderr=output
            )
        self.started.append(process)
        return process

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        timeout_s: float = 200,
        statuses: Collection[int] = (0,),
    ) -> str:
        """Run a program there to its end, and return its standard output.

        statuses: those that it may end with.
        """
        finished = subprocess.run(
            [*self._enter(), *command],
            env=environment, capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip
        assert finished.returncode in statuses, finished.stdout + finished.stderr
        return finished.stdout

    def find(self, *words: str) -> list[psutil.Process]:
        """Return the processes there whose command holds all these words, the oldest first."""
        if self.init is None:
            return []
        space, found = _namespace_of(self.init.pid), []
        for process in psutil.process_iter(["pid", "create_time"]):
            if _namespace_of(process.pid) == space:
                with suppress(psutil.NoSuchProcess):
                    command = " ".join(process.cmdline())
                    if all(word in command for word in words):
                        found.append(process)
        return sorted(found, key=lambda each: each.info["create_time"])

    def _enter(self, user: int = 0) -> list[str]:
        assert self.init is not None
        flags = ["--target", str(self.init.pid), "--net", "--mount", "--pid"]
        return ["nsenter", *flags, f"--setuid={user}", f"--setgid={user}", "--"]


@contextmanager
def machine(hub: Hub, name: str, number: int, folder: Path) -> Iterator[Machine]:
    """Run a machine until the block ends.

    Args:
        name: at most 15 characters.
        number: the last part of its address, from 2 on.
        folder: holds the machines' own folders; its path is short, for sockets' paths have a limit.
    """
    own, shared = folder / name, folder / "r"
    own.mkdir()
    own.chmod(0o777)
    shared.mkdir(exist_ok=True)
    made = Machine(hub, name, number, own, shared)
    try:
        made.join()
        made.boot()
        yield made
    finally:
        made.leave()


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 150) -> None:
    """Wait until a condition holds; `what` describes it where it does not in time.

    Time in which all that runs here stands still does not count.
    """
    for _ in range(round(timeout_s / _LOOK_EVERY_S)):
        if condition():
            return
        time.sleep(_LOOK_EVERY_S)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


def _clear() -> None:
    """Delete the networks of test runs that were killed."""
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
    for name, process_id in re.findall(r"^(upm(\d+)\S*)", listed, re.MULTILINE):
        if not psutil.pid_exists(int(process_id)):
            _ip("netns", "delete", name)


def _namespace_of(process_id: int) -> str:
    try:
        return os.readlink(f"/proc/{process_id}/ns/pid")
    except OSError:
        return ""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
