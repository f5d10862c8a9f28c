"""The commands about webhooks, as administrators type them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.service import Service, serving
from tests.postgres import new_database
from tests.webhook_receiver import Receiver

from ..conftest import Cli, printed


@pytest.fixture(scope="module")
def service(postgres_server_url: str, migrated_template: str) -> Iterator[Service]:
    """A server that lets webhooks be on this machine."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(url, pool_size=4, webhook_allow_private="127.0.0.0/8") as made,
    ):
        yield made


def test_a_webhook_is_added_tested_switched_and_removed(cli: Cli) -> None:
    with Receiver(lambda n: [200, 500][n]) as receiver:
        new = cli("webhook", "add", receiver.url, "--kind", "held", "--tag", "gpu")
        assert "Its secret is shown this once: whsec_" in new.stdout
        [listed] = printed(cli("webhook", "list", "--json"))
        assert (listed["url"], listed["kinds"], listed["tags"]) == (receiver.url, ["held"], ["gpu"])
        number = listed["id"]
        assert "The message was delivered: 200" in cli("webhook", "test", number).stdout
        failed = cli("webhook", "test", number)
        assert (failed.exit_code, "answered 500" in failed.output) == (1, True)
    off = cli("webhook", "disable", number, "--reason", "not \x1b[31m now").stdout
    assert f"Webhook {number} is disabled" in off
    shown = cli("webhook", "show", number).stdout
    assert "not \\x1b[31m now" in shown
    assert "\x1b" not in shown
    assert "whsec_" not in shown
    assert printed(cli("webhook", "show", number, "--json"))["attempts"] == []
    assert f"Webhook {number} is enabled" in cli("webhook", "enable", number).stdout
    assert "was removed" in cli("webhook", "remove", number).stdout
    assert cli("webhook", "show", number).exit_code == 1
    assert "webhook" not in cli("webhook", "list").stdout


def test_what_is_no_setting_is_said_to_be(cli: Cli) -> None:
    wrong = cli("work", "--webhook-allow-private", "somewhere")
    assert wrong.exit_code == 2
    assert "somewhere" in wrong.output


def test_an_address_inside_is_refused(cli: Cli) -> None:
    refused = cli("webhook", "add", "https://10.0.0.1/")
    assert refused.exit_code == 1
    assert "not on the public Internet" in refused.output
