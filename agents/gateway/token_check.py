"""Checks the token of a request to the gateway, and delays clients that guess.

Attempts are counted for each network of clients: an IPv4 address, or the /64 of an IPv6 address. After ten different wrong tokens from a
network, the next attempt of this network must wait 1 s. Each further wrong token doubles the wait, up to 10 s. An attempt during the wait
is refused, even if its token is right.

A wrong token that a network repeats is not a guess, and does not make the wait longer. So a camera with a wrong token does not block other
cameras behind the same address.

There is one exception: if a network has sent a right token before, the gateway accepts this token from this network even during a wait. So
a camera can go on while another machine behind the same address guesses. The gateway knows these networks also after a restart.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from aiohttp import web
from pydantic import SecretStr, TypeAdapter

from agents.gateway.upload_request import RequestRefusedError
from streams import metrics
from streams.atomic_file import write_atomically
from streams.client_address import find_client_address
from streams.server_limits import find_network

log = logging.getLogger(__name__)

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_FREE_ATTEMPTS = 10
# The longest time, in seconds, that a network must wait after it has sent wrong tokens.
_LONGEST_DELAY_S = 10.0
# If a network sends no new wrong token for this many seconds, the count of its wrong tokens starts again from 0. Wrong tokens that it has
# not repeated in this time are forgotten.
_FORGET_S = 900.0
_MAX_NETWORKS = 10_000
# At most this many wrong tokens of a network are remembered. If a camera repeats a remembered token, this does not count as a guess. A
# network rarely has so many cameras with wrong tokens.
_MAX_REMEMBERED_TOKENS = 32
_KNOWN_CLIENTS = TypeAdapter(list[tuple[str, str]])


class KnownClients:
    """The networks that have sent a right token, each with the owner of the token, such as a line.

    The networks are kept in a file, so that they are still known after a restart of the gateway. The file contains no token.
    """

    def __init__(self, file: Path | None = None, max_count: int = _MAX_NETWORKS) -> None:
        """Reads `file` if it exists. If `file` is None, the networks are kept only in memory.

        If there are more than `max_count` networks, the oldest are forgotten.
        """
        self._file = file
        self._max_count = max_count
        self._is_saved = True
        self._has_failed = False
        self._clients: OrderedDict[tuple[str, str], None] = OrderedDict(dict.fromkeys(self._read()))

    def _read(self) -> list[tuple[str, str]]:
        try:
            return _KNOWN_CLIENTS.validate_json(self._file.read_bytes())[-self._max_count :] if self._file and self._file.exists() else []
        except (OSError, ValueError) as error:
            log.warning("The file %s with the known clients cannot be read, so the gateway begins without them: %s", self._file, error)
            return []

    def __contains__(self, client: tuple[str, str]) -> bool:
        return client in self._clients

    def add(self, client: tuple[str, str]) -> None:
        """Adds a network and the owner of a right token."""
        is_new = client not in self._clients
        _put_last(self._clients, client, None, self._max_count)
        # `_is_saved` is set to False only after the client was added. Otherwise `save`, which runs in another thread, could set it to True
        # again without having saved the new client.
        if is_new:
            self._is_saved = False

    def save(self) -> None:
        """Writes the file if there are new clients. Call this method about once a second, in a thread that may wait for the disk."""
        if self._is_saved or self._file is None:
            return
        self._is_saved = True
        try:
            write_atomically(self._file, json.dumps(list(self._clients)), mode=0o600)
            self._has_failed = False
        except OSError as error:
            self._is_saved = False
            if not self._has_failed:
                log.warning("The file %s with the known clients cannot be written: %s", self._file, error.strerror)
            self._has_failed = True


@dataclass
class _WrongTokens:
    """The different wrong tokens that a network has sent.

    - `count`: the number of different wrong tokens.
    - `last_s`: the time at which the network last sent a new wrong token.
    - `digests`: the keyed digest of each remembered wrong token, with the time at which the network last sent this token.
    """

    count: int = 0
    last_s: float = 0.0
    digests: OrderedDict[bytes, float] = field(default_factory=OrderedDict)


class TokenCheck:
    """Checks tokens, and counts the wrong ones of each client network. A network is an IPv4 address, or the /64 of an IPv6 address.

    - `proxies`, `trusted_proxies`: the proxies whose header X-Forwarded-For names the client.
    - `clock`: returns monotonic seconds.
    - `max_networks`: limit for the networks whose wrong tokens are remembered. If there are more, the network with the oldest wrong token
      is forgotten.
    - `known`: the networks that have sent a right token.
    """

    def __init__(
        self,
        proxies: int = 0,
        trusted_proxies: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        max_networks: int = _MAX_NETWORKS,
        known: KnownClients | None = None,
    ) -> None:
        self._proxies = proxies
        self._trusted_proxies = trusted_proxies
        self._clock = clock
        self._max_networks = max_networks
        self._wrong: OrderedDict[str, _WrongTokens] = OrderedDict()
        self._known = KnownClients() if known is None else known
        # The digests of wrong tokens are made with this key, which is new after each start. So the digests alone do not help to find a
        # token.
        self._digest_key = secrets.token_bytes(32)
        self._proxy_problem = ""

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
            self._known.add((network, owner))
            self._check_proxy(request)
            return
        metrics.wrong_tokens.labels(line).inc()
        digest = hmac.digest(self._digest_key, owner.encode() + b"\0" + given, "sha256")
        is_repeat = network in self._wrong and digest in self._wrong[network].digests
        if wait_s and not is_repeat:
            raise RequestRefusedError(
                429,
                f"{network} has sent too many wrong tokens; wait {math.ceil(wait_s)} s, and correct the token at the camera",
                retry_after_s=math.ceil(wait_s),
            )
        self._count_wrong(network, digest, is_repeat)
        raise RequestRefusedError(401, f"expected {_name_ways(owner)}, found another token; correct it at the camera")

    def _count_wrong(self, network: str, digest: bytes, is_repeat: bool) -> None:
        wrong = self._wrong.get(network) or _WrongTokens()
        now_s = self._clock()
        if not is_repeat:
            wrong.count, wrong.last_s = wrong.count + 1, now_s
        _put_last(wrong.digests, digest, now_s, _MAX_REMEMBERED_TOKENS)
        _put_last(self._wrong, network, wrong, self._max_networks)

    def _check_proxy(self, request: web.Request) -> None:
        # The header X-Forwarded-For is checked only after a right token, because a stranger could send the header to raise a false alarm.
        if self._proxies or self._proxy_problem or "X-Forwarded-For" not in request.headers:
            return
        self._proxy_problem = (
            f"a request from {request.remote} has the header X-Forwarded-For, so it came through a proxy, but gateway.proxies is 0; all "
            "clients behind the proxy count as one, and wrong tokens of one client can delay the others; set gateway.proxies to the number "
            "of proxies, and gateway.trusted_proxies to their addresses"
        )
        log.warning("The settings of the gateway do not fit its proxies: %s.", self._proxy_problem)

    def find_proxy_problem(self) -> str:
        """Returns a sentence if requests came through a proxy that the settings do not name, otherwise ""."""
        return self._proxy_problem

    def find_client(self, request: web.Request) -> str:
        """Returns the address of the client. Behind a proxy, this is the address that the proxy names."""
        forwarded_for = ",".join(request.headers.getall("X-Forwarded-For", ()))
        return find_client_address(request.remote or "", forwarded_for, self._proxies, self._trusted_proxies)

    def _find_wait_s(self, network: str) -> float:
        wrong = self._wrong.get(network)
        if wrong is None:
            return 0.0
        now_s = self._clock()
        passed_s = now_s - wrong.last_s
        if passed_s > _FORGET_S:
            # The tokens that cameras still send stay remembered. If they were forgotten, they would count as guesses again.
            wrong.count = 0
            wrong.digests = OrderedDict((digest, sent_s) for digest, sent_s in wrong.digests.items() if now_s - sent_s <= _FORGET_S)
            if not wrong.digests:
                del self._wrong[network]
        if wrong.count < _FREE_ATTEMPTS:
            return 0.0
        return max(0.0, min(2.0 ** min(wrong.count - _FREE_ATTEMPTS, 10), _LONGEST_DELAY_S) - passed_s)


def _put_last(entries: OrderedDict[_Key, _Value], key: _Key, value: _Value, max_count: int) -> None:
    """Adds an entry to the end of `entries`, or moves it there. If there are more than `max_count` entries, deletes the first ones."""
    entries[key] = value
    entries.move_to_end(key)
    while len(entries) > max_count:
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
