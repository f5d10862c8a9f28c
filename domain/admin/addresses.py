"""Which addresses of the network a webhook may have: those of the public Internet, and no others.

What is allowed besides is said by networks, like `10.1.0.0/16`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

EVERYWHERE: Final = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))

# What is of special use, besides what Python knows as not global: registries of IANA.
_SPECIAL_V4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            # Given out by a provider to the machines of its cloud, and public by its number.
            "168.63.129.16/32",
        ),
    )
)
# Only this part of the other Internet is given out; within it, what leads into the older one or
# is for examples, tests and identifiers.
_GIVEN_V6: Final = IPv6Network("2000::/3")
_SPECIAL_V6: Final = tuple(
    map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "3ffe::/16"))
)


def is_public(address: Address) -> bool:
    """Return whether an address is one of the public Internet.

    >>> from ipaddress import ip_address
    >>> is_public(ip_address("93.184.216.34")), is_public(ip_address("::ffff:10.0.0.1"))
    (True, False)
    """
    if isinstance(address, IPv6Address):
        if address.scope_id is not None or address not in _GIVEN_V6 or not address.is_global:
            return False
        return not any(address in network for network in _SPECIAL_V6)
    return address.is_global and not any(address in network for network in _SPECIAL_V4)


def plain(address: Address) -> Address:
    """Return the older address that a newer one stands for, if it does; otherwise itself."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@dataclass(frozen=True, slots=True)
class Allowed:
    """Where webhooks may be besides the public Internet."""

    networks: tuple[Network, ...] = ()

    def admits(self, address: Address) -> bool:
        """Return whether a webhook may be there."""
        return self.is_private(address) or is_public(address)

    def is_private(self, address: Address) -> bool:
        """Return whether a setting allows it."""
        found = plain(address)
        return any(
            found.version == network.version and found in network for network in self.networks
        )


NOWHERE_ELSE: Final = Allowed()


def parse_allowed(text: str) -> Allowed:
    """Return what a setting allows: `true` for everything, `false`, or networks with commas.

    >>> parse_allowed("10.1.0.0/16, fd00::/8").networks
    (IPv4Network('10.1.0.0/16'), IPv6Network('fd00::/8'))

    Raises:
        ValueError: it is none of these.
    """
    match text.strip().lower():
        case "" | "false" | "no" | "0":
            return NOWHERE_ELSE
        case "true" | "yes" | "1":
            return Allowed(EVERYWHERE)
        case listed:
            return Allowed(_networks(listed.split(",")))


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    return tuple(ip_network(text.strip()) for text in texts if text.strip())
