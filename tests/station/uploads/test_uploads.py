"""Uploads without a plant: what is refused before Kafka is asked, what is said when it does not answer, and whose an upload is."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from station.accounts.models import ApiToken
from station.uploads.answers import answer
from station.uploads.models import Upload, UploadRun
from station.uploads.ownership import visible
from station.uploads.pacing import Doors, Pace
from station.uploads.taking import Refused, let_in, part_of
from tests.image_topics import make_jpeg
from tests.station.conftest import MakeAccount, MakePart


def uploaded(owner: User, **given: object) -> Upload:
    """A row as an upload leaves it."""
    values: dict[str, object] = {"run": UploadRun.objects.get().number, "name": "a.jpeg", "size": 1000, "sha256": "0" * 64, "width_px": 120}
    values |= {"content_type": "image/jpeg", "height_px": 120, "sent_at": datetime.now(UTC)}
    return Upload.objects.create(owner=owner, **{**values, **given})


def send(client: Client, name: str, value: bytes) -> tuple[int, str]:
    """As the page's script sends one picture."""
    answer = client.post("/uploads/", {"picture": SimpleUploadedFile(name, value)}, headers={"X-Requested-With": "castline"})
    return answer.status_code, answer.content.decode()


def test_without_kafka_the_upload_says_so_and_leaves_no_trace(reviewer: Client) -> None:
    status, page = send(reviewer, "a.jpeg", make_jpeg(1))
    assert status == 503
    assert "Kafka did not take it" in page
    assert not Upload.objects.exists()


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [(b"", 422, "empty"), (b"poem", 415, "no picture that can be judged"), (bytes(9 * 2**20), 413, "too large")],
)
def test_what_cannot_be_judged_is_refused_in_words(reviewer: Client, value: bytes, status: int, words: str) -> None:
    found = send(reviewer, "<b>.jpeg", value)
    assert found[0] == status
    assert words in found[1]
    assert "<b>" not in found[1]


def test_who_may_not_upload_is_refused(operator: Client, visitor: Client) -> None:
    assert operator.get("/uploads/").status_code == 403
    assert send(operator, "a.jpeg", make_jpeg(1))[0] == 403
    assert visitor.get("/uploads/").status_code == 302


def test_an_upload_is_its_owners_and_the_administrators_alone(
    account: MakeAccount, reviewer: Client, engineer: Client, administrator: Client
) -> None:
    upload = uploaded(User.objects.get(username="reviewer"))
    path = f"/uploads/{upload.pk}/"
    assert [client.get(path).status_code for client in (reviewer, engineer, administrator)] == [200, 404, 200]
    part = part_of(upload)
    seen = [visible(User.objects.get(username=name), part.line, part.run, part.part) for name in ("reviewer", "engineer", "administrator")]
    assert seen == [True, False, True]
    assert visible(User.objects.get(username="engineer"), "line-1", 1, 1)
    picture = f"/parts/uploads/{part.run}/{part.part}/picture"
    assert engineer.get(picture).status_code == 404


def test_an_upload_that_nobody_judges_says_so(reviewer: Client) -> None:
    upload = uploaded(User.objects.get(username="reviewer"), sent_at=datetime.now(UTC) - timedelta(minutes=5))
    page = reviewer.get(f"/uploads/{upload.pk}/").content.decode()
    assert "No inspector has answered for 30" in page


def test_a_result_is_found_in_the_archive_under_its_permanent_address(reviewer: Client, part: MakePart) -> None:
    upload = uploaded(User.objects.get(username="reviewer"))
    box = {"left_px": 1, "top_px": 2, "width_px": 3, "height_px": 4, "score": 0.9, "kind": "flash"}
    part(
        line="uploads",
        run=upload.run,
        part=upload.pk,
        label="defect",
        defect_probability=0.9731,
        finding_method="grad-cam",
        finding_boxes=[box, {"left_px": -1}],
        heat_map="maps/aa/b.png",
    )
    found = answer(upload)
    assert (found.state, found.open) == ("explained", False)
    page = reviewer.get(f"/uploads/{upload.pk}/").content.decode()
    assert "0.9731" in page
    assert page.count("<rect") == 1


def test_only_rows_that_changed_are_sent_again(reviewer: Client, part: MakePart) -> None:
    owner = User.objects.get(username="reviewer")
    waiting, judged = uploaded(owner), uploaded(owner)
    part(line="uploads", run=judged.run, part=judged.pk)
    page = reviewer.get(f"/uploads/rows?open={waiting.pk}.waiting,{judged.pk}.waiting,x,9999.judged").content.decode()
    assert f'id="upload-{judged.pk}"' in page
    assert f'id="upload-{waiting.pk}"' not in page


def test_a_program_over_its_share_is_told_when_to_come_again(account: MakeAccount, visitor: Client) -> None:
    anna = account("anna", "reviewer")
    _, text = ApiToken.issue(anna, "tests")
    bearer = {"Authorization": f"Bearer {text}"}
    # The share fills up again while this works: ten a second.
    with contextlib.suppress(Refused):
        while True:
            let_in(anna)
    answers = (visitor.post("/api/inspections", b"poem", content_type="image/jpeg", headers=bearer) for _ in range(500))
    found = next(one for one in answers if one.status_code == 429)
    assert int(found["Retry-After"]) >= 1
    assert "at most 600 a minute" in found.json()["error"]


def test_a_share_fills_up_evenly() -> None:
    at = 0.0
    pace = Pace(60, lambda: at)
    assert [pace.wait_s(1) for _ in range(60)] == [0.0] * 60
    assert pace.wait_s(1) == pytest.approx(1.0)
    assert pace.wait_s(2) == 0.0
    at = 2.0
    assert [pace.wait_s(1), pace.wait_s(1)] == [0.0, 0.0]
    assert pace.wait_s(1) > 0


def test_so_many_at_once_and_no_more() -> None:
    doors = Doors(1)
    with doors.enter() as first, doors.enter() as second:
        assert (first, second) == (True, False)
    with doors.enter() as third:
        assert third
