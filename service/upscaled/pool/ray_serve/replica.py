"""Supervise a node's workers as one replica of the deployment, for every front end.

A replica holds no engine and decodes nothing: hostile bytes pass through to its workers, which have
no connection to the cluster. Its settings are those of its node, read from `UPSCALED_*` there, with
what Ray has reserved for it:

    node's settings          reserved        the replica's workers
    UPSCALED_DEVICE=auto     2 GPUs, 8 CPUs  cuda:0 | cuda:1, each with 4 threads
    UPSCALED_DEVICE=auto     4 CPUs          cpu, with 4 threads
    UPSCALED_DEVICE=cpu,cpu  4 CPUs          cpu:0-7 | cpu:8-15, each with 2 threads
"""

import asyncio
import os
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, Final

from upscaled.config import Settings, load_settings
from upscaled.errors import InternalError, RateLimitExceeded, ServiceError
from upscaled.logs import configure_logging
from upscaled.pool import messages
from upscaled.pool.devices import resolve_devices
from upscaled.pool.executor import DeviceFault, UpscaleRequest
from upscaled.pool.local import WORKER_COMMAND, LocalPool
from upscaled.pool.ray_serve.calls import KEPT_S
from upscaled.pool.ray_serve.messages import (
    ONLY_JOB,
    Busy,
    DeviceFaultMessage,
    ReplicaReport,
    decode_from_replica,
    frame,
)
from upscaled.pool.ray_serve.result_store import ReplicaResults
from upscaled.process.confinement import hide_memory
from upscaled_models.errors import ModelError
from upscaled_models.store import ModelStore

_PROGRESS_EVERY_S: Final = 0.1
"""Least time between two reports of tiles: each is a message across the cluster."""

_HOPELESS_AFTER_S: Final = 60.0
"""A replica without a worker for so long reports itself unhealthy, and Serve replaces it."""

_PARENT_CHECKED_EVERY_S: Final = 1.0
_RESERVED_CPUS: Final = "OMP_NUM_THREADS"
"""Ray sets it in a replica to the CPUs that it has reserved, rounded down and at least 1, unless
the node was started with it. Of GPUs a replica sees only those that are reserved."""


