"""Answer a dry run: the price, the result and the time of an upscale that is not made."""

from collections.abc import Sequence
from typing import Any, Final

from upscaled.api import schemas
from upscaled.config import Settings
from upscaled.errors import InsufficientApiCredits, InvalidParameter
from upscaled.pool.executor import Executor, UpscaleRequest
from upscaled.state import ApiKey
from upscaled_models.registry import split_strength

DRY_RUN_HEADER: Final = "X-Upscale-Dry-Run"
DRY_RUN_PARAMETER: Final[dict[str, Any]] = {
    "name": DRY_RUN_HEADER,
    "in": "header",
    "required": False,
    "description": "`true`: check the request, and answer 200 with an `Estimate` in place of the "
    "result. Nothing is upscaled or charged.",
    "schema": {"type": "boolean", "default": False},
}
"""The header as an OpenAPI parameter."""

_VALUES: Final = {"true": True, "false": False}


def parse_dry_run_header(values: Sequence[str]) -> bool:
    """Return whether a request asks for a dry run.

    Args:
        values: one for each header of that name, without white space around.

    Raises:
        InvalidParameter: another value than `true` or `false`, or several headers. A client that
            meant a dry run must not be charged.
    """
    if not values:
        return False
    is_dry_run = _VALUES.get(values[0].lower()) if len(values) == 1 else None
    if is_dry_run is None:
        raise InvalidParameter(f"{DRY_RUN_HEADER} must be true or false")
    return is_dry_run


def may_be_dry_run(values: Sequence[str]) -> bool:
    """Return whether a request is a dry run, or will be refused for its header's value."""
    try:
        return parse_dry_run_header(values)
    except InvalidParameter:
        return True


def price(key: ApiKey, settings: Settings) -> int:
    """Return the credits that an upscale of the key would cost.

    Raises:
        InsufficientApiCredits: the balance is too low.
    """
    credits = 1 if settings.metering else 0
    if key.balance < credits:
        raise InsufficientApiCredits
    return credits


def estimate(work: UpscaleRequest, credits: int, executor: Executor) -> schemas.Estimate:
    """Return what an accepted request would give, and its price."""
    expectation = executor.expect(work)
    _, denoise = split_strength(work.model)
    return schemas.Estimate(
        credits=credits,
        width=work.output.width_px,
        height=work.output.height_px,
        media_type=work.output.media_type,
        models=[split_strength(name)[0] for name in expectation.models],
        denoise=denoise,
        seconds=round(expectation.seconds, 3) if executor.is_ready() else None,
    )
