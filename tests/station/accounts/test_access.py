"""Tests of the roles, their rights and the check before each page."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from station.accounts.access import RIGHT_DESCRIPTIONS, RIGHTS, ROLES, create_or_update_account, get_role
from streams.errors import SettingsError
from tests.docs.pages import DOCS
from tests.station.conftest import PASSWORD


def test_a_stronger_role_has_all_rights_of_a_weaker_one_and_more() -> None:
    for weaker, stronger in itertools.pairwise(ROLES):
        assert RIGHTS[weaker] < RIGHTS[stronger]


def test_the_page_of_security_lists_the_rights_of_each_role() -> None:
    header = ["right", *ROLES]
    rows = [[text, *("yes" if right in RIGHTS[role] else "no" for role in ROLES)] for right, text in RIGHT_DESCRIPTIONS.items()]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))
    assert table in (DOCS / "security.md").read_text("utf-8")


def test_every_role_is_a_group(database: object) -> None:
    assert set(Group.objects.values_list("name", flat=True)) == set(RIGHTS)


def test_a_visitor_is_sent_to_the_log_in_page_and_back(visitor: Client) -> None:
    response = visitor.get("/audit/?who=anna")
    assert response.status_code == 302
    assert response["Location"] == "/log-in/?next=/audit/%3Fwho%3Danna"


@pytest.mark.parametrize("role", ["operator", "reviewer", "engineer"])
@pytest.mark.parametrize("address", ["/accounts/", "/accounts/1/", "/audit/"])
def test_accounts_and_audit_log_are_for_administrators(browser: Callable[[str], Client], role: str, address: str) -> None:
    response = browser(role).get(address)
    assert response.status_code == 403
    assert "not allowed to administer accounts" in response.content.decode()


def test_the_command_line_makes_and_changes_accounts(database: object) -> None:
    assert create_or_update_account("anna", "administrator", PASSWORD) == "made"
    assert create_or_update_account("anna", "engineer", "yet another phrase") == "changed"
    anna = User.objects.get(username="anna")
    assert get_role(anna) == "engineer"
    assert anna.check_password("yet another phrase")
    with pytest.raises(SettingsError, match="too short"):
        create_or_update_account("berta", "operator", "short")
