"""Tests of the account pages: new accounts, changed accounts and passwords, and their entries in the audit log."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from station.accounts.access import get_role
from station.accounts.models import AuditEntry
from tests.station.conftest import PASSWORD, MakeAccount


@pytest.mark.parametrize("password", ["short", "password123", "1234567890", "anna-the-first"])
def test_a_weak_password_is_refused(administrator: Client, password: str) -> None:
    form = {"username": "anna-the-first", "role": "operator", "password1": password, "password2": password}
    assert administrator.post("/accounts/", form).status_code == 200
    assert not User.objects.filter(username="anna-the-first").exists()


def test_an_administrator_makes_changes_and_closes_an_account(administrator: Client) -> None:
    form = {"username": "berta", "role": "reviewer", "password1": PASSWORD, "password2": PASSWORD}
    assert administrator.post("/accounts/", form).status_code == 302
    berta = User.objects.get(username="berta")
    assert get_role(berta) == "reviewer"
    browser = Client()
    assert browser.login(request=browser.get("/log-in/").wsgi_request, username="berta", password=PASSWORD)
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


def test_the_last_administrator_cannot_give_up_the_role(administrator: Client) -> None:
    me = User.objects.get(username="administrator")
    page = administrator.post(f"/accounts/{me.pk}/", {"role": "operator", "is_active": "on", "password": ""})
    assert "This is the last account that administers the station" in page.content.decode()
    assert get_role(User.objects.get(pk=me.pk)) == "administrator"
