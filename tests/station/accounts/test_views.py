"""Tests of the account pages: new accounts, changed accounts and passwords, and their entries in the audit log."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from station.accounts.access import create_or_update_account, get_role
from station.accounts.models import ApiToken, AuditEntry, LogInDelay
from tests.station.conftest import PASSWORD, MakeAccount


@pytest.mark.parametrize("password", ["short", "password123", "1234567890", "anna-the-first"])
def test_a_weak_password_is_refused(administrator: Client, password: str) -> None:
    form = {"username": "anna-the-first", "role": "operator", "password1": password, "password2": password}
    assert administrator.post("/accounts/", form).status_code == 200
    assert not User.objects.filter(username="anna-the-first").exists()


@pytest.mark.parametrize("password", ["Castline2026!", "line-1 and line-2", "my-STATION-plant", "uploads reviewer"])
def test_a_password_of_words_of_the_plant_is_refused(administrator: Client, password: str) -> None:
    form = {"username": "berta", "role": "operator", "password1": password, "password2": password}
    assert "mostly of words of this plant" in administrator.post("/accounts/", form).content.decode()
    assert not User.objects.filter(username="berta").exists()
    more = f"{password} kdw83nba"
    assert administrator.post("/accounts/", form | {"password1": more, "password2": more}).status_code == 302


def test_an_administrator_makes_changes_and_closes_an_account(administrator: Client) -> None:
    form = {"username": "berta", "role": "reviewer", "password1": PASSWORD, "password2": PASSWORD}
    assert administrator.post("/accounts/", form).status_code == 302
    berta = User.objects.get(username="berta")
    assert get_role(berta) == "reviewer"
    browser = Client()
    assert browser.post("/log-in/", {"username": "berta", "password": PASSWORD}).status_code == 302
    address = f"/accounts/{berta.pk}/"
    assert administrator.post(address, {"role": "engineer", "is_active": "on", "password": ""}).status_code == 302
    assert get_role(User.objects.get(username="berta")) == "engineer"
    assert browser.get("/account/").status_code == 200
    assert administrator.post(address, {"role": "engineer", "password": ""}).status_code == 302
    assert browser.get("/account/").status_code == 302, "a closed account is logged out at once"
    actions = list(AuditEntry.objects.values_list("who", "action", "subject"))
    assert actions == [
        ("administrator", "account changed", "berta"),
        ("administrator", "account changed", "berta"),
        ("berta", "logged in", "berta"),
        ("administrator", "account made", "berta"),
    ]
    log = administrator.get("/audit/?who=admin").content.decode()
    assert "role reviewer to engineer" in log
    assert PASSWORD not in log


def test_a_new_password_ends_other_sessions(account: MakeAccount) -> None:
    anna = account("anna", "operator", password=True)
    here, elsewhere = Client(), Client()
    for client in (here, elsewhere):
        client.force_login(anna, "django.contrib.auth.backends.ModelBackend")
    form = {"old_password": PASSWORD, "new_password1": "another long phrase", "new_password2": "another long phrase"}
    assert here.post("/account/password/", form).status_code == 302
    assert here.get("/account/").status_code == 200
    assert elsewhere.get("/account/").status_code == 302


def test_a_new_password_ends_the_tokens_that_were_made_with_the_old_one(account: MakeAccount, administrator: Client) -> None:
    anna = account("anna", "operator", password=True)
    _, text = ApiToken.issue(anna, "press")
    form = {"role": "operator", "is_active": "on", "password": "another long phrase"}
    assert administrator.post(f"/accounts/{anna.pk}/", form).status_code == 302
    assert ApiToken.find(text) is None
    _, text = ApiToken.issue(anna, "press")
    create_or_update_account("anna", "operator", "a third long phrase")
    assert ApiToken.find(text) is None
    _, text = ApiToken.issue(anna, "press")
    create_or_update_account("anna", "reviewer", "a third long phrase")
    assert ApiToken.find(text) is not None, "a script that sets the same password again ends no program"
    _, text = ApiToken.issue(anna, "press")
    own = Client()
    own.force_login(User.objects.get(pk=anna.pk), "django.contrib.auth.backends.ModelBackend")
    form = {"old_password": "a third long phrase", "new_password1": PASSWORD, "new_password2": PASSWORD}
    assert own.post("/account/password/", form).status_code == 302
    assert ApiToken.find(text) is None


def test_guesses_at_the_old_password_are_delayed(account: MakeAccount) -> None:
    anna = account("anna", "operator", password=True)
    stolen = Client()
    stolen.force_login(anna, "django.contrib.auth.backends.ModelBackend")
    form = {"old_password": "guess", "new_password1": "another long phrase", "new_password2": "another long phrase"}
    assert [stolen.post("/account/password/", form).status_code for _ in range(5)] == [200] * 5
    LogInDelay.objects.update(failed_at=timezone.now() + timedelta(seconds=60))
    early = stolen.post("/account/password/", {**form, "old_password": PASSWORD})
    assert early.status_code == 429
    LogInDelay.objects.update(failed_at=timezone.now() - timedelta(seconds=2))
    assert stolen.post("/account/password/", {**form, "old_password": PASSWORD}).status_code == 302
    assert AuditEntry.objects.filter(action="wrong password", subject="anna").count() == 5


def test_a_weak_new_password_is_no_guess_at_the_old_one(account: MakeAccount) -> None:
    client = Client()
    client.force_login(account("anna", "operator", password=True), "django.contrib.auth.backends.ModelBackend")
    form = {"old_password": PASSWORD, "new_password1": "short", "new_password2": "short"}
    assert [client.post("/account/password/", form).status_code for _ in range(8)] == [200] * 8


def test_the_last_administrator_cannot_give_up_the_role(administrator: Client) -> None:
    me = User.objects.get(username="administrator")
    page = administrator.post(f"/accounts/{me.pk}/", {"role": "operator", "is_active": "on", "password": ""})
    assert "This is the last account that administers the station" in page.content.decode()
    assert get_role(User.objects.get(pk=me.pk)) == "administrator"
