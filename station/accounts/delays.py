"""Delays the next attempt with a password after wrong passwords, and the next code of the second factor after wrong codes.

Each delay ends, and an attempt during a delay does not make the delay longer. So nobody is locked out.

A wrong password adds 1 to three counters. The first counter belongs to the account, and the second to the IP network of the client. The
third counts only attempts on this account from this network. So an attacker cannot quickly try many passwords for one account, or many
accounts from one network.

If somebody has logged in to an account with a browser before, wrong passwords from this browser have a separate counter. So the wrong
passwords of a stranger do not delay the owner of the account.

A wrong code is counted for the account, or for the account in this browser. The network makes no difference, because a code has only six
digits, and an attacker can use many networks.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.core import signing
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponseBase

from station.accounts.models import LogInDelay
from station.configuration import name_cookie
from station.password_hasher import PasswordHasherBusyError
from streams.settings import StationSettings

_DEVICE_COOKIE = "castline_device"
_DEVICE_SALT = "station.accounts.delays.device"
_DEVICE_AGE = timedelta(days=180)
_MAX_ACCOUNTS_OF_DEVICE = 16

# If nobody enters a wrong password for a day, the counter of wrong passwords starts again at 0.
_FORGET_AFTER = timedelta(days=1)
# Each attempt deletes at most this many old rows from the table of failures. It adds at most three rows.
_MAX_FORGOTTEN = 100
# A wrong password can delay all people who use the same IP address. So the delay of an address begins only after many wrong passwords, and
# is short.
_NETWORK_FAILURES_FACTOR = 4
_LONGEST_NETWORK_DELAY_S = 60.0
# A stranger who enters wrong passwords also delays the owner of the account, so the delay of an account is at most 10 s. With this delay,
# the stranger can try only 8,640 passwords a day.
_LONGEST_ACCOUNT_DELAY_S = 10.0
# A code of the app has six digits, and the station accepts three of the million codes at a time. With a delay of 900 s, somebody who knows
# the password can try 96 codes a day in unknown browsers. The chance that one of them is right is then 0.03 % a day.
_FREE_WRONG_CODES = 5
_LONGEST_CODE_DELAY_S = 900.0
# Several people can use one browser, for example in a control room. So a right code forgives only one wrong code, in each browser.
# Without this, the typing errors of the owner would add up, because the counter ends only after a day without any code.
_FORGIVEN_CODES = 1
_ALL_FAILURES = 2**31


@dataclass(frozen=True)
class DelayRule:
    """The rule of one counter of wrong passwords or codes (failures). `key` names the counter, for example the counter of an account.

    After `free_failures` failures, the delay is 1 s. The delay doubles with each further failure, up to `longest_s`.

    A success also subtracts `forgiven_failures` earlier failures. If the counter counts the failures of other people, too, this number is
    small. Otherwise, each success of the owner would give a stranger many further attempts.
    """

    key: str
    free_failures: int
    longest_s: float
    forgiven_failures: int = 0

    def compute_delay_s(self, failures: int) -> float:
        """Returns the delay after `failures` failures: the seconds from the last failure to the next allowed attempt."""
        beyond = failures - self.free_failures
        return 0.0 if beyond < 0 else min(2.0 ** min(beyond, 30), self.longest_s)


def make_log_in_rules(station: StationSettings, name: str, address: str, device: str) -> list[DelayRule]:
    """Returns the rules for an attempt to log in to the account `name` from `address`: one rule for each counter of wrong passwords.

    `device` is the id of the browser if somebody has logged in to the account with this browser before, else "".
    """
    account, network = name.casefold(), find_network(address)
    few, longest_s = station.log_in_failures, station.log_in_lock_minutes * 60
    if device:
        return [DelayRule(_make_key("device", device, account), few, longest_s, _ALL_FAILURES)]
    many = few * _NETWORK_FAILURES_FACTOR
    return [
        DelayRule(_make_key("account and network", account, network), few, longest_s, _ALL_FAILURES),
        DelayRule(_make_key("network", network), many, min(longest_s, _LONGEST_NETWORK_DELAY_S)),
        DelayRule(_make_key("account", account), many, min(longest_s, _LONGEST_ACCOUNT_DELAY_S)),
    ]


def make_password_rules(station: StationSettings, account: int) -> list[DelayRule]:
    """Returns the rule for a logged-in user who must enter the present password again, for example to change the password.

    The account has one counter for these attempts, whatever network the user works in.
    """
    return [DelayRule(_make_key("old password", str(account)), station.log_in_failures, station.log_in_lock_minutes * 60, _ALL_FAILURES)]


def make_code_rules(account: int, device: str) -> list[DelayRule]:
    """Returns the rule that delays codes of the app after wrong codes for `account`, a primary key.

    `device` is the id of the browser if the account has logged in with this browser before, else "".
    """
    if device:
        key = _make_key("code and device", device, str(account))
        return [DelayRule(key, _FREE_WRONG_CODES, _LONGEST_CODE_DELAY_S, _FORGIVEN_CODES)]
    return [DelayRule(_make_key("code", str(account)), _FREE_WRONG_CODES, _LONGEST_CODE_DELAY_S, _FORGIVEN_CODES)]


def find_network(address: str) -> str:
    """Returns an IPv4 address unchanged, and the /64 network of an IPv6 address, because one client can use a whole /64 network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def begin_attempt(rules: Sequence[DelayRule], now: datetime) -> float:
    """Begins an attempt with a password or a code. If the attempt is allowed, counts a failure and returns 0.

    If the attempt comes too early, counts nothing and returns the remaining seconds of the delay.

    An attempt is counted before its password or code is checked. Otherwise many simultaneous attempts could avoid the delay. Call
    `end_attempt` if the password or code is right.
    """
    with transaction.atomic():
        rows = {key: LogInDelay(key=key, failed_at=now) for key in sorted(rule.key for rule in rules)}
        # Only existing rows can be locked, so first create the rows that are missing. Otherwise two attempts at the same moment could both
        # be the first one, and neither would wait for the other.
        LogInDelay.objects.bulk_create(rows.values(), ignore_conflicts=True)
        rows |= {row.key: row for row in _lock_rows(rules)}
        for row in rows.values():
            if now - row.failed_at >= _FORGET_AFTER:
                row.failures = 0
            # If the clock was set back, the last failure lies in the future. Begin its delay now, so that nobody waits too long.
            row.failed_at = min(row.failed_at, now)
        wait_s = max(rule.compute_delay_s(rows[rule.key].failures) - (now - rows[rule.key].failed_at).total_seconds() for rule in rules)
        if wait_s <= 0:
            for row in rows.values():
                row.failures, row.failed_at = row.failures + 1, now
        LogInDelay.objects.bulk_create(rows.values(), update_conflicts=True, unique_fields=["key"], update_fields=["failures", "failed_at"])
    _forget_others(now)
    return max(wait_s, 0.0)


