"""Uploads and part reports over HTTP, with a real server and a real spool, without Kafka."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from agents.gateway.folder_camera import FolderCamera
from agents.gateway.intake import GatewayCamera, Intake, TriggeredCamera
from agents.gateway.spool import Spool, SpoolBudget
from agents.gateway.upload_camera import LineEndpoint, UploadCamera, build_app
from streams.identity import PartId
from streams.settings import CameraSettings

JPEG = b"\xff\xd8\xff\xe0 a picture of a casting"
LIMIT = 10_000
UPLOAD = {"Authorization": "Bearer let-me-in", "Content-Type": "image/jpeg"}
PARTS = {"Authorization": "Bearer from-the-sorter"}


class UploadPlant:
    """Three lines: `http` and `timed` accept uploads, and a board counts the parts of `timed`. `replay` is a triggered folder."""

    def __init__(self, root: Path) -> None:
        (root / "in").mkdir()
        (root / "in/a.jpg").write_bytes(JPEG)
        self.spools: dict[str, Spool] = {}
        self.stopping = threading.Event()
        self.threads: list[threading.Thread] = []
        budget = SpoolBudget(60_000)
        endpoints = {}
        for name, settings in {
            "http": CameraSettings(kind="http"),
            "timed": CameraSettings(kind="http", trigger="board", match_window_s=0.5),
            "replay": CameraSettings(kind="folder", path=root / "in", trigger="board"),
        }.items():
            spool = self.spools[name] = Spool(root / "spool", name, budget)
            intake = Intake(settings, LIMIT, spool, on_stored=lambda: None)
            camera: GatewayCamera = UploadCamera() if settings.kind == "http" else FolderCamera(name, settings)
            self.threads += [
                threading.Thread(target=self._run_camera, args=(camera, intake)),
                threading.Thread(target=self._decide, args=(intake,)),
            ]
            endpoints[name] = LineEndpoint(
                line=name,
                token=SecretStr("let-me-in"),
                uploads=camera if isinstance(camera, UploadCamera) else None,
                triggered=camera if isinstance(camera, TriggeredCamera) else None,
                part_intake=intake if settings.trigger == "board" else None,
            )
        endpoints["shut"] = LineEndpoint("shut", SecretStr(""), UploadCamera(), None, None)
        self.app = build_app(endpoints, LIMIT, SecretStr("from-the-sorter"))
        for thread in self.threads:
            thread.start()

    def _run_camera(self, camera: GatewayCamera, intake: Intake) -> None:
        for frame in camera.frames(self.stopping):
            intake.accept(frame)

    def _decide(self, intake: Intake) -> None:
        while not self.stopping.wait(0.05):
            intake.decide_due()

    def parts(self, line: str) -> list[PartId]:
        return [spooled.part for spooled in self.spools[line].read_after(0, 100)]

    def close(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(5)
        for spool in self.spools.values():
            spool.close()


@pytest_asyncio.fixture
async def plant(tmp_path: Path) -> AsyncIterator[UploadPlant]:
    plant = UploadPlant(tmp_path)
    yield plant
    plant.close()


@pytest_asyncio.fixture
async def url(plant: UploadPlant) -> AsyncIterator[str]:
    async with TestServer(plant.app) as server:
        yield str(server.make_url("")).rstrip("/")


async def post(url: str, path: str, headers: dict[str, str], data: bytes = JPEG, json: object = None) -> tuple[int, dict[str, object]]:
    async with (
        ClientSession() as session,
        session.post(url + path, headers=headers, **({"json": json} if json is not None else {"data": data})) as response,
    ):
        body: dict[str, object] = await response.json()
        return response.status, body


@pytest.mark.asyncio
async def test_an_upload_is_answered_with_its_part_when_the_picture_is_on_disk(url: str, plant: UploadPlant) -> None:
    captured_at = "2026-11-22T10:00:00.250000Z"
    status, body = await post(url, "/lines/http/pictures", {**UPLOAD, "X-Captured-At": captured_at})
    (spooled,) = plant.spools["http"].read_after(0, 10)
    assert status == 201
    assert body == {
        "part": str(spooled.part),
        "line": "http",
        "run": plant.spools["http"].run,
        "number": 1,
        "repeated": False,
        "matched": True,
    }
    assert spooled.picture.value == JPEG
    assert spooled.picture.captured_at == datetime(2026, 11, 22, 10, 0, 0, 250_000, tzinfo=UTC)


@pytest.mark.asyncio
async def test_a_retry_under_the_same_key_is_the_same_part(url: str, plant: UploadPlant) -> None:
    keyed = {**UPLOAD, "Idempotency-Key": "camera-7/000123"}
    _, first = await post(url, "/lines/http/pictures", keyed)
    status, second = await post(url, "/lines/http/pictures", keyed)
    assert (status, second["part"], second["repeated"]) == (201, first["part"], True)
    assert len(plant.parts("http")) == 1
    status, body = await post(url, "/lines/http/pictures", keyed, data=JPEG + b"another")
    assert status == 422
    assert "received another" in str(body["error"])
    _, third = await post(url, "/lines/http/pictures", UPLOAD)
    assert third["part"] != first["part"], "without a key each upload is a part"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("path", "headers", "data", "status"),
    [
        ("/lines/http/pictures", {"Content-Type": "image/jpeg"}, JPEG, 401),
        ("/lines/http/pictures", {**UPLOAD, "Authorization": "Bearer let-me-i"}, JPEG, 401),
        ("/lines/http/pictures", {**UPLOAD, "Authorization": "Bearer lét-me-in"}, JPEG, 401),
        ("/lines/http/pictures", {**UPLOAD, "Authorization": "Basic let-me-in"}, JPEG, 401),
        ("/lines/shut/pictures", {**UPLOAD, "Authorization": "Bearer "}, JPEG, 401),
        ("/lines/nowhere/pictures", UPLOAD, JPEG, 404),
        ("/lines/replay/pictures", UPLOAD, JPEG, 404),
        ("/lines/http/pictures", {**UPLOAD, "Content-Type": "text/html"}, JPEG, 415),
        ("/lines/http/pictures", {**UPLOAD, "Content-Type": "multipart/form-data; boundary=x"}, JPEG, 415),
        ("/lines/http/pictures", {**UPLOAD, "X-Captured-At": "yesterday"}, JPEG, 400),
        ("/lines/http/pictures", {**UPLOAD, "X-Captured-At": "2026-11-22T10:00:00"}, JPEG, 400),
        ("/lines/http/pictures", {**UPLOAD, "Idempotency-Key": "k" * 201}, JPEG, 400),
        ("/lines/http/pictures", UPLOAD, b"", 422),
        ("/lines/http/parts", PARTS, b"{}", 404),
        ("/lines/replay/parts", {"Authorization": "Bearer let-me-in"}, b"{}", 401),
        ("/lines/replay/parts", PARTS, b"{}", 400),
        ("/lines/replay/parts", PARTS, b"not json", 400),
        ("/lines/replay/parts", PARTS, b'{"run": 0, "part": 1, "captured_at": "2026-11-22T10:00:00Z"}', 400),
        ("/lines/replay/parts", PARTS, b'{"run": 1, "part": 1, "captured_at": "2026-11-22T10:00:00"}', 400),
    ],
)
async def test_a_wrong_request_gets_an_error_and_nothing_is_stored(
    url: str, plant: UploadPlant, path: str, headers: dict[str, str], data: bytes, status: int
) -> None:
    found, body = await post(url, path, headers, data=data)
    assert found == status
    assert body["error"]
    assert [plant.parts(line) for line in plant.spools] == [[], [], []]


@pytest.mark.asyncio
async def test_the_response_to_a_too_large_picture_holds_its_size_and_the_limit(url: str, plant: UploadPlant) -> None:
    status, body = await post(url, "/lines/http/pictures", UPLOAD, data=bytes(LIMIT + 1))
    assert (status, body["size_bytes"], body["limit_bytes"]) == (413, LIMIT + 1, LIMIT)
    assert body["error"] == f"expected at most {LIMIT} bytes, received {LIMIT + 1}"

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield bytes(1000)

    async with ClientSession() as session, session.post(f"{url}/lines/http/pictures", headers=UPLOAD, data=endless()) as response:
        assert response.status == 413, "also without a Content-Length"
    assert plant.parts("http") == []
    status, _ = await post(url, "/lines/http/pictures", UPLOAD, data=JPEG.ljust(LIMIT))
    assert status == 201


@pytest.mark.asyncio
async def test_a_full_spool_is_status_507_and_uses_no_number(url: str, plant: UploadPlant) -> None:
    statuses = [(await post(url, "/lines/http/pictures", UPLOAD, data=JPEG.ljust(9000)))[0] for _ in range(7)]
    assert statuses == [201] * 5 + [507] * 2
    plant.spools["http"].remove([plant.spools["http"].read_after(0, 1)[0].seq])
    _, body = await post(url, "/lines/http/pictures", UPLOAD)
    assert body["number"] == 6


@pytest.mark.asyncio
async def test_bytes_that_are_no_picture_are_accepted_for_the_inspector_to_judge(url: str, plant: UploadPlant) -> None:
    status, _ = await post(url, "/lines/http/pictures", UPLOAD, data=b"%PDF-1.7 hostile")
    assert status == 201
    assert plant.spools["http"].read_after(0, 1)[0].picture.content_type == "application/octet-stream"


def report(number: int, at: datetime) -> dict[str, object]:
    return {"run": 12, "part": number, "captured_at": at.isoformat()}


@pytest.mark.asyncio
async def test_the_picture_of_a_triggered_camera_is_on_disk_when_its_part_report_is_answered(url: str, plant: UploadPlant) -> None:
    now = datetime.now(UTC)
    for number in (1, 2, 2, 1, 3):
        status, body = await post(url, "/lines/replay/parts", PARTS, json=report(number, now))
        assert (status, body["part"]) == (202, f"replay:12:{number}")
        assert PartId("replay", 12, number) in plant.parts("replay")
    assert plant.parts("replay") == [PartId("replay", 12, number) for number in (1, 2, 3)]


@pytest.mark.asyncio
async def test_an_upload_gets_the_part_that_was_reported_for_its_time(url: str, plant: UploadPlant) -> None:
    now = datetime.now(UTC)
    for number in range(1, 4):
        assert (await post(url, "/lines/timed/parts", PARTS, json=report(number, now + timedelta(seconds=5 * number))))[0] == 202
    _, second = await post(url, "/lines/timed/pictures", {**UPLOAD, "X-Captured-At": (now + timedelta(seconds=10.01)).isoformat()})
    assert (second["part"], second["matched"]) == ("timed:12:2", True)
    _, stray = await post(url, "/lines/timed/pictures", {**UPLOAD, "X-Captured-At": (now + timedelta(seconds=12.5)).isoformat()})
    assert (stray["run"], stray["matched"]) == (plant.spools["timed"].run, False)
    _, third = await post(url, "/lines/timed/pictures", {**UPLOAD, "X-Captured-At": (now + timedelta(seconds=15.01)).isoformat()})
    assert third["part"] == "timed:12:3"
