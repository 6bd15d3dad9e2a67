"""Finds the network address of a client behind trusted proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence


def find_client_address(peer: str, forwarded_for: str, proxies: int, trusted: Sequence[str]) -> str:
    """Returns the address of the client that sent a request, even if proxies have passed the request on.

    - `peer`: the address from which the request came: the client itself, or the last proxy.
    - `forwarded_for`: the header X-Forwarded-For of the request. Each proxy appends the address from which it got the request.
    - `proxies`: the largest number of proxies in front of the server. If it is 0, the header is ignored.
    - `trusted`: the addresses and IP networks of the proxies. If `peer` is none of them, the header is ignored.
    """
    networks = [ipaddress.ip_network(network, strict=False) for network in trusted]
    address = peer
    for hop in [hop.strip() for hop in forwarded_for.split(",") if hop.strip()][: -proxies - 1 : -1]:
        if not _is_within(address, networks) or not _is_address(hop):
            break
        address = hop
    return address


def _is_within(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    if not _is_address(address):
        return False
    parsed = ipaddress.ip_address(address)
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(parsed in network for network in networks)


def _is_address(text: str) -> bool:
    """Returns whether `text` is an IP address without a zone. A zone, as in fe80::1%zone, is refused, because it can be any text."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
