"""The log-in by an OpenID Connect provider, with the library Authlib: authorization code flow with PKCE, state and nonce.

The first log-in of a person makes an account. The next log-ins find this account by two claims in the provider's token: issuer and
subject. An account that was made at this station cannot be used through the provider, even if the person has the same name there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import requests
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from station.accounts.access import ROLES, Role, assign_role, get_role, render_error_page
from station.accounts.models import AuditEntry, OidcIdentity
from station.configuration import current_settings
from streams.errors import SettingsError
from streams.printable import make_printable
from streams.settings import OidcSettings

log = logging.getLogger(__name__)

_BACKEND = "django.contrib.auth.backends.ModelBackend"
_NEXT = "oidc_next"
# The name by which Authlib knows the provider. Authlib stores each unfinished log-in in the session, under the key `_state_<name>_<state>`.
_CLIENT = "castline"
_STATE_PREFIX = f"_state_{_CLIENT}_"
# One session can have at most 8 unfinished log-ins, for example one in each tab of a browser.
_MAX_BEGUN = 8
_MAX_NEXT = 2000
_REQUEST_TIMEOUT_S = 5.0
# Largest allowed difference between the clocks of the provider and of the station.
_CLOCK_LEEWAY_S = 60
_READ_AGAIN_AFTER_S = 3600
# A token must be signed with one of these algorithms, whatever algorithms the metadata of the provider names.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LOG_IN_TIME_S = 900
_MAX_NAME = 150


class LogInRefusedError(Exception):
    """Raised if a log-in by the provider is refused. `reason` goes to the audit log. The person sees the message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check_library(settings: OidcSettings) -> None:
    """Raises SettingsError if the log-in by a provider is set up, but its library is missing or its secret cannot be read."""
    if not settings.issuer:
        return
    if find_spec("authlib") is None:
        raise SettingsError(
            "station.oidc.issuer is set, but the extra oidc is not installed. Install it with: pip install 'castline[oidc]'"
        )
    try:
        settings.read_client_secret()
    except ValueError as error:
        raise SettingsError(f"station.oidc: {error}") from None


@require_POST
@never_cache
def begin(request: HttpRequest) -> HttpResponse:
    """Begins a log-in: sends the browser to the provider. Keeps the state, the nonce and the code verifier in the session."""
    settings = _get_settings()
    if request.user.is_authenticated:
        return redirect("wall")
    # A stranger can begin many log-ins, and each one adds a session to the database. So the session of an unfinished log-in expires after
    # 15 minutes, and each new log-in deletes expired sessions.
    request.session.clear_expired()
    request.session.set_expiry(_LOG_IN_TIME_S)
    try:
        response: HttpResponse = _get_client(settings).authorize_redirect(request, request.build_absolute_uri(reverse("oidc-return")))
    except (requests.RequestException, ValueError, RuntimeError) as error:
        log.warning("The OpenID Connect provider %s cannot be used: %s", settings.issuer, error)
        sentence = f"The provider of {settings.title} does not answer. Try again later, or log in with a password."
        return render_error_page(request, 503, "No log-in", sentence)
    _forget_oldest_log_ins(request)
    # The field `next` names the page that the person sees after the log-in. A stranger can send any text in this field. The session stores
    # only a short address of this station, because long texts could fill the database.
    address = request.POST.get("next", "")
    request.session[_NEXT] = address if len(address) <= _MAX_NEXT and _is_safe(request, address) else ""
    return response


def _forget_oldest_log_ins(request: HttpRequest) -> None:
    begun = [key for key in list(request.session.keys()) if key.startswith(_STATE_PREFIX)]
    for key in begun[:-_MAX_BEGUN]:
        del request.session[key]


def _is_safe(request: HttpRequest, address: str) -> bool:
    return url_has_allowed_host_and_scheme(address, {request.get_host()}, require_https=request.is_secure())


@require_GET
@never_cache
def finish(request: HttpRequest) -> HttpResponse:
    """Ends a log-in: reads the answer of the provider, checks the token in it, and logs the person in."""
    settings = _get_settings()
    if not _has_begun(request):
        sentence = "No log-in of this browser waits for an answer of the provider. Begin the log-in again."
        return render_error_page(request, 403, "No log-in", sentence)
    try:
        claims = _fetch_claims(request, settings)
        user = find_or_make_user(settings, claims)
    except LogInRefusedError as refusal:
        AuditEntry.record(None, "log-in failed", "(by OpenID Connect)", reason=refusal.reason)
        return render_error_page(request, 403, "No log-in", str(refusal))
    address = request.session.pop(_NEXT, "")
    request.session.set_expiry(None)
    login(request, user, _BACKEND)
    AuditEntry.record(user, "logged in", user.get_username(), by="OpenID Connect")
    return redirect(address if _is_safe(request, address) else resolve_url("wall"))


def _has_begun(request: HttpRequest) -> bool:
    """Returns whether this browser has begun the log-in that the provider answers.

    `finish` calls this function first. Otherwise each request of a stranger would add an audit entry and send a request to the provider.
    """
    state = request.GET.get("state")
    return bool(state) and f"{_STATE_PREFIX}{state}" in request.session


def _get_settings() -> OidcSettings:
    settings = current_settings().station.oidc
    if not settings.issuer:
        raise Http404
    return settings


