"""`upscaled usage`: who has used how much, by day, API key and model."""

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from upscaled.cli import console

_GROUPS: Final = ("day", "key", "key_id", "model")


def run(
    since: console.Since = "30d",
    until: Annotated[
        str,
        typer.Option(metavar="WHEN", help="End of the report, excluded; by default now."),
    ] = "",
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP", help="Group by day (default), key or model; may be repeated."
        ),
    ] = None,
    as_json: console.AsJson = False,
    as_csv: console.AsCsv = False,
) -> None:
    """Print requests, images, credits, megapixels and device seconds, a line for each group.

    Days are UTC. A key of "-" stands for requests without a valid key, a model of "-" for requests
    that made no image.
    """
    from upscaled.api.admin.schemas import UsageFigures
    from upscaled.state.usage_days import USAGE_GROUPS

    wanted = {} if by is None else dict.fromkeys(by)
    if unknown := [each for each in wanted if each not in USAGE_GROUPS]:
        raise console.fail(f"--by must be one of {', '.join(USAGE_GROUPS)}, not {unknown[0]}", 2)
    groups = [each for each in USAGE_GROUPS if each in wanted] or USAGE_GROUPS[:1]
    report_format, now = console.choose_format(as_json=as_json, as_csv=as_csv), datetime.now(UTC)
    until_s = console.parse_time(until, "--until", now).timestamp() if until else None
    since_s = console.parse_time(since, "--since", now).timestamp()
    with console.opened_state() as state:
        totals = state.usage.report(groups, since_s=since_s, until_s=until_s)
    left_out = [name for name in _GROUPS if name.split("_")[0] not in groups]
    names = [name for name in UsageFigures.model_fields if name not in left_out]
    figures = (UsageFigures.of(each).model_dump(mode="json") for each in totals)
    rows = [{name: row[name] for name in names} for row in figures]
    console.print_report(names, rows, report_format)
