"""Store results from the replica that made them, so that their bytes cross no front end.

The place and its credentials are those of the replica's own environment. A replica without them,
or of another place than the front end's, answers with the bytes, and the front end stores them.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from upscaled.config import Settings
from upscaled.errors import InternalError
from upscaled.logs import event
from upscaled.pool.executor import StoreOrder

if TYPE_CHECKING:
    from upscaled.bucket.uploads import ResultUploads

TRIED_EVERY_S: Final = 30.0
"""Time between two trials, while the bucket cannot be used."""

_log: Final = logging.getLogger(__name__)


class ReplicaResults:
    """The bucket of results, as a replica reaches it.

    Attributes:
        url: where it stores; "" where its settings name no bucket.
        trouble: why it does not for now; "" where it does, or is not tried out yet.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = settings.results_url.rstrip("/")
        self.trouble = "" if self.url else "UPSCALED_RESULTS_URL names no bucket"
        self._works = False
        self._endpoint = settings.s3_endpoint
        self._uploads: ResultUploads | None = None

    async def run_forever(self) -> None:
        """Try the bucket out until it works, and again after a failure, until cancelled."""
        while self.url:
            if not self._works:
                await self._try_out()
            await asyncio.sleep(TRIED_EVERY_S)

    async def put(
        self, order: StoreOrder, data: bytes, media_type: str, *, waited_s: float
    ) -> int | None:
        """Store a result; return the length of what is stored, None where the order is not for it.

        Args:
            waited_s: since the order came.
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
        """Return the name below this replica's place; None where the front end has another one."""
        base, wanted = f"{self.url}/", f"{order.url.rstrip('/')}/{order.file_name}"
        if not self.url or order.endpoint != self._endpoint or not wanted.startswith(base):
            return None
        return wanted.removeprefix(base)

    async def _try_out(self) -> None:
        """Store a small object, as a result; a role that is asked for may never answer."""
        try:
            await asyncio.wait_for(self._connect().try_out(), TRIED_EVERY_S)
        except TimeoutError:
            self._note(InternalError(detail="cannot store a result: no answer in time"))
        except (InternalError, ImportError) as error:
            self._note(error)
        else:
            self.trouble, self._works = "", True

    def _connect(self) -> "ResultUploads":
        # obstore is no small library, and the extra `s3` brings it.
        from upscaled.bucket.uploads import ResultUploads

        if self._uploads is None:
            self._uploads = ResultUploads(self.url, self._endpoint)
        return self._uploads

    def _note(self, error: Exception) -> None:
        trouble = str(getattr(error, "detail", "") or error)
        if trouble != self.trouble:
            fields = event("result_returned")
            _log.warning("results go to the front ends to be stored: %s", trouble, extra=fields)
        self.trouble, self._works = trouble, False
