"""Tests of the log-in: redirects, the delays after wrong passwords, sessions, and forms without a valid CSRF token."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.test import Client, RequestFactory, override_settings
from django.utils import timezone

from station.accounts.delays import begin_attempt, cancelled_if_busy, make_log_in_rules
from station.accounts.log_in import client_address
from station.accounts.models import ApiToken, AuditEntry, LogInDelay
from station.live.views import _is_still_permitted
from station.password_hasher import PasswordHasherBusyError
from tests.postgres import PostgreSQL
from tests.station.accounts.failures import later
from tests.station.conftest import PASSWORD, SETTINGS, MakeAccount

# Twelve threads begin the first attempts at one account. The clock stands still, so a slow machine changes no result.
_TWELVE_ATTEMPTS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from streams.settings import load_settings
from station.configuration import configure
configure(settings := load_settings(Path(sys.argv[1])))
from django.utils import timezone
from station.accounts.delays import begin_attempt, make_log_in_rules
from station.archive.database import migrate_database
migrate_database()
now, together = timezone.now(), Barrier(12)
rules = make_log_in_rules(settings.station, "anna", "192.0.2.1", "")
def attempt(_):
    together.wait()
    return begin_attempt(rules, now)
with ThreadPoolExecutor(12) as threads:
    print(*sorted(round(wait_s) for wait_s in threads.map(attempt, range(12))))
"""


def log_in(client: Client, name: str, password: str, **fields: str) -> int:
    return client.post("/log-in/", {"username": name, "password": password, **fields}).status_code


