"""Checks the token of a request to the gateway, and delays clients that guess.

After ten wrong tokens of a network, its next attempt must wait: 1 s, and then twice as long after each further wrong token, up to 10 s. An
attempt that comes too early is refused without a look at its token. A network that has already sent the right token of a line is an
exception: this token stays valid during the delays. So a camera goes on while another machine behind the same address guesses.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

from aiohttp import web
from pydantic import SecretStr

from agents.gateway.upload_request import RequestRefusedError
from streams import metrics
from streams.client_address import find_client_address
from streams.server_limits import find_network

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_FREE_ATTEMPTS = 10
# The same longest delay as for an account of the station. While a stranger guesses behind the same address, a new camera of this address
# gets its first token accepted within a few such delays.
_LONGEST_DELAY_S = 10.0
# Wrong tokens are forgotten when a network has sent none for this time.
_FORGET_S = 900.0
_MAX_NETWORKS = 10_000


class TokenCheck:
    """Checks tokens, and counts the wrong ones of each client network. A network is an IPv4 address, or the /64 of an IPv6 address.

    - `proxies`, `trusted_proxies`: the proxies whose header X-Forwarded-For names the client.
    - `clock`: returns monotonic seconds.
    - `max_networks`: the networks that came first are forgotten if there are more.
    """

    def __init__(
        self,
        proxies: int = 0,
        trusted_proxies: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        max_networks: int = _MAX_NETWORKS,
    ) -> None:
        self._proxies = proxies
        self._trusted_proxies = trusted_proxies
        self._clock = clock
        self._max_networks = max_networks
        # For each network: the number of its wrong tokens, and the time of the last one.
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        # The networks that have sent a right token, each with the owner of the token.
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def expect_token(self, request: web.Request, token: SecretStr, owner: str, line: str) -> None:
        """Raises RequestRefusedError unless the request has `token`, the token of `owner`, such as a line.

        An empty `token` fits no request. The error has the status 401 if the token is missing or wrong, and 429 if the client must wait.
        Wrong tokens and early attempts count in the metric of `line`.
        """
        given = _read_token(request, token, owner)
        network = find_network(self.find_client(request))
        wait_s = self._find_wait_s(network)
        is_known = (network, owner) in self._known
        # compare_digest takes the same time for every wrong guess. So the time does not reveal how many characters of a guess are right.
        if (is_known or not wait_s) and hmac.compare_digest(given, token.get_secret_value().encode()):
            self._remember(self._known, (network, owner), None)
            return
        metrics.wrong_tokens.labels(line).inc()
        if wait_s:
            raise RequestRefusedError(
                429,
                f"{network} has sent too many wrong tokens; wait {math.ceil(wait_s)} s, and correct the token at the camera",
                retry_after_s=math.ceil(wait_s),
            )
        count, _ = self._wrong.get(network, (0, 0.0))
        self._remember(self._wrong, network, (count + 1, self._clock()))
        raise RequestRefusedError(401, f"expected {_name_ways(owner)}, found another token; correct it at the camera")

    def find_client(self, request: web.Request) -> str:
        """Returns the address of the client. Behind a proxy, this is the address that the proxy names."""
        forwarded_for = ",".join(request.headers.getall("X-Forwarded-For", ()))
        return find_client_address(request.remote or "", forwarded_for, self._proxies, self._trusted_proxies)

    def _find_wait_s(self, network: str) -> float:
        count, last_s = self._wrong.get(network, (0, 0.0))
        passed_s = self._clock() - last_s
        if passed_s > _FORGET_S:
            self._wrong.pop(network, None)
            return 0.0
        if count < _FREE_ATTEMPTS:
            return 0.0
        return max(0.0, min(2.0 ** min(count - _FREE_ATTEMPTS, 10), _LONGEST_DELAY_S) - passed_s)

    def _remember(self, entries: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
        entries[key] = value
        entries.move_to_end(key)
        while len(entries) > self._max_networks:
            entries.popitem(last=False)


def _read_token(request: web.Request, token: SecretStr, owner: str) -> bytes:
    """Returns the token that a request gives. Raises RequestRefusedError with status 401 if `token` is empty or the request gives none."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if not token.get_secret_value():
        raise RequestRefusedError(
            401, f"no token is set for {owner}, so all requests are refused; set it in castline.toml or as a variable"
        )
    if not scheme:
        raise RequestRefusedError(401, f"expected {_name_ways(owner)}, found no Authorization; enter the token at the camera")
    if scheme.lower() not in ("bearer", "basic"):
        raise RequestRefusedError(401, f"expected {_name_ways(owner)}, found {scheme[:20]!r}; choose Basic authentication at the camera")
    secret = given.strip().encode("utf-8", "surrogateescape")
    return _read_password(secret) if scheme.lower() == "basic" else secret


def _name_ways(owner: str) -> str:
    return f"Authorization: Bearer or Basic with the token of {owner} (as password)"


def _read_password(encoded: bytes) -> bytes:
    """Returns the password in the credentials of Basic authentication, or b"" if they are malformed. Source: RFC 7617."""
    try:
        return base64.b64decode(encoded, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
