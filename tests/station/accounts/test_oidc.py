"""The log-in by an OpenID Connect provider, against a small provider that signs real tokens."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.test.utils import override_settings
from joserfc.jwk import RSAKey
from pydantic import SecretStr, ValidationError

from station.accounts.access import get_role
from station.accounts.models import AuditEntry
from station.configuration import make_django_settings
from streams.settings import OidcSettings, Settings
from tests.postgres import PostgreSQL
from tests.station.accounts.oidc_provider import CLIENT, SECRET, OidcProvider, running_provider, sign_with_text
from tests.station.conftest import PASSWORD, SETTINGS, MakeAccount

# Two threads log the same person in. Both have found no account before one of them makes the account.
_TWO_FIRST_LOG_INS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from streams.settings import OidcSettings, load_settings
from station.configuration import configure
configure(load_settings(Path(sys.argv[1])))
from station.accounts.models import AuditEntry
from station.accounts.oidc import find_or_make_user
from station.archive.database import migrate_database
migrate_database()
together = Barrier(2)
class Claims(dict):
    def get(self, name, default=None):
        if name == "preferred_username":
            together.wait(60)
        return super().get(name, default)
def log_in(_):
    claims = Claims(sub="7", preferred_username="berta", roles=["castline-operator"])
    return find_or_make_user(OidcSettings(issuer="https://provider.test"), claims).username
with ThreadPoolExecutor(2) as threads:
    print(*threads.map(log_in, range(2)), AuditEntry.objects.filter(action="account made").count())
"""


def with_oidc(oidc: OidcSettings) -> Settings:
    return SETTINGS.model_copy(update={"station": SETTINGS.station.model_copy(update={"oidc": oidc})})


@pytest.fixture
def provider(database: object) -> Iterator[OidcProvider]:
    """A provider, and a station that uses it."""
    with running_provider() as provider:
        settings = with_oidc(OidcSettings(issuer=provider.issuer, client_id=CLIENT, client_secret=SecretStr(SECRET), title="the foundry"))
        with override_settings(CASTLINE=settings):
            yield provider


def begin(client: Client, **fields: str) -> str:
    """Presses the button of the log-in page. Returns the address of the provider to which the browser is sent."""
    response = client.post("/log-in/provider/", fields)
    assert response.status_code == 302
    return response["Location"]


def log_in(client: Client, provider: OidcProvider, **fields: str) -> Any:
    return client.get(provider.authorize(begin(client, **fields)))


def is_logged_in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


def test_the_log_in_is_off_by_default(visitor: Client) -> None:
    assert "Log in with" not in visitor.get("/log-in/").content.decode()
    assert visitor.post("/log-in/provider/").status_code == 404
    assert visitor.get("/log-in/provider/return").status_code == 404


def test_a_person_logs_in_and_gets_the_role_of_the_token(visitor: Client, provider: OidcProvider) -> None:
    assert "Log in with the foundry" in visitor.get("/log-in/").content.decode()
    response = log_in(visitor, provider, next="/history/")
    assert (response.status_code, response["Location"]) == (302, "/history/")
    user = User.objects.get(username="berta")
    assert get_role(user) == "reviewer"
    assert not user.has_usable_password()
    assert is_logged_in(visitor)
    assert visitor.session.get_expiry_age() > 3600, "the short end of the session before the log-in is gone"
    entries = [(entry.action, entry.subject, entry.detail.get("by")) for entry in AuditEntry.objects.order_by("id")]
    assert entries == [("account made", "berta", "OpenID Connect"), ("logged in", "berta", "OpenID Connect")]


def test_the_log_in_never_redirects_to_another_site(visitor: Client, provider: OidcProvider) -> None:
    assert log_in(visitor, provider, next="https://evil.example/")["Location"] == "/"


@pytest.mark.real
def test_two_first_log_ins_of_a_person_at_once_make_one_account_on_postgresql(tmp_path: Path) -> None:
    postgresql = PostgreSQL()
    try:
        file = tmp_path / "castline.toml"
        file.write_text(
            f'[station]\ndatabase = "postgresql://castline@127.0.0.1:{postgresql.port}/postgres"\nsecret_key_file = "{tmp_path}/key"\n'
        )
        done = subprocess.run([sys.executable, "-c", _TWO_FIRST_LOG_INS, file], capture_output=True, text=True, check=False, timeout=240)
    finally:
        postgresql.stop()
    assert done.stdout.split() == ["berta", "berta", "1"], done.stderr


