"""Store results: the replica that made one does it itself where it can, else this front end."""

from dataclasses import replace

from upscaled.api.cancellation import run_to_end
from upscaled.bucket.endpoint import find_endpoint
from upscaled.config import Settings
from upscaled.pool.executor import StoreOrder, UpscaleRequest
from upscaled.state.results import Results
from upscaled.upscale.result import Result


def order_storing(work: UpscaleRequest, results: Results, settings: Settings) -> UpscaleRequest:
    """Return the request with an order to store its result in the bucket, if there is a bucket.

    A replica that cannot carry the order out returns the bytes instead.
    """
    reserved = results.reserve(work.output.media_type)
    if reserved is None:
        return work
    endpoint = find_endpoint(settings.s3_endpoint)
    return replace(work, store=StoreOrder(results.location, endpoint, *reserved))


async def store_result(result: Result, results: Results) -> str:
    """Store a result unless a replica has done so, and return its name.

    If it is cancelled while storing, it deletes the result again.

    Raises:
        InternalError: it could not be stored.
    """
    if result.stored_as:
        return result.stored_as
    return await run_to_end(results.store(result.data, result.media_type), results.delete)
