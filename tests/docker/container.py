"""Run an image's command as compose.yaml does, from the kernel's own parts.

Read-only root, a tmpfs for /tmp, one volume for /data, no capability, no new privileges, process
and mount namespaces of its own, and a network that holds nothing but its loopback.
"""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONTAINER_PROGRAMS = ("unshare", "nsenter", "chroot", "setpriv", "ip")
"""Makes the base system; only root can."""

_DEVICES = ("null", "zero", "full", "random", "urandom")
_PREPARE = """
ip link set lo up
mount --bind {root} {root}
mount -o remount,bind,ro {root}
mount -t proc proc {root}/proc
mount -t tmpfs -o size=1g,mode=1777 tmpfs {root}/tmp
mount -t tmpfs -o size=1m,mode=755 tmpfs {root}/dev
mkdir {root}/dev/shm
mount -t tmpfs -o size=64m,mode=1777 tmpfs {root}/dev/shm
for device in {devices}; do
    touch {root}/dev/$device
    mount --bind /dev/$device {root}/dev/$device
done
mount --bind {data} {root}/data
exec {command}
"""


class Container:
    """A running container. `root`: the image's files; `data`: the folder mounted at /data.

    tracer: a command that is to run the image's command, out here, as `strace -f` does.
    """

    def __init__(
        self,
        root: Path,
        configuration: dict[str, Any],
        data: Path,
        log: Path,
        tracer: Sequence[str] = (),
    ) -> None:
        self.log = log
        self._is_traced = bool(tracer)
        self._root = root
        self._configuration = configuration
        script = _PREPARE.format(
            root=shlex.quote(str(root)),
            data=shlex.quote(str(data)),
            devices=" ".join(_DEVICES),
            command=shlex.join([*tracer, *self._enter(configuration["Cmd"])]),
        )
        namespaces = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["unshare", *namespaces, "sh", "-euc", script], stdout=output, stderr=output
            )

    def _enter(self, command: list[str]) -> list[str]:
        """`command` inside the image's files, as its user, with its environment."""
        user, _, group = self._configuration["User"].partition(":")
        privileges = ["--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs"]
        privileges += ["--bounding-set=-all", "--inh-caps=-all"]
        environment = ["env", "-i", *self._configuration["Env"]]
        return ["chroot", str(self._root), "setpriv", *privileges, *environment, *command]

    def execute(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run one more command in there, as `docker exec` does."""
        inside = [*self._join("--mount", "--pid"), *self._enter(command)]
        return subprocess.run(inside, capture_output=True, text=True, timeout=60)

    def reach(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command of this machine on the container's network."""
        return subprocess.run(
            [*self._join(), *command], capture_output=True, text=True, timeout=300
        )

    def _join(self, *more: str) -> list[str]:
        return ["nsenter", "--target", str(self._first_process()), "--net", *more]

    def _first_process(self) -> int:
        """Return the id on this machine of the container's process 1."""
        return self._first_child(self._process.pid)

    def _first_child(self, pid: int) -> int:
        while self.is_running():
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if children:
                return int(children[0])
            time.sleep(0.01)
        raise RuntimeError(f"the container ended: {self.log.read_text()}")

    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self, timeout_s: float) -> int:
        """Stop it, as `docker stop` does: its exit status, -9 when it had to be killed."""
        try:
            if self.is_running():
                first = self._first_process()
                # A tracer would let go of what it traces instead of passing the signal on.
                os.kill(self._first_child(first) if self._is_traced else first, signal.SIGTERM)
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            self._process.kill()
            self._process.wait()
