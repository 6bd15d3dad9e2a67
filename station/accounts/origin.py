"""Where a request comes from."""

from __future__ import annotations

from django.http import HttpRequest

from station.configuration import castline


def address(request: HttpRequest) -> str:
    """The client's network address; behind `station.proxies` proxies, the one that the outermost of them saw.

    What stands further left in X-Forwarded-For was written by the client itself.
    """
    # PostgreSQL keeps addresses as such and takes no other word for a peer without one.
    peer: str = request.META.get("REMOTE_ADDR", "") or "0.0.0.0"
    proxies = castline().station.proxies
    if not proxies:
        return peer
    hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
    return hops[-proxies] if len(hops) >= proxies else peer
