"""Store results at the replica that made them, so that their bytes pass through no front end.

The bucket and its credentials are those of the replica's environment. A replica without them, or
with another bucket than the front end's, returns the bytes, and the front end stores them.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from upscaled.bucket.endpoint import find_endpoint
from upscaled.config import Settings
from upscaled.errors import InternalError
from upscaled.logs import event
from upscaled.pool.executor import StoreOrder

if TYPE_CHECKING:
    from upscaled.bucket.client import ResultUploads

TRIED_EVERY_S: Final = 30.0
"""Time between two trials while the bucket cannot be used."""

_TRIAL_WITHIN_S: Final = 30.0
"""Longest trial: a cloud's machine may wait that long for its role, or for ever."""

_log: Final = logging.getLogger(__name__)


class ReplicaResults:
    """The bucket of results, as a replica reaches it.

    Attributes:
        url: where it stores; "" where its settings name no bucket.
        trouble: why it cannot store now; "" if it can, or has not been tried yet.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = settings.results_url.rstrip("/")
        self.trouble = "" if self.url else "UPSCALED_RESULTS_URL names no bucket"
        self._works = False
        self._endpoint = settings.s3_endpoint
        self._uploads: ResultUploads | None = None

    @property
    def endpoint(self) -> str:
        """Return the URL of the server that it reaches the bucket at; "" for Amazon's."""
        return find_endpoint(self._endpoint)

    async def run_forever(self) -> None:
        """Try to use the bucket until it works, and again after each failure, until cancelled."""
        while self.url:
            if not self._works:
                await self._try_out()
            await asyncio.sleep(TRIED_EVERY_S)

    async def put(
        self, order: StoreOrder, data: bytes, media_type: str, *, waited_s: float
    ) -> int | None:
        """Store a result and return its length; None if this replica cannot, or it is too late.

        waited_s: seconds since the order came.
        """
        path = self._path(order)
        if not self._works or path is None or waited_s > order.within_s:
            return None
        try:
            return await self._connect().create(path, data, media_type)
        except InternalError as error:
            self._note(error)
            return None

    def _path(self, order: StoreOrder) -> str | None:
        """Return the object's name below this replica's URL; None if the bucket is another one."""
        base, wanted = f"{self.url}/", f"{order.url.rstrip('/')}/{order.file_name}"
        if not self.url or order.endpoint != self.endpoint or not wanted.startswith(base):
            return None
        return wanted.removeprefix(base)

    async def _try_out(self) -> None:
        """Try to store a small object, in bounded time: a credential server may never answer."""
        try:
            await asyncio.wait_for(self._connect().try_out(), _TRIAL_WITHIN_S)
        except TimeoutError:
            self._note(InternalError(detail="cannot store a result: no answer in time"))
        except (InternalError, ImportError) as error:
            self._note(error)
        else:
            self.trouble, self._works = "", True

    def _connect(self) -> "ResultUploads":
        # obstore is no small library, and the extra `s3` brings it.
        from upscaled.bucket.client import ResultUploads

        if self._uploads is None:
            self._uploads = ResultUploads(self.url, self._endpoint)
        return self._uploads

    def _note(self, error: Exception) -> None:
        trouble = str(getattr(error, "detail", "") or error)
        if trouble != self.trouble:
            fields = event("result_returned")
            _log.warning(
                "cannot store results in the bucket, so front ends store them: %s",
                trouble,
                extra=fields,
            )
        self.trouble, self._works = trouble, False