def end_attempt(rules: Sequence[DelayRule]) -> None:
    """Ends an attempt whose password or code was right. Subtracts the failure that `begin_attempt` has counted.

    Also subtracts the `forgiven_failures` of each rule. The counter of a network keeps its other failures. Otherwise, an attacker who has
    an account could reset this counter by a log-in to that account.
    """
    _subtract(rules, {rule.key: 1 + rule.forgiven_failures for rule in rules})


@contextmanager
def cancelled_if_busy(rules: Sequence[DelayRule]) -> Iterator[None]:
    """Cancels the attempt if the `with` block raises PasswordHasherBusyError: subtracts the failure that `begin_attempt` has counted."""
    try:
        yield
    except PasswordHasherBusyError:
        _subtract(rules, {rule.key: 1 for rule in rules})
        raise


def _subtract(rules: Sequence[DelayRule], failures: Mapping[str, int]) -> None:
    """Subtracts `failures` from the counters of `rules`. The keys of `failures` are the keys of the counters."""
    with transaction.atomic():
        for row in _lock_rows(rules):
            row.failures = max(row.failures - failures[row.key], 0)
            row.save(update_fields=["failures"])


def _lock_rows(rules: Sequence[DelayRule]) -> QuerySet[LogInDelay]:
    # All attempts lock their rows in the order of the keys, so that two attempts cannot cause a deadlock.
    return LogInDelay.objects.select_for_update().filter(key__in=[rule.key for rule in rules]).order_by("key")


def _forget_others(now: datetime) -> None:
    """Deletes up to 100 old counters of failed log-ins. If the clock was set back, also deletes counters from the far future."""
    over = Q(failed_at__lt=now - _FORGET_AFTER) | Q(failed_at__gt=now + _FORGET_AFTER)
    with transaction.atomic():
        rows = LogInDelay.objects.select_for_update(skip_locked=True).filter(over)[:_MAX_FORGOTTEN]
        LogInDelay.objects.filter(key__in=[row.key for row in rows]).delete()


def find_device(request: HttpRequest, account: int | None) -> str:
    """Returns the id of the browser if somebody has logged in to `account` with it before, else "". `account` is a primary key."""
    device, accounts = _read_device(request)
    return device if account is not None and account in accounts else ""


def remember_device(request: HttpRequest, response: HttpResponseBase, account: int) -> None:
    """Adds a signed cookie to `response`, which says that the account has logged in with this browser."""
    device, accounts = _read_device(request)
    kept = [account, *(other for other in accounts if other != account)][:_MAX_ACCOUNTS_OF_DEVICE]
    value = signing.dumps([device or secrets.token_hex(16), kept], salt=_DEVICE_SALT)
    age_s = int(_DEVICE_AGE.total_seconds())
    name = name_cookie(_DEVICE_COOKIE, request.is_secure())
    response.set_cookie(name, value, max_age=age_s, httponly=True, samesite="Strict", secure=request.is_secure())


def _read_device(request: HttpRequest) -> tuple[str, list[int]]:
    cookie = request.COOKIES.get(name_cookie(_DEVICE_COOKIE, request.is_secure()), "")
    try:
        device, accounts = signing.loads(cookie, salt=_DEVICE_SALT, max_age=_DEVICE_AGE)
    except signing.BadSignature:
        return "", []
    return device, accounts


def _make_key(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()
