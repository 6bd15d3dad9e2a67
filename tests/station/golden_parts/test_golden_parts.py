"""Golden parts: recognised by picture or by a person, compared when their verdict comes, and missed when a shift passes without them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from prometheus_client import REGISTRY

from station.accounts.models import AuditEntry
from station.archive.part_writer import PartWriter
from station.archive.retention import RetentionPolicy
from station.golden_parts.golden_checks import (
    add_golden_part,
    check_golden_parts,
    list_states,
    record_showing,
    update_golden_metrics,
)
from station.golden_parts.models import GoldenCheck, GoldenPart
from station.reviews.candidates import CandidateQueue
from tests.station.conftest import SETTINGS, MakeAccount, MakePart
from tests.station.live.records import NOW, make_verdict

DAY = timedelta(days=1)
LAST_SHIFT = NOW - timedelta(hours=6)
PATH = "/lines/line-1/golden-parts/"


@pytest.fixture
def engineer_account(account: MakeAccount) -> User:
    return account("engineer", "engineer")


def archive(*verdicts: object) -> None:
    """Writes verdicts as the archivist does."""
    PartWriter(RetentionPolicy(0.0), CandidateQueue(SETTINGS), check_golden_parts).write(verdicts)  # type: ignore[arg-type]


def count(of: str) -> float | None:
    update_golden_metrics(SETTINGS, NOW)
    return REGISTRY.get_sample_value(f"castline_golden_parts_{of}", {"line": "line-1"})


def show(golden: GoldenPart, number: int, at: datetime) -> None:
    check = record_showing(golden, f"line-1:7:{number}", User.objects.get(), at)
    GoldenCheck.objects.filter(pk=check.pk).update(label=golden.label, at=at)


def test_a_golden_part_is_recognised_by_its_picture_when_its_verdict_is_archived(engineer_account: User) -> None:
    golden = add_golden_part("line-1", "crack", "defect", f"{4:064x}", engineer_account, NOW - DAY)
    archive(make_verdict(3), make_verdict(4, "ok"), make_verdict(5))
    (check,) = GoldenCheck.objects.all()
    assert (check.golden, check.part, check.label, check.model, check.is_right) == (golden, 4, "ok", "demo", False)
    assert (count("wrong"), count("missing")) == (1, 0)
    archive(make_verdict(4, "ok"))  # a repeated record
    assert GoldenCheck.objects.count() == 1
    verdict = make_verdict(9, "defect", NOW + timedelta(minutes=1))
    archive(verdict.model_copy(update={"image": make_verdict(4).image}))
    assert count("wrong") == 0


def test_a_part_that_a_person_names_is_compared_before_and_after_its_verdict(engineer_account: User, part: MakePart) -> None:
    golden = add_golden_part("line-1", "master", "ok", "", engineer_account, NOW - DAY)
    assert record_showing(golden, "line-1:7:4", engineer_account, NOW).label == ""
    assert not list_states(SETTINGS, "line-1", NOW)[0].shown
    archive(make_verdict(4, "review"))
    (state,) = list_states(SETTINGS, "line-1", NOW + timedelta(seconds=1))
    assert (state.shown, state.is_wrong) == (True, True)
    judged = part(label="ok", seen_at=NOW, decided_at=NOW + timedelta(minutes=1))
    assert record_showing(golden, str(judged), engineer_account, NOW).is_right
    assert not list_states(SETTINGS, "line-1", NOW + timedelta(minutes=2))[0].is_wrong


def test_a_shift_without_its_golden_parts_is_counted_only_if_the_line_ran(engineer_account: User, part: MakePart) -> None:
    golden = add_golden_part("line-1", "master", "ok", "", engineer_account, NOW - 3 * DAY)
    add_golden_part("line-1", "new", "ok", "", engineer_account, NOW)
    assert count("missing") == 0
    part(seen_at=LAST_SHIFT)
    assert count("missing") == 1
    show(golden, 99, NOW - 2 * DAY)
    assert count("missing") == 1
    show(golden, 100, LAST_SHIFT)
    assert count("missing") == 0


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"action": "add", "name": "", "label": "ok"}, "Name: enter 1 to 64 characters"),
        ({"action": "add", "name": "master", "label": "ok"}, "Name: line-1 already has the golden part master."),
        ({"action": "add", "name": "x", "label": "review"}, "Right verdict: choose ok or defect."),
        ({"action": "add", "name": "x", "label": "ok", "picture": "abc"}, "Part: &#x27;abc&#x27; is not the id of a part."),
        ({"action": "add", "name": "x", "label": "ok", "picture": "line-1:7:999"}, "Picture: the archive has no picture of line-1:7:999."),
        ({"action": "show", "part": "line-2:7:1"}, "Part: line-2:7:1 does not belong to line-1."),
        ({"action": "show", "golden": "no", "part": "line-1:7:1"}, "Golden part: choose a part from the list."),
    ],
)
def test_what_is_not_possible_is_refused_in_words(engineer: Client, form: dict[str, str], sentence: str) -> None:
    golden = add_golden_part("line-1", "master", "ok", "", User.objects.get(username="engineer"), NOW)
    answer = engineer.post(PATH, {"golden": str(golden.pk), **form})
    assert (answer.status_code, sentence in answer.content.decode()) == (409, True)
    assert (GoldenPart.objects.count(), GoldenCheck.objects.count()) == (1, 0)


def test_operators_name_golden_parts_and_engineers_choose_them(operator: Client, engineer: Client, part: MakePart) -> None:
    row = part(label="defect")
    add = {"action": "add", "name": "master", "label": "ok", "picture": str(row)}
    assert operator.post(PATH, add).status_code == 403
    assert engineer.post(PATH, add).status_code == 302
    golden = GoldenPart.objects.get()
    assert golden.sha256 == row.sha256
    page = operator.post(PATH, {"action": "show", "golden": golden.pk, "part": str(row)}, follow=True).content.decode()
    assert "master has the wrong verdict: defect instead of ok. Call the quality engineer." in page
    assert f'{PATH}?part={row}"' in operator.get(f"/parts/line-1/7/{row.part}/").content.decode()
    assert operator.post(PATH, {"action": "retire", "golden": golden.pk}).status_code == 403
    assert engineer.post(PATH, {"action": "retire", "golden": golden.pk}).status_code == 302
    assert list_states(SETTINGS, "line-1", NOW) == []
    assert [entry.action for entry in AuditEntry.objects.all()] == ["golden part retired", "golden part shown", "golden part added"]
    assert operator.get("/lines/uploads/golden-parts/").status_code == 404
