"""Who is let in where."""

from __future__ import annotations

import itertools

from django.test import Client

from station.accounts.access import RIGHTS, ROLES


def test_a_stronger_role_may_all_that_a_weaker_one_may() -> None:
    for weaker, stronger in itertools.pairwise(ROLES):
        assert RIGHTS[weaker] < RIGHTS[stronger]


def test_a_stranger_is_sent_to_the_log_in_and_back(visitor: Client) -> None:
    answer = visitor.get("/audit/?who=anna")
    assert answer.status_code == 302
    assert answer["Location"] == "/log-in/?next=/audit/%3Fwho%3Danna"