class UpscaleReplica:
    """Replica that has images upscaled by a `LocalPool` of its own."""

    def __init__(self, command: Sequence[str] = WORKER_COMMAND) -> None:
        """Start the workers, by `command` with further arguments behind it; for tests.

        Raises:
            SettingsError: the node has settings that no worker can have.
        """
        hide_memory()
        settings = load_replica_settings()
        configure_logging(settings.log_level, settings.log_format)
        self._name = uuid.uuid4().hex
        self._hashes = _hash_models(ModelStore(settings.models_dir))
        self._pool = LocalPool(settings, command=command)
        self._starting = asyncio.create_task(self._pool.start())
        self._watching = asyncio.create_task(end_with_parent())
        self._results = ReplicaResults(settings)
        self._trying_out = asyncio.create_task(self._results.run_forever())
        self._ready_at = 0.0

    async def check_health(self) -> None:
        """Wait for the first worker; later, raise where there has been none for a minute.

        Serve calls it before it sends the first image, and then every few seconds.

        Raises:
            ChildUnusable: no worker can start, for a reason that a restart will not mend.
            RuntimeError: see above.
        """
        await self._pool.wait_ready()
        now = asyncio.get_running_loop().time()
        if self._pool.stats().workers_ready or not self._ready_at:
            self._ready_at = now
        elif now - self._ready_at > _HOPELESS_AFTER_S:
            raise RuntimeError(f"no worker for {_HOPELESS_AFTER_S:g} s")

    async def upscale(self, job: bytes, source: bytes) -> AsyncGenerator[tuple[bytes, bytes], None]:
        """Upscale one image; see `upscaled.pool.ray_serve.messages`."""
        message = messages.decode_to_worker(job)
        if not isinstance(message, messages.WorkerJob):
            raise TypeError(f"{message.kind} is no job")
        changed = asyncio.Event()
        newest: deque[tuple[int, int]] = deque(maxlen=1)

        def note_tile(done: int, total: int) -> None:
            newest.append((done, total))
            changed.set()

        request = replace(message.request, on_tile=note_tile)
        working = asyncio.create_task(self._work(source, request))
        working.add_done_callback(lambda _: changed.set())
        try:
            await asyncio.sleep(0)  # what the queue refuses is refused by then
            if not working.done():
                yield frame(messages.Alive())
            while not working.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(messages.ALIVE_EVERY_S):
                        await changed.wait()
                changed.clear()
                if newest:
                    done, total = newest.pop()
                    yield frame(messages.JobProgress(job=ONLY_JOB, done=done, total=total))
                    await asyncio.wait((working,), timeout=_PROGRESS_EVERY_S)
                elif not working.done():
                    yield frame(messages.Alive())
            if newest:
                yield frame(
                    messages.JobProgress(job=ONLY_JOB, done=newest[0][0], total=newest[0][1])
                )
            header, data = working.result()
            yield header, data
            if isinstance(decode_from_replica(header), DeviceFaultMessage):
                # The front end ends the call, unless another replica is to make the image.
                await asyncio.sleep(KEPT_S)
        finally:
            working.cancel()

    async def _work(self, source: bytes, request: UpscaleRequest) -> tuple[bytes, bytes]:
        now = asyncio.get_running_loop().time
        came_at = now()
        try:
            result = await self._pool.upscale(source, request)
        except RateLimitExceeded as error:
            wait_s, reason = error.retry_after_s, error.reason
            return frame(Busy(retry_after_s=wait_s, reason=reason, detail=error.detail))
        except DeviceFault as error:
            return frame(DeviceFaultMessage(replica=self._name, reason=error.detail))
        except InternalError as error:
            return frame(messages.Failed(job=ONLY_JOB, reason=error.detail))
        except ServiceError as error:
            code, text = error.error_code, error.public_text
            return frame(messages.JobRefused(job=ONLY_JOB, error_code=code, public_text=text))
        data, result = result.data, replace(result, data=b"")
        if order := request.store:
            waited_s = now() - came_at
            stored = await self._results.put(order, data, result.media_type, waited_s=waited_s)
            if stored is not None:
                made = replace(result, stored_as=order.file_name, stored_bytes=stored)
                return frame(messages.Done(job=ONLY_JOB, result=made))
        return frame(messages.Done(job=ONLY_JOB, result=result), data)

    async def report(self) -> bytes:
        """Return the replica's `ReplicaReport` as JSON."""
        stats = self._pool.stats()
        shared = {each.name for each in fields(stats)} & ReplicaReport.model_fields.keys()
        counts: dict[str, Any] = {name: getattr(stats, name) for name in shared}
        report = ReplicaReport(
            replica=self._name,
            accepts=self._pool.is_ready(),
            ready=await self._pool.wait_ready(),
            hashes=self._hashes,
            results_url=self._results.url,
            results_endpoint=self._results.endpoint,
            results_trouble=self._results.trouble,
            **counts | {"resident_bytes": list(stats.resident_bytes.values())},
        )
        return report.model_dump_json().encode()

    async def stop(self) -> None:
        """End the workers at once; a process that ends takes them along without it."""
        self._watching.cancel()
        self._trying_out.cancel()
        await self._pool.stop(0)


async def end_with_parent() -> None:
    """End this process once its raylet has ended, even if the raylet remains a zombie."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(_PARENT_CHECKED_EVERY_S)
    os._exit(1)


def _hash_models(store: ModelStore) -> dict[str, str]:
    """Return the SHA-256 of each installed model; loading checks the file against it."""
    hashes = {}
    for name in store.names():
        with suppress(ModelError):
            spec = store.find(name)
            if store.path(spec):
                hashes[name] = spec.sha256
    return hashes


def load_replica_settings(
    environment: Mapping[str, str] = os.environ, gpus: int | None = None
) -> Settings:
    """Return the settings with every device listed, and the reserved CPUs shared out to workers.

    `UPSCALED_THREADS` wins over what is reserved. A replica on CPUs is not divided between NUMA
    nodes: only a part of the machine is reserved for it, and other replicas may have the rest.

    Raises:
        SettingsError: a value that no setting may have, cores that this process may not run on, or
            more parts than cores.
    """
    settings = load_settings(environment)
    reserved = environment.get(_RESERVED_CPUS, "")
    if settings.threads or not reserved.isdecimal():
        return resolve_devices(settings, gpus)
    # With a number of threads, NUMA nodes do not count.
    resolved = resolve_devices(settings.model_copy(update={"threads": int(reserved)}), gpus)
    threads = max(1, int(reserved) // resolved.all_workers)
    return resolved.model_copy(update={"threads": threads})
