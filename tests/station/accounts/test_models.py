"""Tests of API tokens and of the audit log."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from station.accounts.models import ApiToken, AuditEntry
from tests.station.conftest import MakeAccount


def test_a_token_is_shown_once_stored_as_a_hash_and_works_until_revoked(operator: Client) -> None:
    page = operator.post("/account/tokens/", {"name": "<b>camera</b>"}).content.decode()
    text = page.split("<code>")[1].split("</code>")[0]
    token = ApiToken.objects.get()
    assert text not in (token.sha256, operator.get("/account/").content.decode())
    assert "<b>camera" not in page
    owner = ApiToken.find_owner(text)
    assert owner is not None
    assert owner.username == "operator"
    assert ApiToken.find_owner(text + "x") is None
    assert operator.post(f"/account/tokens/{token.pk}/revoke/").status_code == 302
    assert ApiToken.find_owner(text) is None


def test_a_token_of_a_closed_account_is_invalid_and_others_cannot_revoke_it(account: MakeAccount, operator: Client) -> None:
    anna = account("anna", "engineer")
    token, text = ApiToken.issue(anna, "press")
    assert operator.post(f"/account/tokens/{token.pk}/revoke/").status_code == 404
    assert ApiToken.find_owner(text) == anna
    User.objects.filter(pk=anna.pk).update(is_active=False)
    assert ApiToken.find_owner(text) is None


def test_hostile_text_in_the_audit_log_is_shown_as_text(administrator: Client) -> None:
    AuditEntry.record(None, "model chosen", "<script>alert(1)</script>" * 20, why="<img src=x>")
    page = administrator.get("/audit/").content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "<img src=x>" not in page


def test_tables_and_migrations_agree(database: object) -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
