"""Public IP addresses: those that a server may connect to for an untrusted URL (SSRF guard).

In: an address. Out: whether it and every address embedded in it are public. Resolves no name.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

# Not public, in addition to the lists of `ipaddress`, which differ between Python versions.
_REFUSED = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # IETF protocol assignments; a cloud's metadata are at 192.0.0.192
            "192.88.99.0/24",  # 6to4 relays
            "168.63.129.16/32",  # public in form, but a cloud's host agent
            "64:ff9b:1::/48",  # NAT64 of a local network
            "2001::/23",  # protocol assignments, Teredo among them
            "3fff::/20",  # documentation
            "fec0::/10",  # site-local
        ),
    )
)
# IPv6 networks whose addresses hold an IPv4 address that packets may be forwarded to -> bits below that address.
_EMBEDDED = {
    ip_network("::/96"): 0,  # v4-compatible
    ip_network("::ffff:0:0/96"): 0,  # v4-mapped
    ip_network("::ffff:0:0:0/96"): 0,  # v4-translated
    ip_network("64:ff9b::/96"): 0,  # NAT64
    ip_network("64:ff9b:1::/48"): 0,
    ip_network("2002::/16"): 80,  # 6to4
    ip_network("2001::/32"): 64,  # Teredo: the server; the client is added in `embedded`
}
_TEREDO = ip_network("2001::/32")
_ISATAP = (0x00005EFE, 0x02005EFE)  # upper half of an interface identifier; the lower half is a v4 address


def embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses embedded in an IPv6 address."""
    number = int(address)
    for network, below in _EMBEDDED.items():
        if address in network:
            yield IPv4Address(number >> below & 0xFFFFFFFF)
    if address in _TEREDO:
        yield IPv4Address(~number & 0xFFFFFFFF)  # the client, stored inverted
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        yield IPv4Address(number & 0xFFFFFFFF)


def is_public(address: str | IPv4Address | IPv6Address) -> bool:
    """Whether an address and every address embedded in it belong to the public internet.

    Raises:
        ValueError: no IP address.
    """
    address = ip_address(address)
    if isinstance(address, IPv6Address):
        return _is_public(address) and not address.is_site_local and all(map(_is_public, embedded(address)))
    return _is_public(address)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved)
        and not any(address in network for network in _REFUSED if network.version == address.version)
    )