def test_each_log_in_takes_over_the_role_of_the_token(visitor: Client, provider: OidcProvider) -> None:
    log_in(visitor, provider)
    provider.claims = {"roles": ["others", "castline-operator", "castline-engineer"]}
    log_in(other := Client(), provider)
    assert is_logged_in(other)
    assert get_role(User.objects.get(username="berta")) == "engineer"
    assert AuditEntry.objects.filter(action="account changed", subject="berta", detail__role="engineer").exists()
    provider.claims = {"roles": ["others"]}
    response = log_in(Client(), provider)
    assert response.status_code == 403
    assert "no role in this station" in response.content.decode()


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "http://127.0.0.1:1"}, "InvalidClaimError"),
        ({"aud": "another-station"}, "InvalidClaimError"),
        ({"aud": None}, "MissingClaimError"),
        ({"nonce": "of another log-in"}, "InvalidClaimError"),
        ({"nonce": None}, "MissingClaimError"),
        ({"exp": 1_700_000_000}, "ExpiredTokenError"),
        ({"exp": None}, "MissingClaimError"),
        ({"iat": 4_000_000_000}, "InvalidClaimError"),
        ({"nbf": 4_000_000_000}, "InvalidClaimError"),
        ({"sub": None}, "MissingClaimError"),
        ({"roles": None}, "no role"),
        ({"roles": {"castline-administrator": True}}, "no role"),
        ({"roles": [["castline-administrator"]]}, "no role"),
        ({"preferred_username": None}, "no name"),
        ({"preferred_username": "<script>"}, "no name"),
        ({"preferred_username": "x" * 151}, "no name"),
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(visitor: Client, provider: OidcProvider, claims: dict[str, Any], reason: str) -> None:
    provider.claims = claims
    response = log_in(visitor, provider)
    assert response.status_code == 403
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.detail) == ("log-in failed", {"reason": reason})
    assert not is_logged_in(visitor)
    assert not User.objects.exists()


def test_tokens_of_another_key_and_without_a_signature_by_a_private_key_are_refused(visitor: Client, provider: OidcProvider) -> None:
    provider.signing_key = RSAKey.generate_key(2048, {"kid": "first"})
    assert log_in(visitor, provider).status_code == 403
    for algorithm, secret in (("HS256", provider.key.as_pem(private=False)), ("HS256", SECRET.encode()), ("none", b"")):
        provider.forge = partial(sign_with_text, algorithm=algorithm, secret=secret)
        assert log_in(visitor, provider).status_code == 403
    assert not User.objects.exists()


def test_an_answer_is_taken_once_and_only_in_the_browser_that_began(visitor: Client, provider: OidcProvider) -> None:
    answer = provider.authorize(begin(visitor))
    assert Client().get(answer).status_code == 403, "another browser has no such state"
    assert visitor.get(answer.replace("state=", "state=x")).status_code == 403
    codes = dict(provider.codes)
    assert visitor.get(answer).status_code == 302
    visitor.post("/log-out/")
    provider.codes = codes  # a provider that takes a code twice
    assert visitor.get(answer).status_code == 403
    assert not is_logged_in(visitor)


def test_an_answer_that_no_log_in_of_the_browser_asked_for_leaves_no_trace(visitor: Client, provider: OidcProvider) -> None:
    queries = ("", "?state=x", "?state=x&code=y", "?state=x&error=access_denied")
    statuses = [visitor.get(f"/log-in/provider/return{query}").status_code for query in queries]
    assert statuses == [403] * len(queries)
    assert not AuditEntry.objects.exists()
    assert provider.requests == []


def test_a_stolen_code_is_worthless_without_its_code_verifier(visitor: Client, provider: OidcProvider) -> None:
    stolen = provider.authorize(begin(visitor)).partition("code=")[2].partition("&")[0]
    thief = Client()
    own = provider.authorize(begin(thief))
    address = own.replace(own.partition("code=")[2].partition("&")[0], stolen)
    assert thief.get(address).status_code == 403
    assert not User.objects.exists()


def test_a_token_opens_no_account_of_this_station(visitor: Client, provider: OidcProvider, account: MakeAccount) -> None:
    account("Berta", "administrator", password=True)
    response = log_in(visitor, provider)
    assert response.status_code == 403
    assert "another account with the name berta" in response.content.decode()
    assert visitor.post("/log-in/", {"username": "Berta", "password": PASSWORD}).status_code == 302, "the password works as before"


