"""Sending to webhooks: signed, to the address that was judged, in time, and nowhere else."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from pathlib import Path
from threading import Thread

import pytest
from standardwebhooks import Webhook

from recordledger.api.http.webhook_sender import (
    Lookup,
    Sender,
    new_message_id,
    resolve,
    shown_secret,
)
from recordledger.domain.admin.addresses import NOWHERE_ELSE, parse_allowed
from recordledger.domain.errors import AddressRefused
from tests.domain.admin.test_addresses import PRIVATE
from tests.webhook_receiver import Receiver, verify

SECRET = bytes(range(32))
HERE = parse_allowed("127.0.0.0/8")
BODY = b'{"type":"ledger.test"}'


def leading_to(*addresses: str) -> Lookup:
    """Return a lookup that finds these addresses, whatever the name is."""

    def lookup(_host: str, _port: int) -> list[str]:
        return list(addresses)

    return lookup


def send(receiver: Receiver, *, timeout_s: float = 5.0, sender: Sender | None = None) -> str | None:
    """Send a message; return what kept it from arriving."""
    sender = sender or Sender(HERE, timeout_s)
    return sender.send(receiver.url, SECRET, "msg_1", BODY).error


def test_a_message_is_signed_so_that_a_verifier_and_the_standard_s_own_library_take_it() -> None:
    with Receiver() as receiver:
        assert send(receiver) is None
        [received] = receiver.received
    assert verify(shown_secret(SECRET), received.headers, received.body) == "msg_1"
    assert Webhook(shown_secret(SECRET)).verify(received.body, dict(received.headers)) == {
        "type": "ledger.test"
    }
    assert received.body == BODY
    assert received.path == "/hook?key=1"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
    for spoilt in (
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(int(time.time()) + 7)},
        {"webhook-timestamp": "1"},
    ):
        with pytest.raises(ValueError, match=r"no signature fits|too old"):
            verify(shown_secret(SECRET), {**received.headers, **spoilt}, received.body)
    with pytest.raises(ValueError, match="no signature fits"):
        verify(shown_secret(SECRET), received.headers, received.body + b" ")
    with pytest.raises(ValueError, match="no signature fits"):
        verify(shown_secret(SECRET[::-1]), received.headers, received.body)


def test_ids_of_messages_are_new_each_time_and_have_no_dots() -> None:
    ids = {new_message_id() for _ in range(100)}
    assert len(ids) == 100
    assert not any("." in each for each in ids)


@pytest.mark.parametrize("status", [199 + 1, 204, 299])
def test_every_status_of_success_is_one(status: int) -> None:
    with Receiver(lambda _: status) as receiver:
        assert send(receiver) is None


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 410, 429, 500, 503])
def test_every_other_status_is_none_and_no_redirect_is_followed(status: int) -> None:
    with Receiver(headers={}) as elsewhere, Receiver(lambda _: status) as receiver:
        receiver.more_headers["Location"] = elsewhere.url
        assert (send(receiver) or "").startswith(f"answered {status}")
        assert len(receiver.received) == 1
        assert elsewhere.received == []


@pytest.mark.parametrize(
    ("given", "seconds"), [("120", 120), ("x", 0), ("-5", 0), ("1e99", 86_400)]
)
def test_what_the_receiver_asks_for_is_heard(given: str, seconds: float) -> None:
    with Receiver(lambda _: 503, headers={"Retry-After": given}) as receiver:
        result = Sender(HERE).send(receiver.url, SECRET, "msg_1", BODY)
    assert (result.retry_after_s, result.is_gone) == (seconds, False)


def test_who_does_not_answer_is_left_in_time() -> None:
    with Receiver(lambda _: 30.0) as receiver:
        began = time.monotonic()
        assert send(receiver, timeout_s=0.3) == "no answer within 0.3 s"
        assert time.monotonic() - began < 10


def test_who_closes_early_has_not_taken_it() -> None:
    with Receiver(lambda _: "close") as receiver:
        assert "RemoteDisconnected" in (send(receiver) or "")


def test_nobody_at_the_port_is_a_failure_like_any_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = Sender(HERE, 2.0).send(f"http://127.0.0.1:{port}/", SECRET, "m", BODY)
    assert "ConnectionRefusedError" in (result.error or "")


def test_a_long_answer_is_not_read_to_its_end() -> None:
    with Receiver(text=b"x" * 50_000_000) as receiver:
        assert send(receiver) is None


def test_who_answers_byte_by_byte_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            client, _ = listener.accept()
            with client:
                try:
                    while True:
                        client.sendall(b"H")
                        time.sleep(0.02)
                except OSError:
                    return

        thread = Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        result = Sender(HERE, 0.5).send(url, SECRET, "m", BODY)
        thread.join(10)
    assert result.error == "no answer within 0.5 s"
    assert result.duration_s < 5


# Where webhooks may be


@pytest.mark.parametrize("kind", PRIVATE)
def test_a_name_that_leads_to_no_public_address_is_refused(kind: str) -> None:
    address = PRIVATE[kind]
    sender = Sender(NOWHERE_ELSE, lookup=leading_to("1.1.1.1", address))
    with pytest.raises(AddressRefused, match="not on the public Internet"):
        sender.target("https://looks-fine.example.org/")
    # An attempt is judged like a registration, and nothing is sent.
    result = sender.send("https://looks-fine.example.org/", SECRET, "m", BODY)
    assert "not on the public Internet" in (result.error or "")


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://localhost/",
        "https://localhost./",
        "https://0/",
        "https://169.254.169.254/latest/meta-data/",
    ],
)
def test_no_way_to_write_an_address_leads_inside(url: str) -> None:
    with pytest.raises(AddressRefused):
        Sender().target(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "lab.example.org",
        "ftp://lab.example.org/",
        "file:///etc/passwd",
        "gopher://lab.example.org/",
        "https://",
        "https:///path",
        "https://user:secret@lab.example.org/",
        "https://user@lab.example.org/",
        "https://lab.example.org:99999/",
        "https://lab.example.org/ x",
        "https://lab.example.org/\r\nX-Header: 1",
        "https://lab.example.org\\@127.0.0.1/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://l\u00e4b.example.org/",
        "https://lab.example.org/" + "x" * 2_000,
        "http://lab.example.org/",
    ],
)
def test_what_is_no_address_of_a_webhook_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        Sender(lookup=leading_to("1.1.1.1")).target(url)


def test_without_tls_only_what_was_allowed_is_spoken_to() -> None:
    sender = Sender(parse_allowed("10.0.0.0/8"), lookup=leading_to("10.0.0.1"))
    assert sender.target("http://inside.example.org/").port == 80
    both = Sender(parse_allowed("10.0.0.0/8"), lookup=leading_to("10.0.0.1", "1.1.1.1"))
    assert both.target("https://both.example.org/").port == 443
    with pytest.raises(AddressRefused, match="only reached over https"):
        both.target("http://both.example.org/")


def test_a_host_without_addresses_is_refused() -> None:
    with pytest.raises(AddressRefused, match="has no address"):
        Sender(lookup=leading_to()).target("https://lab.example.org/")
    with pytest.raises(AddressRefused, match="which is not an IP address"):
        Sender(lookup=leading_to("pigeon")).target("https://lab.example.org/")
    with pytest.raises(AddressRefused, match="cannot be looked up"):
        Sender().target("https://nowhere.invalid/")
    assert "127.0.0.1" in resolve("localhost", 80)


def test_a_name_that_leads_elsewhere_a_moment_later_changes_nothing() -> None:
    asked: list[str] = []

    def rebinding(host: str, _: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    with Receiver() as receiver:
        sender = Sender(HERE, 5.0, rebinding)
        url = f"http://lab.example.org:{receiver.port}/"
        assert sender.send(url, SECRET, "m", BODY).has_arrived
        assert receiver.received[0].headers["host"] == f"lab.example.org:{receiver.port}"
        assert asked == ["lab.example.org"]
        refused = sender.send(url, SECRET, "m", BODY)
        assert "10.0.0.1, which is not" in (refused.error or "")
        assert len(receiver.received) == 1


def test_the_first_address_that_answers_is_taken() -> None:
    with Receiver() as receiver:
        sender = Sender(HERE, 5.0, leading_to("127.0.0.77", "127.0.0.1"))
        url = f"http://lab.example.org:{receiver.port}/"
        assert sender.send(url, SECRET, "m", BODY).has_arrived


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of lab.example.org that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(  # noqa: S603
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=lab.example.org"),
            *("-addext", "subjectAltName=DNS:lab.example.org"),
            *("-keyout", str(key), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
    )
    return made, key


def test_the_certificate_is_judged_by_the_name_though_the_address_is_connected_to(
    certificate: tuple[Path, Path],
) -> None:
    made, key = certificate
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(made, key)
    trusting = ssl.create_default_context(cafile=str(made))
    with Receiver(tls=serving) as receiver:

        def post(host: str, tls: ssl.SSLContext | None) -> str | None:
            sender = Sender(HERE, 5.0, leading_to("127.0.0.1"), tls)
            return sender.send(f"https://{host}:{receiver.port}/", SECRET, "m", BODY).error

        assert post("lab.example.org", trusting) is None
        assert "Hostname mismatch" in (post("other.example.org", trusting) or "")
        assert "CERTIFICATE_VERIFY_FAILED" in (post("lab.example.org", None) or "")
        assert len(receiver.received) == 1
