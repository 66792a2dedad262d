"""Reuse results, where that is set: a picture is not computed again while its result is stored."""

import asyncio
import hashlib
import json
import logging
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Final

from upscaled import __version__
from upscaled.api.cancellation import run_to_end
from upscaled.api.memory import MemoryShare
from upscaled.bucket.checksum import DamagedObject
from upscaled.config import Settings
from upscaled.logs import event
from upscaled.pool.executor import Executor, UpscaleRequest
from upscaled.state import DatabaseFailed, State
from upscaled.state.reuse import ReusableResult
from upscaled.upscale.result import Result, Timings
from upscaled_models.errors import ModelError
from upscaled_models.registry import split_strength
from upscaled_models.store import ModelStore

REUSED_HEADER: Final = "X-Upscale-Reused"
_NO_WORK: Final = Timings(decode_s=0, network_s=0, encode_s=0, device_s=0)
_SETTINGS: Final = frozenset(
    {"colour_lock", "denoise", "jpeg_quality", "keep_copyright", "precision", "temper"}
)
"""Settings that decide pixels or bytes of a result, beside those that decide its `OutputSpec`."""

_OF_ONE_REQUEST: Final = frozenset({"key_id", "on_tile", "request_id", "store"})
"""Fields of an `UpscaleRequest` that do not decide its result."""

_logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reuse:
    """The stored results of one API key, for one request.

    fingerprint: of all that decides the result: the file's bytes, what is to be done with it, the
    weights that will do it, the settings, and the version, which stands for the program itself.
    """

    state: State
    key_id: int
    fingerprint: str

    async def find(self, share: MemoryShare) -> Result | None:
        """Return the stored result of the same request; None if it is no longer stored whole.

        None also for a result larger than the memory for all bodies, of which `share` holds it:
        it is computed again, since results that workers send do not count towards that memory.
        """
        try:
            known = await asyncio.to_thread(self.state.reusable.find, self.key_id, self.fingerprint)
        except DatabaseFailed as error:
            self._warn(error)
            return None
        if known is None:
            return None
        async with self.state.results.open(known.file_name) as stored:
            if stored is None or not share.may_hold(stored.stored.size_bytes):
                return None
            share.count(stored.stored.size_bytes)
            try:
                data = b"".join([chunk async for chunk in stored.chunks])
            except DamagedObject:
                share.discount(stored.stored.size_bytes)
                return None
        model, denoise = split_strength(known.model)
        return Result(
            data,
            known.media_type,
            known.width_px,
            known.height_px,
            model,
            known.label,
            _NO_WORK,
            known.tempered_with,
            denoise=denoise,
        )

    async def remember(self, file_name: str, result: Result) -> None:
        """Record a result that was stored and paid for; where that fails it is not reused."""
        reusable = ReusableResult(
            file_name,
            result.media_type,
            result.width_px,
            result.height_px,
            result.made_by,
            result.label,
            result.tempered_with,
        )
        remember = self.state.reusable.remember
        try:
            await run_to_end(asyncio.to_thread(remember, self.key_id, self.fingerprint, reusable))
        except DatabaseFailed as error:
            self._warn(error)

    def _warn(self, error: DatabaseFailed) -> None:
        fields = event("reuse_failed")
        _logger.warning("a stored result could not be looked up: %s", error, extra=fields)


async def prepare_reuse(
    state: State, executor: Executor, settings: Settings, source: bytes, work: UpscaleRequest
) -> Reuse:
    """Return what finds and keeps the results of such a request."""
    models = executor.expect(work).models
    fingerprint = await asyncio.to_thread(_fingerprint, source, work, models, settings)
    return Reuse(state, work.key_id, fingerprint)


def _fingerprint(
    source: bytes, work: UpscaleRequest, models: tuple[str, ...], settings: Settings
) -> str:
    wanted = {each.name: getattr(work, each.name) for each in fields(work)}
    store = ModelStore(settings.models_dir)
    parts = {
        "version": __version__,
        "source": hashlib.sha256(source).hexdigest(),
        "work": {name: wanted[name] for name in wanted.keys() - _OF_ONE_REQUEST},
        "models": {name: _find_hashes(store, name) for name in models},
        "settings": settings.model_dump(mode="json", include=set(_SETTINGS)),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=asdict).encode()).hexdigest()


def _find_hashes(store: ModelStore, name: str) -> list[str]:
    """Return the SHA-256 of a model's files; none of one that only a cluster's replicas have."""
    with suppress(ModelError):
        return store.find(name).hashes
    return []
