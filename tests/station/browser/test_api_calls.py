"""Programs at the API, before a real plant: verdicts, refusals with their codes, and what belongs to others."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import pytest
import requests

from tests.bad_pictures import make_bad_pictures
from tests.station.browser.plant import Person, Station, castings

pytestmark = pytest.mark.timeout(240)


HUGE = {name: value for name, value, _ in make_bad_pictures()}["PNG of 50,000 x 50,000 px"]


class Program:
    """A program with a token."""

    def __init__(self, address: str, token: str) -> None:
        self._address = f"{address}/api/inspections"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def send(self, value: bytes, wait_s: float = 0, name: str = "a.jpeg") -> requests.Response:
        headers = {"Content-Type": "image/jpeg", "X-File-Name": name}
        return self._session.post(f"{self._address}?wait={wait_s}", data=value, headers=headers, timeout=60)

    def send_form(self, **files: tuple[str, bytes]) -> requests.Response:
        return self._session.post(self._address, files=files, timeout=60)

    def ask(self, part: str, wait_s: float = 0) -> requests.Response:
        return self._session.get(f"{self._address}/{part}?wait={wait_s}", timeout=60)

    def ask_until_explained(self, part: str) -> dict[str, Any]:
        """Again and again for a minute: a worker that has just started opens the version for heat maps first."""
        until = time.monotonic() + 60
        while (told := self.ask(part, wait_s=30).json())["state"] != "explained":
            assert time.monotonic() < until, told
        return dict(told)


@pytest.fixture(scope="module")
def engineer(station: Station) -> Person:
    return station.person("engineer")


@pytest.fixture(scope="module")
def program(station: Station, engineer: Person) -> Program:
    return Program(station.address, engineer.token())


def test_a_picture_gets_its_verdict_and_where_it_is_suspicious(program: Program, engineer: Person) -> None:
    value = castings()[1].jpeg()
    answer = program.send(value, wait_s=30)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["label"] == "defect"
    assert told["sha256"] == hashlib.sha256(value).hexdigest()
    assert set(told["votes"]) == {"alexnet", "lenet"}
    told = program.ask_until_explained(told["part"])
    assert told["finding"]["boxes"]
    heat_map = engineer.session.get(told["finding"]["heat_map"], timeout=30)
    assert heat_map.headers["Content-Type"] == "image/png"
    assert heat_map.headers["X-Content-Type-Options"] == "nosniff"
    assert engineer.session.get(told["page"], timeout=30).status_code == 200


def test_who_does_not_wait_is_told_where_to_ask(program: Program) -> None:
    answer = program.send(castings()[0].jpeg())
    assert answer.status_code in (200, 202)
    told = answer.json()
    assert told["status"].endswith(f"/api/inspections/{told['part']}")
    assert program.ask(told["part"], wait_s=30).json()["label"] == "ok"


def test_a_form_with_one_picture_is_taken_too(program: Program) -> None:
    answer = program.send_form(picture=("../../etc/<script>.jpeg", castings()[0].jpeg()))
    assert answer.status_code in (200, 202), answer.text
    assert program.send_form(one=("a.jpeg", b"x"), two=("b.jpeg", b"x")).status_code == 422


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        (b"", 422, "empty"),
        (b"a poem", 415, "JPEG, PNG, BMP or TIFF"),
        (bytes(9 * 2**20), 413, "it has 9.0 MB, at most 7.9 MB"),
        (HUGE, 413, "too many pixels|50000 x 50000"),
    ],
)
def test_a_refusal_has_its_code_and_says_why(program: Program, value: bytes, status: int, words: str) -> None:
    answer = program.send(value)
    assert answer.status_code == status
    assert any(word in answer.json()["error"] for word in words.split("|")), answer.text


def test_a_wrong_wait_is_refused(program: Program) -> None:
    answer = program.send(castings()[0].jpeg(), wait_s=1000)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("wait:")


def test_without_a_token_or_right_nobody_gets_in(station: Station) -> None:
    for token in ("", "wrong", "castline_" + "x" * 43):
        answer = Program(station.address, token).send(b"x")
        assert answer.status_code == 401
        assert "token" in answer.json()["error"]
    answer = Program(station.address, station.person("operator").token()).send(b"x")
    assert answer.status_code == 403
    assert "not allowed to upload" in answer.json()["error"]


def test_what_others_sent_is_not_there(station: Station, program: Program) -> None:
    told = program.send(castings()[1].jpeg(), wait_s=30).json()
    _, run, part = told["part"].split(":")
    reviewer, administrator = station.person("reviewer"), station.person("administrator")
    others = Program(station.address, reviewer.token())
    answer = others.ask(told["part"])
    assert (answer.status_code, answer.json()) == (404, others.ask(f"uploads:{run}:999999999").json())
    for path in (f"/uploads/{part}/", f"/parts/uploads/{run}/{part}/picture", f"/parts/uploads/{run}/{part}/heat-map"):
        assert reviewer.get(path).status_code == 404, path
        assert administrator.get(path).status_code == 200, path
    assert reviewer.get(f"/uploads/rows?open={part}.waiting").text.strip() == ""


@pytest.mark.parametrize("part", ["uploads:1:1", "uploads:1:99999999999999999999", "line-1:1:1", "../../admin", "uploads", "uploads:1:-1"])
def test_a_part_that_is_none_of_ours_is_not_found(program: Program, part: str) -> None:
    assert program.ask(part).status_code == 404


def test_hostile_pictures_are_refused_or_judged_and_never_break_the_station(station: Station, program: Program) -> None:
    before, name = station.memory_bytes(), "<img src=x onerror=alert(1)>.svg"
    hostile = [(called, value) for called, value, expected in make_bad_pictures() if expected != "judged"]
    codes = {called: program.send(value, name=name).status_code for called, value in hostile}
    assert {called: code for called, code in codes.items() if code not in (200, 202, 413, 415, 422)} == {}
    assert codes["svg"] == codes["html"] == codes["gif"] == 415
    assert program.send(castings()[0].jpeg(), wait_s=30, name=name).json()["label"] == "ok"
    page = station.person("engineer").get("/uploads/").text
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.svg" in page
    assert station.memory_bytes() - before < 200 * 2**20


def test_the_api_describes_itself(station: Station, engineer: Person) -> None:
    schema = engineer.get("/api/openapi.json").json()
    assert set(schema["paths"]) == {"/api/inspections", "/api/inspections/{part}"}
    page = engineer.get("/api/").text
    for field in schema["components"]["schemas"]["Inspection"]["properties"]:
        assert field in page
