"""A study from its making to its result: blind, in another order in each round, resumable, and with results only at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from django.contrib.auth.models import User
from django.test import Client

from station.accounts.models import AuditEntry
from station.archive.models import Part
from station.pictures.part_picture_reader import get_picture_reader
from station.studies.appraisal import AnswerRefusedError, find_task, order_numbers, store_answer, take_back_answer
from station.studies.creation import StudyPlan, StudyRefusedError, close_study, make_study
from station.studies.models import Study, StudyAnswer
from station.studies.study_report import compute_report, describe_report, is_open_for_results
from streams.errors import CastlineError
from streams.object_store import ObjectStore
from tests.encoded_pictures import make_png
from tests.rendered_pictures import camera_pictures
from tests.station.conftest import SETTINGS, MakeAccount, MakePart

NOW = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)
PARTS = 6
PLAN = StudyPlan("november", "line-1", ("anna", "berta"), rounds=2, count=PARTS)


@pytest.fixture(scope="module", autouse=True)
def reader() -> Iterator[None]:
    """Ends the process that converts pictures after the last test."""
    yield
    get_picture_reader().close()


@pytest.fixture
def parts(part: MakePart, account: MakeAccount) -> list[Part]:
    """Six parts with kept pictures, three of them with the verdict `defect`, and the accounts of two people."""
    account("anna", "reviewer")
    account("berta", "reviewer")
    store = ObjectStore(SETTINGS.store.url)
    rows = []
    for number in range(PARTS):
        address = store.put(make_png(camera_pictures(PARTS)[number]))
        rows.append(part(picture=address, sha256=address[-64:], label="defect" if number % 2 else "ok"))
    return rows


@pytest.fixture
def study(parts: list[Part]) -> Study:
    return make_study(PLAN, None, NOW)


def label_everything(study: Study, person: User, label_of: Callable[[str], str]) -> list[tuple[int, str]]:
    """Answers for `person` until nothing is left. Returns the rounds and parts in the order of the answers."""
    seen = []
    while task := find_task(study, person):
        seen.append((task.round, task.part.part))
        store_answer(study, person, task.part.number, task.round, label_of(task.part.model_label), NOW + timedelta(seconds=len(seen)))
    return seen


def test_every_person_sees_every_part_in_each_round_and_never_twice_in_a_row(study: Study, parts: list[Part]) -> None:
    anna, berta = (User.objects.get(username=name) for name in ("anna", "berta"))
    of_anna, of_berta = (label_everything(study, one, lambda label: label) for one in (anna, berta))
    for seen in (of_anna, of_berta):
        assert sorted(seen) == sorted((number, str(part)) for number in (1, 2) for part in parts)
        assert all(first[1] != second[1] for first, second in pairwise(seen))
    assert of_anna != of_berta
    for seed in range(50):
        order = [part for _, part in order_numbers(seed, 1, 3, 3)]
        assert all(first != second for first, second in pairwise(order))


def test_a_person_continues_where_the_answers_end_and_can_take_one_back(study: Study) -> None:
    anna = User.objects.get(username="anna")
    first = find_task(study, anna)
    assert first is not None
    assert find_task(Study.objects.get(), anna) == first
    store_answer(study, anna, first.part.number, 1, "ok", NOW)
    with pytest.raises(AnswerRefusedError, match="You have already labelled this part"):
        store_answer(study, anna, first.part.number, 1, "defect", NOW)
    second = find_task(study, anna)
    assert second is not None
    assert (second.part != first.part, second.done) == (True, 1)
    take_back_answer(study, anna)
    assert find_task(study, anna) == first
    with pytest.raises(AnswerRefusedError, match="You have not answered anything"):
        take_back_answer(study, anna)


def test_the_pages_show_neither_the_part_nor_results_before_the_end(study: Study, browser: Callable[[str], Client]) -> None:
    client, anna = Client(), User.objects.get(username="anna")
    client.force_login(anna, "django.contrib.auth.backends.ModelBackend")
    page = client.get("/studies/november/answer").content.decode()
    assert "0 of 12 answered, round 1 of 2" in page
    for secret in ("line-1:7:", "demo", "defect_probability", "0.02"):
        assert secret not in page
    assert client.get("/studies/november/picture")["Content-Type"] == "image/png"
    label_everything(study, User.objects.get(username="berta"), lambda label: "ok")
    progress = client.get("/studies/november/").content.decode()
    assert ("12 of 12" in progress, "Kappa" in progress) == (True, False)
    stranger = browser("engineer")
    assert stranger.get("/studies/november/answer").status_code == 404
    assert stranger.get("/studies/november/picture").status_code == 404
    assert "Kappa" not in stranger.get("/studies/november/").content.decode()
    while (answer := client.get("/studies/november/answer")).status_code == 200:
        task = answer.context["task"]
        form = {"number": task.part.number, "round": task.round, "label": task.part.model_label}
        assert client.post("/studies/november/answer", form).status_code == 302
    results = client.get("/studies/november/").content.decode()
    assert "anna and berta" in results
    assert StudyAnswer.objects.filter(person=anna).count() == 12


def test_the_result_tells_who_agrees_with_whom(study: Study, parts: list[Part]) -> None:
    """Anna labels like the model. Berta calls every part ok in the first round and labels like the model in the second."""
    anna, berta = (User.objects.get(username=name) for name in ("anna", "berta"))
    label_everything(study, anna, lambda label: label)
    while (task := find_task(study, berta)) is not None:
        store_answer(study, berta, task.part.number, task.round, task.part.model_label if task.round == 2 else "ok", NOW)
    assert is_open_for_results(study)
    report = compute_report(study)
    assert [(name, kappa.value) for name, kappa in report.within] == [("anna", 1.0), ("berta", 0.0)]
    ((first, second, between),) = report.between
    assert (first, second) == ("anna", "berta")
    assert between.value == pytest.approx(0.5)
    assert dict(report.with_model)["anna"].value == 1.0
    assert report.all_with_model.value is not None
    assert report.all_people.value is not None
    assert report.all_with_model.value > report.all_people.value
    assert (report.models, report.left_to_people) == ({"demo": PARTS}, 0)
    assert json.loads(json.dumps(describe_report(report)))["between"][0]["people"] == ["anna", "berta"]


def test_a_closed_study_takes_no_answers_and_shows_what_there_is(study: Study) -> None:
    anna = User.objects.get(username="anna")
    task = find_task(study, anna)
    assert task is not None
    close_study(study, None, NOW)
    with pytest.raises(AnswerRefusedError, match="This study is closed"):
        store_answer(study, anna, task.part.number, 1, "ok", NOW)
    with pytest.raises(StudyRefusedError, match="is closed already"):
        close_study(study, None, NOW)
    assert compute_report(Study.objects.get()).all_people.value is None
    assert [entry.action for entry in AuditEntry.objects.filter(subject="november")] == ["study closed", "study made"]


def test_a_study_keeps_its_pictures_when_the_archive_deletes_them(study: Study, parts: list[Part]) -> None:
    for row in parts:
        ObjectStore(SETTINGS.store.url).delete(row.picture)
        row.delete()
    client = Client()
    client.force_login(User.objects.get(username="anna"), "django.contrib.auth.backends.ModelBackend")
    assert client.get("/studies/november/picture").status_code == 200


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "Not so"}, "The name 'Not so' is not possible."),
        ({"name": "november"}, "There is already a study november."),
        ({"rounds": 1}, "1 rounds are not possible. Choose 2 to 5."),
        ({"people": ("anna", "no\0body")}, "no\0body has no account that is allowed to review parts."),
        ({"people": ("anna", "nobody")}, "nobody has no account that is allowed to review parts."),
        ({"line": "line-9"}, "There is no line 'line-9'."),
        ({"line": "line-2"}, "A study needs 5 to 500 parts with a stored picture. line-2 has 0 such parts."),
        ({"parts": ("line-1:7",)}, "expected a part id"),
        ({"parts": ("line-1:7:999",)}, "The archive has no part line-1:7:999 of line-1."),
    ],
)
def test_a_study_that_is_not_possible_is_refused_in_words(study: Study, changes: dict[str, object], sentence: str) -> None:
    plan = replace(PLAN, **{"name": "december", **changes})  # type: ignore[arg-type]
    with pytest.raises(CastlineError) as refused:
        make_study(plan, None, NOW)
    assert str(refused.value).startswith(sentence)
    assert Study.objects.count() == 1


def test_only_engineers_make_studies(study: Study, reviewer: Client, engineer: Client) -> None:
    form = {"name": "december", "line": "line-1", "people": "anna, berta", "rounds": "2", "count": "6"}
    assert reviewer.post("/studies/", form).status_code == 403
    assert reviewer.post("/studies/november/close").status_code == 403
    refused = engineer.post("/studies/", {**form, "count": "many"})
    assert (refused.status_code, "Number of parts: &#x27;many&#x27; is not a whole number." in refused.content.decode()) == (409, True)
    assert engineer.post("/studies/", form).status_code == 302
    assert Study.objects.filter(name="december").exists()