@pytest.mark.parametrize(
    ("existing", "name"), [("bert", "ｂert"), ("jürgen", "JÜRGEN"), ("jürgen", "ju\u0308rgen"), ("JÜRGEN", "jürgen"), ("strauss", "STRAUß")]
)
def test_a_name_that_looks_like_that_of_another_account_is_refused(
    visitor: Client, provider: OidcProvider, account: MakeAccount, existing: str, name: str
) -> None:
    account(existing, "operator")
    provider.claims = {"preferred_username": name}
    assert log_in(visitor, provider).status_code == 403
    assert AuditEntry.objects.filter(detail__reason="name taken").exists()


def test_the_name_of_a_new_account_has_its_usual_letters(visitor: Client, provider: OidcProvider) -> None:
    provider.claims = {"preferred_username": "ju\u0308rgen"}
    assert log_in(visitor, provider).status_code == 302
    assert User.objects.get().username == "j\u00fcrgen"


def test_another_person_with_the_same_name_gets_no_access(visitor: Client, provider: OidcProvider) -> None:
    log_in(visitor, provider)
    provider.claims = {"sub": "person-2"}
    assert log_in(Client(), provider).status_code == 403


def test_a_log_in_by_password_after_an_unfinished_one_gets_a_session_of_full_length(
    visitor: Client, provider: OidcProvider, account: MakeAccount
) -> None:
    account("anna", "operator", password=True)
    begin(visitor)
    assert visitor.session.get_expiry_age() <= 900
    assert visitor.post("/log-in/", {"username": "anna", "password": PASSWORD}).status_code == 302
    assert visitor.session.get_expiry_age() == SETTINGS.station.session_hours * 3600


def test_an_account_that_may_not_log_in_stays_closed(visitor: Client, provider: OidcProvider) -> None:
    log_in(visitor, provider)
    User.objects.update(is_active=False)
    assert log_in(Client(), provider).status_code == 403


def test_a_provider_that_names_another_issuer_or_is_away_is_refused_in_words(visitor: Client, provider: OidcProvider) -> None:
    provider.metadata = {"issuer": "http://127.0.0.1:1"}
    response = visitor.post("/log-in/provider/")
    assert response.status_code == 503
    assert "does not answer" in response.content.decode()
    with override_settings(CASTLINE=with_oidc(OidcSettings(issuer="http://127.0.0.1:9"))):
        assert visitor.post("/log-in/provider/").status_code == 503
    assert visitor.get("/log-in/provider/return?error=access_denied").status_code == 403


def test_the_page_may_send_its_form_to_the_provider_only() -> None:
    policy = make_django_settings(with_oidc(OidcSettings(issuer="https://login.example/realms/plant")))["CONTENT_SECURITY_POLICY"]
    assert policy["DIRECTIVES"]["form-action"][1:] == ["https://login.example"]


def test_an_issuer_without_tls_is_refused_except_on_this_machine() -> None:
    with pytest.raises(ValidationError, match="begins with https"):
        OidcSettings(issuer="http://login.example")
    assert OidcSettings(issuer="http://127.0.0.1:8080").origin == "http://127.0.0.1:8080"


def test_sessions_of_log_ins_that_were_never_finished_are_deleted(provider: OidcProvider) -> None:
    from django.contrib.sessions.models import Session
    from django.utils import timezone

    begin(Client())
    assert Session.objects.get().expire_date.timestamp() - time.time() < 1000
    Session.objects.update(expire_date=timezone.now())
    begin(Client())
    assert Session.objects.count() == 1


# Random digits, because a session is compressed.
DIGITS = random.Random(1).randbytes(350_000).hex()


@pytest.mark.parametrize("address", ["/" + DIGITS, "https://evil.example/" + DIGITS[:1900], "/" + DIGITS[:2000]])
def test_a_stranger_cannot_fill_the_database_with_the_address_of_the_next_page(provider: OidcProvider, address: str) -> None:
    from django.contrib.sessions.models import Session

    begin(Client(), next=address)
    assert len(Session.objects.get().session_data) < 1000


def test_a_stranger_cannot_fill_the_database_with_log_ins_of_one_session(visitor: Client, provider: OidcProvider) -> None:
    addresses = [begin(visitor) for _ in range(20)]
    assert sum(key.startswith("_state_") for key in list(visitor.session.keys())) == 8
    assert visitor.get(provider.authorize(addresses[-2])).status_code == 302


def test_the_roles_of_the_settings_exist(database: object) -> None:
    assert set(OidcSettings().roles.values()) == set(Group.objects.values_list("name", flat=True))
