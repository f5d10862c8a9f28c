"""Commands about webhooks: who receives events."""

from __future__ import annotations

from typing import Any, Final

import click

from .selection import RECORD_ID
from .terminal import JSON, exits_on_ledger_errors, print_json, print_table

_REASON = click.option("--reason", help="Reason; kept with the event.")


@click.group()
def webhook() -> None:
    """Send events to other programs, by signed messages to their addresses.

    It needs a token of role admin. Messages are sent by `recordledger work`; see docs/webhooks.md.
    """


@webhook.command()
@click.argument("url")
@click.option("--kind", multiple=True, help="Only events of this kind, like errored. Repeatable.")
@click.option(
    "--tag", multiple=True, help="Only of records that have this tag at the event. Repeatable."
)
@click.option(
    "--actor", multiple=True, help="Only events of this actor, like user:ann. Repeatable."
)
@click.option(
    "--dataset", help="Only of this dataset and of the records that it has at the event, by name."
)
@click.option(
    "--after",
    type=click.IntRange(0, 2**63 - 1),
    help="Start after this position of the log. [at the newest event]",
)
@_REASON
@JSON
@exits_on_ledger_errors
def add(url: str, as_json: bool, **given: Any) -> None:
    """Add the address URL as a webhook, and print the secret of its messages, once.

    \b
    Example:
      recordledger webhook add https://lab.example.org/ledger --kind errored --tag gpu
    """
    from recordledger.api.client import Client

    with Client() as client:
        new = client.add_webhook(url, **given)
    if as_json:
        print_json(new)
        return
    click.echo(f"Webhook {new.webhook.id} gets the events after position {new.webhook.position}.")
    click.echo(f"Its secret is shown this once: {new.secret}")


@webhook.command("list")
@JSON
@exits_on_ledger_errors
def list_webhooks(as_json: bool) -> None:
    """Print all webhooks, and how far delivery to each has come."""
    from recordledger.api.client import Client

    with Client() as client:
        found = client.webhooks()
    if as_json:
        print_json(found)
        return
    columns = ("id", "enabled", "url", "kinds", "tags", "position", "n_failures", "why")
    print_table(columns, [[getattr(each, name) for name in columns] for each in found])


@webhook.command()
@click.argument("webhook_id", type=RECORD_ID)
@JSON
@exits_on_ledger_errors
def show(webhook_id: int, as_json: bool) -> None:
    """Print the webhook WEBHOOK_ID, its history and the newest attempts.

    Exit status is 1 when there is no such webhook.
    """
    from recordledger.api.client import Client

    with Client() as client:
        found = client.webhook(webhook_id)
        attempts = client.webhook_deliveries(webhook_id, limit=20)
    if as_json:
        print_json(found.model_dump() | {"attempts": attempts})
        return
    fields = found.model_dump(exclude={"events"})
    rows = [(name, value) for name, value in fields.items() if value not in (None, [])]
    print_table(("", f"webhook {webhook_id}"), rows)
    events = [(each.timestamp, each.kind, each.actor, each.reason) for each in found.events]
    print_table(("when (UTC)", "what", "by", "reason"), events)
    columns = ("attempted_at", "message_id", "n_events", "upto", "status_code", "error")
    print_table(columns, [[getattr(each, name) for name in columns] for each in attempts])


@webhook.command()
@click.argument("webhook_id", type=RECORD_ID)
@_REASON
@exits_on_ledger_errors
def remove(webhook_id: int, reason: str | None) -> None:
    """Remove the webhook WEBHOOK_ID: nothing is sent to it any more."""
    from recordledger.api.client import Client

    with Client() as client:
        client.remove_webhook(webhook_id, reason=reason)
    click.echo(f"Webhook {webhook_id} was removed.")


@webhook.command()
@click.argument("webhook_id", type=RECORD_ID)
@_REASON
@exits_on_ledger_errors
def enable(webhook_id: int, reason: str | None) -> None:
    """Send events to the webhook WEBHOOK_ID again, from where it was."""
    _switch(webhook_id, reason, enabled=True)


@webhook.command()
@click.argument("webhook_id", type=RECORD_ID)
@_REASON
@exits_on_ledger_errors
def disable(webhook_id: int, reason: str | None) -> None:
    """Tell the webhook WEBHOOK_ID nothing until it is enabled; what happens waits for it."""
    _switch(webhook_id, reason, enabled=False)


@webhook.command("test")
@click.argument("webhook_id", type=RECORD_ID)
@JSON
@exits_on_ledger_errors
def try_out(webhook_id: int, as_json: bool) -> None:
    """Send the webhook WEBHOOK_ID a message of type ledger.test, now.

    Exit status is 1 when it has not arrived.
    """
    from recordledger.api.client import Client

    with Client() as client:
        result = client.test_webhook(webhook_id)
    if as_json:
        print_json(result)
    elif result.has_arrived:
        click.echo(
            f"The message was delivered: {result.status_code}, after {result.duration_s:.2f} s."
        )
    if not result.has_arrived:
        raise click.ClickException(f"the message was not delivered: {result.error}")


def _switch(webhook_id: int, reason: str | None, *, enabled: bool) -> None:
    from recordledger.api.client import Client

    with Client() as client:
        found = client.modify_webhook(webhook_id, enabled=enabled, reason=reason)
    state = "enabled" if found.enabled else "disabled"
    click.echo(
        f"Webhook {webhook_id} is {state}; the events up to position {found.position} were "
        "delivered."
    )


COMMANDS: Final = (webhook,)