def test_after_the_log_in_the_requested_page_is_shown(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    response = visitor.post("/log-in/", {"username": "anna", "password": PASSWORD, "next": "/account/"})
    assert response["Location"] == "/account/"
    page = visitor.get("/account/").content.decode()
    assert "operator" in page


def test_the_log_in_page_shows_the_notice_of_the_plant(visitor: Client) -> None:
    text = "Only for staff of the foundry.\nUse is <recorded>."
    settings = SETTINGS.model_copy(update={"station": SETTINGS.station.model_copy(update={"log_in_notice": text})})
    with override_settings(CASTLINE=settings):
        page = visitor.get("/log-in/").content.decode()
    assert "Only for staff of the foundry.<br>Use is &lt;recorded&gt;." in page


def test_the_log_in_never_redirects_to_another_site(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    response = visitor.post("/log-in/", {"username": "anna", "password": PASSWORD, "next": "https://evil.example/"})
    assert response["Location"] == "/"


def test_wrong_passwords_delay_the_next_attempt_and_lock_nobody_out(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    assert [log_in(visitor, "anna", "wrong") for _ in range(5)] == [200] * 5
    later(-60)
    early = visitor.post("/log-in/", {"username": "anna", "password": PASSWORD})
    assert early.status_code == 429
    assert early["Retry-After"] == "1", "a failure in the future, which a clock that was set back leaves, delays no longer than others"
    assert "Wait 1 s" in early.content.decode()
    later(2)
    assert log_in(visitor, "anna", "wrong") == 200
    elsewhere = Client(REMOTE_ADDR="192.0.2.7")
    assert log_in(elsewhere, "anna", PASSWORD) == 302
    later(2)
    assert log_in(visitor, "anna", PASSWORD) == 302
    assert [log_in(Client(), "anna", "wrong") for _ in range(5)] == [200] * 5, "a log-in forgets the person's own mistakes"


def test_the_delay_doubles_with_each_wrong_password_up_to_its_limit() -> None:
    own, network, account = make_log_in_rules(SETTINGS.station, "anna", "192.0.2.1", "")
    assert [own.compute_delay_s(failures) for failures in (4, 5, 6, 7, 14, 15, 10_000)] == [0, 1, 2, 4, 512, 900, 900]
    assert [network.compute_delay_s(failures) for failures in (19, 20, 10_000)] == [0, 1, 60]
    assert [account.compute_delay_s(failures) for failures in (19, 20, 10_000)] == [0, 1, 10]


def test_an_early_attempt_makes_the_delay_no_longer(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    for _ in range(5):
        log_in(visitor, "anna", "wrong")
    for _ in range(20):
        later(-60)
        assert log_in(visitor, "anna", "wrong") == 429
    later(2)
    assert log_in(visitor, "anna", PASSWORD) == 302


def test_many_names_from_one_network_are_delayed(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    names = [f"person-{number}" for number in range(21)]
    addresses = [f"2001:db8:0:1::{number:x}" for number in range(1, 22)]
    answers = [log_in(Client(REMOTE_ADDR=address), name, "wrong") for name, address in zip(names[:20], addresses[:20], strict=True)]
    assert answers == [200] * 20
    later(-60)
    assert log_in(Client(REMOTE_ADDR=addresses[20]), names[20], "wrong") == 429, "all addresses of a /64 count as one network"
    assert log_in(Client(REMOTE_ADDR="2001:db8:0:2::1"), "anna", PASSWORD) == 302


def test_an_account_of_their_own_does_not_speed_up_guesses_at_others(visitor: Client, account: MakeAccount) -> None:
    account("mallory", "operator", password=True)
    for number in range(20):
        log_in(visitor, f"person-{number}", "wrong")
        log_in(visitor, "mallory", PASSWORD)
        visitor.post("/log-out/")
    later(-60)
    assert log_in(visitor, "another-person", "wrong") == 429


def test_guesses_from_many_networks_do_not_delay_the_owner_at_the_usual_browser(account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    usual = Client()
    assert log_in(usual, "anna", PASSWORD) == 302
    usual.post("/log-out/")
    strangers = [log_in(Client(REMOTE_ADDR=f"192.0.2.{number}"), "anna", "wrong") for number in range(20)]
    assert strangers == [200] * 20
    later(-60)
    assert log_in(Client(REMOTE_ADDR="198.51.100.1"), "anna", PASSWORD) == 429
    assert log_in(usual, "anna", PASSWORD) == 302


def test_all_spellings_of_a_name_share_their_delay(account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    spellings = [f"{' ' * number}anna" for number in range(10)] + [
        f"\N{FULLWIDTH LATIN SMALL LETTER A}nna{' ' * number}" for number in range(10)
    ]
    strangers = [log_in(Client(REMOTE_ADDR=f"192.0.2.{number}"), name, "wrong") for number, name in enumerate(spellings)]
    assert strangers == [200] * 20
    later(-60)
    assert log_in(Client(REMOTE_ADDR="198.51.100.1"), " anna", "wrong") == 429


def test_a_name_that_no_database_can_hold_gets_the_form_again(visitor: Client, account: MakeAccount) -> None:
    assert log_in(visitor, "anna\0", "wrong") == 200
    assert log_in(visitor, "a" * 10_000, "wrong") == 200
    assert list(AuditEntry.objects.values_list("subject", flat=True)) == ["(no such account)"] * 2


def test_a_cookie_for_one_account_is_no_help_with_another(account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    account("mallory", "operator", password=True)
    browser = Client()
    log_in(browser, "mallory", PASSWORD)
    browser.post("/log-out/")
    assert [log_in(browser, "anna", "wrong") for _ in range(5)] == [200] * 5
    later(-60)
    assert log_in(browser, "anna", "wrong") == 429


def test_simultaneous_attempts_cannot_pass_together(account: MakeAccount) -> None:
    now = timezone.now()
    rules = make_log_in_rules(SETTINGS.station, "anna", "192.0.2.1", "")
    assert [begin_attempt(rules, now) for _ in range(6)] == [0] * 5 + [1]


@pytest.mark.real
def test_first_attempts_of_many_threads_cannot_pass_together_on_postgresql(tmp_path: Path) -> None:
    postgresql = PostgreSQL()
    try:
        settings = tmp_path / "castline.toml"
        settings.write_text(
            f'[station]\ndatabase = "postgresql://castline@127.0.0.1:{postgresql.port}/postgres"\nsecret_key_file = "{tmp_path}/key"\n'
        )
        done = subprocess.run([sys.executable, "-c", _TWELVE_ATTEMPTS, settings], capture_output=True, text=True, check=True, timeout=240)
    finally:
        postgresql.stop()
    assert done.stdout.split() == ["0"] * 5 + ["1"] * 7


def test_old_failures_and_those_of_a_wrong_clock_are_forgotten(database: Path) -> None:
    now = timezone.now()
    rules = make_log_in_rules(SETTINGS.station, "anna", "192.0.2.1", "")
    begin_attempt(rules, now)
    begin_attempt(make_log_in_rules(SETTINGS.station, "otto", "192.0.2.2", ""), now + timedelta(days=3000))
    assert LogInDelay.objects.count() == 3, "the failures of anna are old"
    assert [begin_attempt(rules, now) for _ in range(6)] == [0] * 5 + [1]
    assert LogInDelay.objects.count() == 3, "the failures of otto lie in a far future"


def test_an_attempt_that_the_busy_station_refused_does_not_count(account: MakeAccount) -> None:
    now = timezone.now()
    rules = make_log_in_rules(SETTINGS.station, "anna", "192.0.2.1", "")
    for _ in range(20):
        assert begin_attempt(rules, now) == 0
        with pytest.raises(PasswordHasherBusyError), cancelled_if_busy(rules):
            raise PasswordHasherBusyError
    assert [begin_attempt(rules, now) for _ in range(6)] == [0] * 5 + [1]


def test_the_log_in_and_its_failures_are_in_the_audit_log_with_the_address(account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    client = Client(REMOTE_ADDR="192.0.2.7")
    log_in(client, "anna", "wrong")
    log_in(client, "my secret password", "anna")
    log_in(client, "anna", PASSWORD)
    client.post("/log-out/")
    entries = list(AuditEntry.objects.order_by("id").values_list("who", "action", "subject", "address"))
    assert entries == [
        ("castline", "log-in failed", "anna", "192.0.2.7"),
        ("castline", "log-in failed", "(no such account)", "192.0.2.7"),
        ("anna", "logged in", "anna", "192.0.2.7"),
        ("anna", "logged out", "anna", "192.0.2.7"),
    ]


def test_a_wrong_name_and_a_wrong_password_get_the_same_answer(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    pages = [visitor.post("/log-in/", {"username": name, "password": "wrong"}) for name in ("anna", "nobody")]
    texts = [page.content.decode().replace("anna", "nobody") for page in pages]
    assert all("The name or the password is wrong" in text for text in texts)


def test_logging_out_needs_a_post_request_and_ends_the_session(operator: Client) -> None:
    assert operator.get("/log-out/").status_code == 405
    assert operator.post("/log-out/").status_code == 302
    assert operator.get("/account/").status_code == 302


def test_a_session_is_extended_while_it_is_used(operator: Client) -> None:
    operator.get("/account/")
    session = operator.session
    session["seen"] -= 3600
    session.save()
    response = operator.get("/account/")
    assert "sessionid" in response.cookies, "an old session is extended"
    assert "sessionid" not in operator.get("/account/").cookies, "a fresh session is not written again"


def test_a_session_ends_a_time_after_its_log_in_although_it_is_used(operator: Client) -> None:
    operator.get("/account/")
    session = operator.session
    session["began"] -= 29.9 * 24 * 3600
    session.save()
    request = operator.get("/account/").wsgi_request
    assert _is_still_permitted(request)
    session["began"] = request.session["began"] = session["began"] - 0.2 * 24 * 3600
    session.save()
    assert not _is_still_permitted(request), "an open live page ends, too"
    assert operator.get("/account/").status_code == 302
    assert not session.exists(session.session_key or "")
    assert AuditEntry.objects.filter(who="operator", action="session ended").count() == 1


def test_a_session_of_an_older_release_ends_a_time_after_its_next_request(operator: Client) -> None:
    operator.get("/account/")
    session = operator.session
    del session["began"]
    session["seen"] -= 3600
    session.save()
    assert operator.get("/account/").status_code == 200
    assert operator.session["began"] > time.time() - 60


def test_over_tls_the_cookie_of_a_known_browser_is_one_of_this_host_only(account: MakeAccount, visitor: Client) -> None:
    account("anna", "operator", password=True)
    cookies = visitor.post("/log-in/", {"username": "anna", "password": PASSWORD}, secure=True).cookies
    assert "__Host-castline_device" in cookies
    assert cookies["__Host-castline_device"]["secure"]
    assert (cookies["__Host-castline_device"]["path"], cookies["__Host-castline_device"]["domain"]) == ("/", "")


def test_a_form_without_a_csrf_token_is_refused_in_words(account: MakeAccount) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(account("anna", "administrator"), "django.contrib.auth.backends.ModelBackend")
    response = strict.post("/account/tokens/", {"name": "camera"})
    assert response.status_code == 403
    assert "did not come from this station" in response.content.decode()
    assert not ApiToken.objects.exists()


def test_the_client_address_is_the_one_that_the_outermost_trusted_proxy_saw() -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="6.6.6.6, 192.0.2.9, 10.0.0.2")
    assert client_address(request) == "10.0.0.1", "without proxies the header is ignored, because the client can write anything into it"
    behind = {"proxies": 2, "trusted_proxies": ("10.0.0.0/30",)}
    with override_settings(CASTLINE=SETTINGS.model_copy(update={"station": SETTINGS.station.model_copy(update=behind)})):
        assert client_address(request) == "192.0.2.9"
        direct = RequestFactory().get("/", REMOTE_ADDR="192.0.2.66", HTTP_X_FORWARDED_FOR="6.6.6.6, 192.0.2.9, 10.0.0.2")
        zoned = RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR='fe80::1%"any text"')
        assert client_address(zoned) == "10.0.0.1", "the zone of an address can be any text"
        assert client_address(direct) == "192.0.2.66", "a client that reaches the port directly cannot choose its address"
