"""`upscaled webhooks`: list what was or will be sent, send it again, and try an address out.

A running server sends what is due within a second.
"""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from upscaled.cli.console import describe_user, fail, format_time, opened_state, print_columns

if TYPE_CHECKING:
    from upscaled.state.webhook_rows import DeliveryState

commands = typer.Typer(
    no_args_is_help=True, help="List webhooks, send them again, and try an address out."
)


@commands.command("list")
def list_webhooks(
    state: Annotated[
        str,
        typer.Option(metavar="STATE", help="Only waiting, delivered, failed or gone ones."),
    ] = "",
) -> None:
    """Print the webhooks of the jobs that are kept, the newest job first.

    OUTCOME is of the last attempt; NEXT is when a waiting one is tried again.
    """
    from upscaled.state.webhook_rows import DELIVERY_STATES

    wanted = next((each for each in DELIVERY_STATES if each == state), None)
    if state and wanted is None:
        raise fail(f"--state must be one of {', '.join(DELIVERY_STATES)}", 2)
    with opened_state() as opened:
        deliveries = opened.webhooks.list(wanted)
    rows = [
        (
            each.job_id,
            each.key_name,
            each.state,
            str(each.attempts),
            format_time(each.due_at_s) if each.state == "waiting" else "-",
            each.url,
            each.outcome or "-",
        )
        for each in deliveries
    ]
    print_columns([("JOB", "KEY", "STATE", "ATTEMPTS", "NEXT", "URL", "OUTCOME"), *rows])


@commands.command("retry")
def retry_webhook(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `list` shows.")],
) -> None:
    """Send a job's webhook now, also one that was delivered or given up; it has ten attempts."""
    with opened_state() as state:
        is_there = state.webhooks.retry(job_id, by=describe_user())
    if not is_there:
        raise fail(f"there is no webhook of a job {job_id}")
    typer.echo(f"The webhook of job {job_id} is due now.")


@commands.command("test")
def try_webhook(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the API key.")],
) -> None:
    """Send a signed `webhook.test` to the address of an API key, once, and print the outcome."""
    with opened_state() as state:
        webhook = state.webhooks.show(name)
    if webhook is None or webhook.url is None:
        raise fail(f"API key {name} has no webhook: upscaled keys webhook {name} URL")
    outcome, reached = asyncio.run(_send_test(webhook.url, webhook.secret))
    if reached != "delivered":
        raise fail(f"{webhook.url}: {outcome}")
    typer.echo(f"{webhook.url}: {outcome}")


async def _send_test(url: str, secret: str) -> tuple[str, "DeliveryState"]:
    from upscaled.api.webhook_sender import send_test
    from upscaled.config import load_settings
    from upscaled.fetch.client import FetchClient
    from upscaled.fetch.messages import FetchOptions

    client = FetchClient(FetchOptions.of(load_settings()))
    try:
        return await send_test(client, url, secret)
    finally:
        await client.close()
