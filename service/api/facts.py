"""What one exchange turned out to be: filled in on its way, logged and counted at its end."""

from dataclasses import asdict, dataclass, field
from typing import Any, cast

from starlette.requests import Request
from starlette.types import Scope

from service.pool.boundary import StageTimes


@dataclass(slots=True)
class Facts:
    """Unknown facts stay None and are left out of the log. Never a key, a URL or a file name."""

    request_id: str
    key_name: str | None = None
    error_code: str | None = None
    error_detail: str | None = None
    scale: int | None = None
    source: str | None = None
    source_bytes: int | None = None
    width_px: int | None = None
    height_px: int | None = None
    format: str | None = None
    result_bytes: int | None = None
    model: str | None = None
    times: StageTimes | None = field(default=None)

    def as_log_fields(self) -> dict[str, Any]:
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        times = fields.pop("times", {})
        return fields | {name: round(seconds, 4) for name, seconds in times.items()}


def facts_of(request: Request) -> Facts:
    return facts_in(request.scope)


def facts_in(scope: Scope) -> Facts:
    return cast(Facts, scope["state"]["facts"])
