"""Tests of API tokens and of the audit log."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from station.accounts.models import ApiToken, AuditEntry
from tests.station.conftest import MakeAccount


def test_a_token_is_shown_once_stored_as_a_hash_and_works_until_revoked(operator: Client) -> None:
    page = operator.post("/account/tokens/", {"name": "<b>camera</b>", "scope": "inspect", "days": "90"}).content.decode()
    text = page.split("<code>")[1].split("</code>")[0]
    token = ApiToken.objects.get()
    assert text not in (token.sha256, operator.get("/account/").content.decode())
    assert "<b>camera" not in page
    found = ApiToken.find(text)
    assert found is not None
    assert found.user.username == "operator"
    assert ApiToken.find(text + "x") is None
    assert operator.post(f"/account/tokens/{token.pk}/revoke/").status_code == 302
    assert ApiToken.find(text) is None


def test_a_token_of_a_closed_account_is_invalid_and_others_cannot_revoke_it(account: MakeAccount, operator: Client) -> None:
    anna = account("anna", "engineer")
    token, text = ApiToken.issue(anna, "press")
    assert operator.post(f"/account/tokens/{token.pk}/revoke/").status_code == 404
    assert ApiToken.find(text) == token
    User.objects.filter(pk=anna.pk).update(is_active=False)
    assert ApiToken.find(text) is None


def test_a_token_ends_and_an_old_token_without_an_end_goes_on(account: MakeAccount) -> None:
    token, text = ApiToken.issue(account("anna", "engineer"), "press")
    assert ApiToken.find(text) == token
    ApiToken.objects.update(expires_at=timezone.now())
    assert ApiToken.find(text) is None
    ApiToken.objects.update(expires_at=None)
    assert ApiToken.find(text) == token


def test_an_administrator_sees_and_revokes_the_tokens_of_others(account: MakeAccount, administrator: Client, engineer: Client) -> None:
    token, text = ApiToken.issue(account("anna", "reviewer"), "press 4")
    assert "press 4" in administrator.get("/tokens/").content.decode()
    assert engineer.get("/tokens/").status_code == 403
    assert engineer.post(f"/tokens/{token.pk}/revoke/").status_code == 403
    assert administrator.post(f"/tokens/{token.pk}/revoke/").status_code == 302
    assert ApiToken.find(text) is None
    assert AuditEntry.objects.filter(action="token revoked", subject="press 4", detail={"account": "anna"}).exists()


def test_hostile_text_in_the_audit_log_is_shown_as_text(administrator: Client) -> None:
    AuditEntry.record(None, "model chosen", "<script>alert(1)</script>" * 20, why="<img src=x>")
    page = administrator.get("/audit/").content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "<img src=x>" not in page


def test_tables_and_migrations_agree(database: object) -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
