"""Looks for security problems of the station: in the settings of Django, the accounts, the API tokens and the audit log."""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib.auth.models import User
from django.core.checks import WARNING, run_checks
from django_otp.plugins.otp_totp.models import TOTPDevice

from station.accounts.audit_log import verify_chain
from station.accounts.models import ApiToken
from station.accounts.second_factor import list_old_codes
from station.configuration import current_settings
from streams.security_finding import SecurityFinding

# The ids of Django's warnings that TLS is missing. These warnings are not serious if the station uses only the loopback interface,
# because no other machine can read the traffic there.
_WITHOUT_TLS = frozenset({"security.W004", "security.W008", "security.W012", "security.W016"})


def check_deployment(is_loopback: bool) -> Iterator[SecurityFinding]:
    """Yields a finding for each warning of Django's deployment check.

    A finding has the severity `high`. But if the station can be reached only from its own machine (`is_loopback`), missing TLS has the
    severity `low`.
    """
    for message in run_checks(include_deployment_checks=True):
        if message.level >= WARNING:
            is_allowed = is_loopback and message.id in _WITHOUT_TLS
            problem = f"Django's deployment check says ({message.id}): {str(message.msg).splitlines()[0]}"
            remedy = "Put a proxy with TLS in front of the station, and set station.behind_tls."
            yield SecurityFinding("low" if is_allowed else "high", problem, remedy)


def check_accounts() -> Iterator[SecurityFinding]:
    """Yields findings about accounts, API tokens and the audit log. All database migrations must have been applied."""
    report = verify_chain()
    for fault in report.faults:
        yield SecurityFinding(
            "high", f"The audit log: {fault}", "Compare the log with its copy on the log server. Find out who can write to the database."
        )
    for token in ApiToken.objects.filter(expires_at=None).select_related("user"):
        yield SecurityFinding(
            "medium",
            f"The API token of {token.user} for {token.name} never expires.",
            "Make a new token, and revoke the old one on the page API tokens.",
        )
    protected = TOTPDevice.objects.filter(confirmed=True).values("user")
    for user in User.objects.filter(is_active=True, groups__name="administrator").exclude(pk__in=protected):
        yield SecurityFinding(
            "medium", f"The administrator {user} has no second factor.", "Ask this person to set it up on the page Account."
        )
    for user in User.objects.filter(pk__in=list_old_codes().values("device__user")):
        yield SecurityFinding(
            "low",
            f"The recovery codes of {user} are from an earlier release. They are short, and the database holds them without a hash.",
            "Ask this person to make new recovery codes on the page Account.",
        )
    if not current_settings().station.audit_syslog:
        yield SecurityFinding("low", "No log server gets a copy of the audit log.", "Set station.audit_syslog.")
