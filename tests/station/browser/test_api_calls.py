"""The API on a real plant: verdicts, refusals with their status codes, and uploads of other accounts."""

from __future__ import annotations

import hashlib
import re
import time
from typing import Any

import pytest
import requests

from tests.bad_pictures import make_bad_pictures
from tests.station.browser.plant import HttpUser, RunningStation, make_jpeg

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


HUGE = {name: value for name, value, _ in make_bad_pictures()}["PNG of 50,000 x 50,000 px"]


class ApiClient:
    """A client of the API with a token."""

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

    def wait_for_finding(self, part: str) -> dict[str, Any]:
        """Asks for up to a minute until the finding is there. A new worker must first load the model for heat maps."""
        until = time.monotonic() + 60
        while (inspection := self.ask(part, wait_s=30).json())["state"] != "explained":
            assert time.monotonic() < until, inspection
        return dict(inspection)


@pytest.fixture(scope="module")
def engineer(station: RunningStation) -> HttpUser:
    return station.log_in("engineer")


@pytest.fixture(scope="module")
def api(station: RunningStation, engineer: HttpUser) -> ApiClient:
    return ApiClient(station.address, engineer.create_token())


def test_a_picture_gets_a_verdict_and_a_finding(api: ApiClient, engineer: HttpUser) -> None:
    value = make_jpeg(good=False)
    response = api.send(value, wait_s=30)
    assert response.status_code == 200, response.text
    inspection = response.json()
    assert inspection["label"] == "defect"
    assert inspection["sha256"] == hashlib.sha256(value).hexdigest()
    assert set(inspection["votes"]) == {"alexnet", "lenet"}
    inspection = api.wait_for_finding(inspection["part"])
    assert inspection["finding"]["boxes"]
    heat_map = engineer.session.get(inspection["finding"]["heat_map"], timeout=30)
    assert heat_map.headers["Content-Type"] == "image/png"
    assert heat_map.headers["X-Content-Type-Options"] == "nosniff"
    assert engineer.session.get(inspection["page"], timeout=30).status_code == 200


def test_an_upload_is_in_the_audit_log_with_its_checksum(station: RunningStation, api: ApiClient) -> None:
    value = make_jpeg()
    part = api.send(value).json()["part"]
    page = station.log_in("administrator").get("/audit/").text
    assert re.search(rf"<td>uploaded</td>\s*<td>{part}</td>", page)
    assert hashlib.sha256(value).hexdigest() in page


def test_without_waiting_the_response_has_the_status_address(api: ApiClient) -> None:
    response = api.send(make_jpeg())
    assert response.status_code in (200, 202)
    inspection = response.json()
    assert inspection["status"].endswith(f"/api/inspections/{inspection['part']}")
    assert api.ask(inspection["part"], wait_s=30).json()["label"] == "ok"


def test_a_form_with_one_picture_is_accepted(api: ApiClient) -> None:
    response = api.send_form(picture=("../../etc/<script>.jpeg", make_jpeg()))
    assert response.status_code in (200, 202), response.text
    assert api.send_form(one=("a.jpeg", b"x"), two=("b.jpeg", b"x")).status_code == 422


@pytest.mark.parametrize(
    ("value", "status", "reason"),
    [
        (b"", 422, "empty"),
        (b"a poem", 415, "JPEG, PNG, BMP, TIFF"),
        (bytes(9 * 2**20), 413, "it has 9.0 MB, at most 7.9 MB"),
        (HUGE, 413, "too many pixels|50000 x 50000"),
    ],
)
def test_a_refusal_has_a_status_code_and_a_reason(api: ApiClient, value: bytes, status: int, reason: str) -> None:
    response = api.send(value)
    assert response.status_code == status
    assert any(part in response.json()["error"] for part in reason.split("|")), response.text


def test_a_wait_that_is_too_long_is_refused(api: ApiClient) -> None:
    response = api.send(make_jpeg(), wait_s=1000)
    assert response.status_code == 422
    assert response.json()["error"].startswith("wait:")


def test_calls_without_token_or_right_are_refused(station: RunningStation) -> None:
    for token in ("", "wrong", "castline_" + "x" * 43):
        response = ApiClient(station.address, token).send(b"x")
        assert response.status_code == 401
        assert "token" in response.json()["error"]
    response = ApiClient(station.address, station.log_in("operator").create_token()).send(b"x")
    assert response.status_code == 403
    assert "not allowed to upload" in response.json()["error"]


def test_uploads_of_other_accounts_are_not_found(station: RunningStation, api: ApiClient) -> None:
    inspection = api.send(make_jpeg(good=False), wait_s=30).json()
    _, run, part = inspection["part"].split(":")
    reviewer, administrator = station.log_in("reviewer"), station.log_in("administrator")
    others = ApiClient(station.address, reviewer.create_token())
    response = others.ask(inspection["part"])
    assert (response.status_code, response.json()) == (404, others.ask(f"uploads:{run}:999999999").json())
    for path in (f"/uploads/{part}/", f"/parts/uploads/{run}/{part}/picture", f"/parts/uploads/{run}/{part}/heat-map"):
        assert reviewer.get(path).status_code == 404, path
        assert administrator.get(path).status_code == 200, path
    assert reviewer.get(f"/uploads/rows?open={part}.waiting").text.strip() == ""


@pytest.mark.parametrize("part", ["uploads:1:1", "uploads:1:99999999999999999999", "line-1:1:1", "../../admin", "uploads", "uploads:1:-1"])
def test_an_unknown_part_is_not_found(api: ApiClient, part: str) -> None:
    assert api.ask(part).status_code == 404


def test_hostile_pictures_are_refused_or_judged_and_the_station_survives(station: RunningStation, api: ApiClient) -> None:
    before, name = station.memory_bytes(), "<img src=x onerror=alert(1)>.svg"
    hostile = [(called, value) for called, value, expected in make_bad_pictures() if expected != "judged"]
    codes = {called: api.send(value, name=name).status_code for called, value in hostile}
    assert {called: code for called, code in codes.items() if code not in (200, 202, 413, 415, 422)} == {}
    assert codes["svg"] == codes["html"] == codes["gif"] == 415
    assert api.send(make_jpeg(), wait_s=30, name=name).json()["label"] == "ok"
    page = station.log_in("engineer").get("/uploads/").text
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.svg" in page
    assert station.memory_bytes() - before < 200 * 2**20


def test_the_api_documents_itself(station: RunningStation, engineer: HttpUser) -> None:
    schema = engineer.get("/api/openapi.json").json()
    assert set(schema["paths"]) == {"/api/inspections", "/api/inspections/{part}"}
    page = engineer.get("/api/").text
    for field in schema["components"]["schemas"]["Inspection"]["properties"]:
        assert field in page
