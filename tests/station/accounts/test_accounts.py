"""Log-in, passwords, tokens, roles, and what the audit log keeps of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from station.accounts import audit, tokens
from station.accounts.access import RIGHTS, role_of
from station.accounts.making import make_account
from station.accounts.models import ApiToken, AuditEntry
from streams.errors import SettingsError
from tests.station.conftest import PASSWORD, MakeAccount


def log_in(client: Client, name: str, password: str, **more: str) -> int:
    return client.post("/log-in/", {"username": name, "password": password, **more}).status_code


def test_who_logs_in_comes_back_to_the_page_that_was_asked_for(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    answer = visitor.post("/log-in/", {"username": "anna", "password": PASSWORD, "next": "/account/"})
    assert answer["Location"] == "/account/"
    page = visitor.get("/account/").content.decode()
    assert "operator" in page


def test_nobody_is_led_to_another_site_by_logging_in(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    answer = visitor.post("/log-in/", {"username": "anna", "password": PASSWORD, "next": "https://evil.example/"})
    assert answer["Location"] == "/"


def test_wrong_passwords_lock_the_account_for_that_place_only(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    assert [log_in(visitor, "anna", "wrong") for _ in range(5)] == [200, 200, 200, 200, 429]
    locked = visitor.post("/log-in/", {"username": "anna", "password": PASSWORD})
    assert locked.status_code == 429
    assert "Too many wrong passwords" in locked.content.decode()
    elsewhere = Client(REMOTE_ADDR="192.0.2.7")
    assert log_in(elsewhere, "anna", PASSWORD) == 302


def test_a_wrong_name_and_a_wrong_password_are_told_alike(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    pages = [visitor.post("/log-in/", {"username": name, "password": "wrong"}) for name in ("anna", "nobody")]
    texts = [page.content.decode().replace("anna", "nobody") for page in pages]
    assert all("Name and password do not fit" in text for text in texts)


def test_logging_out_wants_a_form_and_ends_the_session(operator: Client) -> None:
    assert operator.get("/log-out/").status_code == 405
    assert operator.post("/log-out/").status_code == 302
    assert operator.get("/account/").status_code == 302


def test_a_log_in_lasts_as_long_as_it_is_used(operator: Client) -> None:
    operator.get("/account/")
    session = operator.session
    session["seen"] -= 3600
    session.save()
    answer = operator.get("/account/")
    assert "sessionid" in answer.cookies, "its end is put off"
    assert "sessionid" not in operator.get("/account/").cookies, "but is not written at every click"


def test_a_form_from_elsewhere_is_refused_in_words(account: MakeAccount) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(account("anna", "administrator"), "django.contrib.auth.backends.ModelBackend")
    answer = strict.post("/account/tokens/", {"name": "camera"})
    assert answer.status_code == 403
    assert "did not come from here" in answer.content.decode()
    assert not ApiToken.objects.exists()


@pytest.mark.parametrize("password", ["short", "password123", "1234567890", "anna-the-first"])
def test_a_weak_password_is_refused(administrator: Client, password: str) -> None:
    form = {"username": "anna-the-first", "role": "operator", "password1": password, "password2": password}
    assert administrator.post("/accounts/", form).status_code == 200
    assert not User.objects.filter(username="anna-the-first").exists()


def test_an_administrator_makes_changes_and_shuts_out_an_account(administrator: Client) -> None:
    form = {"username": "berta", "role": "reviewer", "password1": PASSWORD, "password2": PASSWORD}
    assert administrator.post("/accounts/", form).status_code == 302
    berta = User.objects.get(username="berta")
    assert role_of(berta) == "reviewer"
    browser = Client()
    assert browser.login(request=browser.get("/log-in/").wsgi_request, username="berta", password=PASSWORD)
    address = f"/accounts/{berta.pk}/"
    assert administrator.post(address, {"role": "engineer", "is_active": "on", "password": ""}).status_code == 302
    assert role_of(User.objects.get(username="berta")) == "engineer"
    assert browser.get("/account/").status_code == 200
    assert administrator.post(address, {"role": "engineer", "password": ""}).status_code == 302
    assert browser.get("/account/").status_code == 302, "who may no longer log in is logged out at once"
    actions = list(AuditEntry.objects.values_list("who", "action", "subject"))
    assert actions == [
        ("administrator", "account changed", "berta"),
        ("administrator", "account changed", "berta"),
        ("administrator", "account made", "berta"),
    ]
    log = administrator.get("/audit/?who=admin").content.decode()
    assert "role reviewer to engineer" in log
    assert PASSWORD not in log


def test_a_new_password_ends_other_log_ins(account: MakeAccount) -> None:
    anna = account("anna", "operator", password=True)
    here, there = Client(), Client()
    for client in (here, there):
        client.force_login(anna, "django.contrib.auth.backends.ModelBackend")
    form = {"old_password": PASSWORD, "new_password1": "another long phrase", "new_password2": "another long phrase"}
    assert here.post("/account/password/", form).status_code == 302
    assert here.get("/account/").status_code == 200
    assert there.get("/account/").status_code == 302


def test_the_last_administrator_cannot_shut_everybody_out(administrator: Client) -> None:
    me = User.objects.get(username="administrator")
    page = administrator.post(f"/accounts/{me.pk}/", {"role": "operator", "is_active": "on", "password": ""})
    assert "This is the last account that administers the station" in page.content.decode()
    assert role_of(User.objects.get(pk=me.pk)) == "administrator"


@pytest.mark.parametrize("role", ["operator", "reviewer", "engineer"])
@pytest.mark.parametrize("address", ["/accounts/", "/accounts/1/", "/audit/"])
def test_accounts_and_audit_are_for_administrators(browser: Callable[[str], Client], role: str, address: str) -> None:
    answer = browser(role).get(address)
    assert answer.status_code == 403
    assert "not allowed to administer accounts" in answer.content.decode()


def test_a_token_is_shown_once_kept_hashed_and_works_until_revoked(operator: Client) -> None:
    page = operator.post("/account/tokens/", {"name": "<b>camera</b>"}).content.decode()
    text = page.split("<code>")[1].split("</code>")[0]
    kept = ApiToken.objects.get()
    assert text not in (kept.sha256, operator.get("/account/").content.decode())
    assert "<b>camera" not in page
    owner = tokens.owner(text)
    assert owner is not None
    assert owner.username == "operator"
    assert tokens.owner(text + "x") is None
    assert operator.post(f"/account/tokens/{kept.pk}/revoke/").status_code == 302
    assert tokens.owner(text) is None


def test_a_token_ends_with_its_account_and_belongs_to_nobody_else(account: MakeAccount, operator: Client) -> None:
    anna = account("anna", "engineer")
    token, text = tokens.make(anna, "press")
    assert operator.post(f"/account/tokens/{token.pk}/revoke/").status_code == 404
    assert tokens.owner(text) == anna
    User.objects.filter(pk=anna.pk).update(is_active=False)
    assert tokens.owner(text) is None


def test_accounts_come_from_the_command_line_too(database: object) -> None:
    assert make_account("anna", "administrator", PASSWORD) == "made"
    assert make_account("anna", "engineer", "yet another phrase") == "changed"
    anna = User.objects.get(username="anna")
    assert role_of(anna) == "engineer"
    assert anna.check_password("yet another phrase")
    with pytest.raises(SettingsError, match="too short"):
        make_account("berta", "operator", "short")


def test_every_role_is_a_group(database: object) -> None:
    from django.contrib.auth.models import Group

    assert set(Group.objects.values_list("name", flat=True)) == set(RIGHTS)


def test_what_is_hostile_in_the_log_is_shown_as_text(administrator: Client) -> None:
    audit.note(None, "model chosen", "<script>alert(1)</script>" * 20, why="<img src=x>")
    page = administrator.get("/audit/").content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "<img src=x>" not in page


def test_tables_and_migrations_agree(database: object) -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
