"""Tests of the upload pages without a plant: refused pictures, the owner of an upload, and its status."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from station.uploads.models import Upload, may_see_part
from station.uploads.upload_status import read_status
from tests.encoded_pictures import make_large_png
from tests.image_topics import make_jpeg
from tests.station.conftest import MakePart
from tests.station.uploads.uploads import make_upload


def send(client: Client, name: str, picture: bytes) -> tuple[int, str]:
    """Sends one picture as the page's script does, and returns the HTTP status and the text of the answer."""
    response = client.post("/uploads/", {"picture": SimpleUploadedFile(name, picture)}, headers={"X-Requested-With": "castline"})
    return response.status_code, response.content.decode()


def test_an_upload_without_kafka_is_refused_in_words_and_leaves_no_row(reviewer: Client) -> None:
    status, page = send(reviewer, "a.jpeg", make_jpeg(1))
    assert status == 503
    assert "Kafka did not accept the record" in page
    assert not Upload.objects.exists()


@pytest.mark.parametrize(
    ("picture", "status", "words"),
    [(b"", 422, "empty"), (b"poem", 415, "no picture that can be judged"), (bytes(9 * 2**20), 413, "too large")],
)
def test_a_picture_that_cannot_be_judged_is_refused_in_words(reviewer: Client, picture: bytes, status: int, words: str) -> None:
    found = send(reviewer, "<b>.jpeg", picture)
    assert found[0] == status
    assert words in found[1]
    assert "<b>" not in found[1]


def test_an_account_without_the_right_cannot_upload(operator: Client, visitor: Client) -> None:
    assert operator.get("/uploads/").status_code == 403
    assert send(operator, "a.jpeg", make_jpeg(1))[0] == 403
    assert visitor.get("/uploads/").status_code == 302


def test_an_upload_is_visible_to_its_owner_and_to_administrators_only(reviewer: Client, engineer: Client, administrator: Client) -> None:
    upload = make_upload(User.objects.get(username="reviewer"))
    path = f"/uploads/{upload.pk}/"
    assert [client.get(path).status_code for client in (reviewer, engineer, administrator)] == [200, 404, 200]
    part = upload.part_id
    users = [User.objects.get(username=name) for name in ("reviewer", "engineer", "administrator")]
    assert [may_see_part(user, part.line, part.run, part.part) for user in users] == [True, False, True]
    assert may_see_part(User.objects.get(username="engineer"), "line-1", 1, 1)
    picture = f"/parts/uploads/{part.run}/{part.part}/picture"
    assert engineer.get(picture).status_code == 404


def test_an_upload_that_waits_too_long_says_so(reviewer: Client) -> None:
    upload = make_upload(User.objects.get(username="reviewer"), sent_at=datetime.now(UTC) - timedelta(minutes=5))
    page = reviewer.get(f"/uploads/{upload.pk}/").content.decode()
    assert "No inspector has answered for 30" in page


def test_an_archived_result_is_shown_under_its_permanent_address(reviewer: Client, part: MakePart) -> None:
    upload = make_upload(User.objects.get(username="reviewer"))
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
    status = read_status(upload)
    assert (status.state, status.is_pending) == ("explained", False)
    page = reviewer.get(f"/uploads/{upload.pk}/").content.decode()
    assert "0.9731" in page
    assert page.count("<rect") == 1
    assert "Version demo has learned from rendered pictures only." in page


def test_only_changed_rows_are_sent_again(reviewer: Client, part: MakePart) -> None:
    owner = User.objects.get(username="reviewer")
    waiting, judged = make_upload(owner), make_upload(owner)
    part(line="uploads", run=judged.run, part=judged.pk)
    page = reviewer.get(f"/uploads/rows?open={waiting.pk}.waiting,{judged.pk}.waiting,x,9999.judged").content.decode()
    assert f'id="upload-{judged.pk}"' in page
    assert f'id="upload-{waiting.pk}"' not in page


def test_an_upload_has_few_pixels_and_an_account_has_a_budget_of_pixels(reviewer: Client, engineer: Client) -> None:
    status, page = send(reviewer, "bomb.png", make_large_png(7050))
    assert status == 413
    assert "at most 16,000,000 in all" in page
    large = make_large_png(3840)
    # 16 pictures with 14.7 megapixels fit into 240 megapixels a minute. Without Kafka they are refused after the budget was checked.
    statuses = [send(reviewer, "large.png", large)[0] for _ in range(40)]
    assert statuses[:16] == [503] * 16
    assert 429 in statuses
    assert send(engineer, "large.png", large)[0] == 503