def _get_client(settings: OidcSettings) -> Any:
    """Returns Authlib's client for the provider. The client reads the provider's metadata again after an hour."""
    client = _make_client(settings.issuer, settings.client_id, settings.read_client_secret(), int(time.monotonic() / _READ_AGAIN_AFTER_S))
    metadata = client.load_server_metadata()
    if metadata.get("issuer") != settings.issuer:
        raise ValueError(f"its metadata names another issuer, {str(metadata.get('issuer'))[:200]!r}")
    metadata["id_token_signing_alg_values_supported"] = list(_ALGORITHMS)
    return client


@lru_cache(maxsize=4)
def _make_client(issuer: str, client_id: str, secret: str, period: int) -> Any:
    # Authlib is imported here, because only stations with a log-in by OpenID Connect have it installed.
    from authlib.integrations.django_client import OAuth

    return OAuth().register(
        _CLIENT,
        client_id=client_id,
        client_secret=secret or None,
        server_metadata_url=f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={
            "scope": "openid profile",
            "code_challenge_method": "S256",
            "default_timeout": _REQUEST_TIMEOUT_S,
            "token_endpoint_auth_method": "client_secret_basic" if secret else "none",
        },
    )


def _fetch_claims(request: HttpRequest, settings: OidcSettings) -> Mapping[str, Any]:
    """Fetches the token of the provider, checks its signature, issuer, audience, nonce and times, and returns its claims."""
    from authlib.common.errors import AuthlibBaseError
    from joserfc.errors import JoseError

    expected = {
        "iss": {"essential": True, "value": settings.issuer},
        "aud": {"essential": True, "value": settings.client_id},
        "sub": {"essential": True},
        "exp": {"essential": True},
    }
    try:
        token = _get_client(settings).authorize_access_token(request, claims_options=expected, leeway=_CLOCK_LEEWAY_S)
    except (AuthlibBaseError, JoseError, requests.RequestException, ValueError, RuntimeError) as error:
        log.warning("A log-in by the OpenID Connect provider %s was refused: %s", settings.issuer, make_printable(str(error)))
        raise LogInRefusedError(type(error).__name__, "The answer of the provider was not accepted. Begin the log-in again.") from None
    claims: Mapping[str, Any] | None = token.get("userinfo")
    if not claims:
        raise LogInRefusedError("no token", "The answer of the provider was not accepted. Begin the log-in again.")
    return claims


def _find_role(settings: OidcSettings, claims: Mapping[str, Any]) -> Role:
    value = claims.get(settings.role_claim)
    names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    granted = {settings.roles.get(name) for name in names if isinstance(name, str)}
    role = next((role for role in reversed(ROLES) if role in granted), None)
    if role is None:
        raise LogInRefusedError("no role", "Your account at the provider has no role in this station. Ask an administrator for a role.")
    return role


def find_or_make_user(settings: OidcSettings, claims: Mapping[str, Any]) -> User:
    """Returns the account of the person, with the role that the token names. Makes the account at the first log-in.

    Raises LogInRefusedError if the person may not log in.
    """
    try:
        return _find_or_make_user_once(settings, claims)
    except IntegrityError:
        # Another request has made an account for the same person, or with the same name, at the same moment. Try again, because the
        # function now finds this account.
        return _find_or_make_user_once(settings, claims)


@transaction.atomic
def _find_or_make_user_once(settings: OidcSettings, claims: Mapping[str, Any]) -> User:
    role, subject = _find_role(settings, claims), str(claims["sub"])
    identity = OidcIdentity.objects.select_related("user").filter(issuer=settings.issuer, subject=subject).first()
    user = identity.user if identity else _make_user(settings, subject, str(claims.get(settings.name_claim, "")), role)
    if not user.is_active:
        raise LogInRefusedError("not active", "This account may not log in. Ask an administrator.")
    if get_role(user) != role:
        AuditEntry.record(None, "account changed", user.username, changed=["role"], role=role, by="OpenID Connect")
        assign_role(user, role)
    return user


def _is_taken(name: str) -> bool:
    """Returns whether an account has `name`, or a name that looks the same or differs only in upper and lower case."""
    # Compare the names in Python, because SQLite knows upper and lower case only for ASCII letters, and not for letters such as "é".
    taken = User.objects.values_list("username", flat=True).iterator()
    return any(_fold(other) == _fold(name) for other in taken)


def _fold(name: str) -> str:
    return str(User.normalize_username(User.normalize_username(name).casefold()))


def _make_user(settings: OidcSettings, subject: str, name: str, role: Role) -> User:
    name = User.normalize_username(name)
    try:
        UnicodeUsernameValidator()(name)
    except ValidationError:
        name = ""
    if not 0 < len(name) <= _MAX_NAME:
        raise LogInRefusedError(
            "no name", f"The provider sent no valid name for an account in {settings.name_claim}. Ask an administrator."
        )
    if _is_taken(name):
        # Refuse the name of an existing account. A person can perhaps choose any name at the provider, and must not get the account of
        # another person.
        raise LogInRefusedError("name taken", f"This station already has another account with the name {name}. Ask an administrator.")
    user = User(username=name)
    user.set_unusable_password()
    user.save()
    assign_role(user, role)
    OidcIdentity.objects.create(user=user, issuer=settings.issuer, subject=subject)
    AuditEntry.record(None, "account made", name, role=role, by="OpenID Connect")
    return user
