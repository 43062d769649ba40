"""Row 1: which addresses may be connected to, on whatever Python."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_internvl.media.addresses import embedded, is_public

# The list of users_and_server.md, §3, what is_global gets right and wrong, and what clouds keep behind odd addresses.
REFUSED = [
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "64:ff9b:1:a9fe:a9:fe00::",
    "2002:7f00:1::",
    "224.0.0.1",
    "ff0e::1",
    "fec0::1",
    "::127.0.0.1",
    "192.0.0.8",
    "::ffff:127.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "2001::1",
    "fe80::1",
    "fe80::1%eth0",
    "0.0.0.0",
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "198.18.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "::",
    "::1",
    "fc00::1",
    "fd00:ec2::254",
    "2001:db8::1",
    "3fff::1",
    "ff02::1",
    "100::1",
    "2001:2::1",
    "5f00::1",
    "::ffff:0:127.0.0.1",
    "2002:a9fe:a9fe::1",
    "2002:c0a8:1::1",
    "64:ff9b::a9fe:a9fe",
    "::ffff:169.254.169.254",
    "2a00::5efe:10.0.0.1",
    "2a00::200:5efe:10.0.0.1",
    "192.0.0.192",
    "100.100.100.200",
    "168.63.129.16",
    "64:ff9b::168.63.129.16",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.215.14",
    "172.32.0.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_refused(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address):
    assert is_public(address)


def test_not_an_address():
    for text in ("", "localhost", "127.1", "0x7f.1", "2130706433"):
        with pytest.raises(ValueError):
            is_public(text)


PRIVATE = st.sampled_from(
    [(10, 8), (127, 8), (0, 8), (169 << 8 | 254, 16), (192 << 8 | 168, 16), (172 << 4 | 1, 12)]
).flatmap(lambda row: st.integers(0, 2 ** (32 - row[1]) - 1).map(lambda low: row[0] << (32 - row[1]) | low))
FORMS = {
    "compatible": lambda v4, rest: v4,
    "mapped": lambda v4, rest: 0xFFFF << 32 | v4,
    "translated": lambda v4, rest: 0xFFFF << 48 | v4,
    "NAT64": lambda v4, rest: 0x64FF9B << 96 | v4,
    "local NAT64": lambda v4, rest: 0x64FF9B0001 << 80 | rest >> 48 << 32 | v4,
    "6to4": lambda v4, rest: 0x2002 << 112 | v4 << 80 | rest,
    "Teredo server": lambda v4, rest: 0x20010000 << 96 | v4 << 64 | rest >> 16,
    "Teredo client": lambda v4, rest: 0x20010000 << 96 | rest >> 16 << 32 | v4 ^ 0xFFFFFFFF,
    "ISATAP": lambda v4, rest: 0x2A00 << 112 | rest >> 48 << 64 | 0x5EFE << 32 | v4,
}


@given(PRIVATE, st.sampled_from(sorted(FORMS)), st.integers(0, 2**80 - 1))
def test_private_address_in_any_form(v4, form, rest):
    assert not is_public(IPv4Address(v4))
    address = IPv6Address(FORMS[form](v4, rest))
    assert IPv4Address(v4) in list(embedded(address)), form
    assert not is_public(address)


@given(st.integers(0, 2**32 - 1))
def test_6to4_addresses(v4):
    assert is_public(IPv6Address(0x2002 << 112 | v4 << 80)) == is_public(IPv4Address(v4))


@given(st.integers(0, 2**128 - 1))
def test_only_global_unicast(number):
    if is_public(IPv6Address(number)):
        assert number >> 125 == 1  # 2000::/3, all that is given out
