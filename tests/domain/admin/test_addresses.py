"""Where webhooks may be: an address for every kind of network that is not the public Internet."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from recordledger.domain.admin.addresses import (
    EVERYWHERE,
    NOWHERE_ELSE,
    Allowed,
    is_public,
    parse_allowed,
    plain,
)

PUBLIC = [
    "1.1.1.1",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "2606:4700:4700::1111",
    "2a00:1450:4001::64",
]

PRIVATE = {
    "this host": "0.0.0.0",  # noqa: S104
    "this network": "0.1.2.3",
    "private 10": "10.0.0.1",
    "carrier-grade NAT": "100.64.0.1",
    "carrier-grade NAT, and a cloud's metadata": "100.100.100.200",
    "loopback": "127.0.0.1",
    "loopback, elsewhere": "127.255.255.254",
    "link-local": "169.254.1.1",
    "metadata of many clouds": "169.254.169.254",
    "private 172": "172.16.0.1",
    "private 172, its end": "172.31.255.255",
    "protocol assignments": "192.0.0.8",
    "documentation 1": "192.0.2.1",
    "documentation 2": "198.51.100.1",
    "documentation 3": "203.0.113.1",
    "6to4 relay": "192.88.99.1",
    "private 192": "192.168.1.1",
    "benchmarks": "198.18.0.1",
    "multicast": "224.0.0.1",
    "multicast, administratively scoped": "239.1.2.3",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "a cloud's own agent": "168.63.129.16",
    "unspecified": "::",
    "loopback of IPv6": "::1",
    "IPv4-mapped loopback": "::ffff:127.0.0.1",
    "IPv4-mapped metadata": "::ffff:169.254.169.254",
    "IPv4-mapped public": "::ffff:1.1.1.1",
    "IPv4-compatible": "::7f00:1",
    "IPv4-translated": "::ffff:0:7f00:1",
    "NAT64": "64:ff9b::7f00:1",
    "NAT64, local": "64:ff9b:1::a00:1",
    "discard": "100::1",
    "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "ORCHID": "2001:20::1",
    "benchmarks of IPv6": "2001:2::1",
    "documentation of IPv6": "2001:db8::1",
    "documentation of IPv6, new": "3fff::1",
    "6to4 of a private address": "2002:a00:1::1",
    "unique local": "fd00::1",
    "metadata of a cloud in IPv6": "fd00:ec2::254",
    "link-local of IPv6": "fe80::1",
    "link-local with a zone": "fe80::1%eth0",
    "a public one with a zone": "2606:4700::1%eth0",
    "site-local": "fec0::1",
    "multicast of IPv6": "ff02::1",
    "not given out": "4000::1",
}


@pytest.mark.parametrize("text", PUBLIC)
def test_the_public_internet_is_public(text: str) -> None:
    assert is_public(ip_address(text))
    assert NOWHERE_ELSE.admits(ip_address(text))


@pytest.mark.parametrize("kind", PRIVATE)
def test_everything_else_is_not(kind: str) -> None:
    address = ip_address(PRIVATE[kind])
    assert not is_public(address)
    assert not NOWHERE_ELSE.admits(address)
    assert Allowed(EVERYWHERE).admits(address)


def test_only_the_networks_that_are_allowed_are_allowed() -> None:
    allowed = parse_allowed("10.1.0.0/16, fd00::/8,127.0.0.1")
    for text in ("10.1.2.3", "fd12::1", "127.0.0.1", "::ffff:10.1.2.3", "1.1.1.1"):
        assert allowed.admits(ip_address(text))
    for text in ("10.2.0.1", "127.0.0.2", "::1", "fe80::1", "::ffff:10.2.0.1"):
        assert not allowed.admits(ip_address(text))
    assert allowed.is_private(ip_address("10.1.2.3"))
    assert not allowed.is_private(ip_address("1.1.1.1"))


@pytest.mark.parametrize("text", ["", "false", "No", "0"])
def test_nothing_is_allowed_unless_it_is_said(text: str) -> None:
    assert parse_allowed(text) == NOWHERE_ELSE


@pytest.mark.parametrize("text", ["true", "YES", " 1 "])
def test_everything_can_be_allowed(text: str) -> None:
    assert parse_allowed(text) == Allowed(EVERYWHERE)


@pytest.mark.parametrize("text", ["10.1.2.3/16", "everything", "10.0.0.0/40"])
def test_what_is_no_network_is_no_setting(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_allowed(text)


def test_a_mapped_address_is_plainly_the_older_one() -> None:
    assert plain(ip_address("::ffff:10.0.0.1")) == ip_address("10.0.0.1")
    assert plain(ip_address("2606::1")) == ip_address("2606::1")
    assert plain(ip_address("1.1.1.1")) == ip_address("1.1.1.1")
