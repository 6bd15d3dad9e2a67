"""Uploads and part reports over HTTP, with a real server and a real spool, without Kafka."""

from __future__ import annotations

import asyncio
import errno
import gzip
import threading
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from aiohttp import ClientSession, FormData, encode_basic_auth
from prometheus_client import REGISTRY
from pydantic import SecretStr

from agents.gateway.folder_camera import FolderCamera
from agents.gateway.intake import CameraFrame, GatewayCamera, Intake, TriggeredCamera
from agents.gateway.spool import PictureReceipt, Spool, SpoolBudget
from agents.gateway.upload_camera import LineEndpoint, UploadCamera, build_app
from agents.gateway.upload_request import RequestRefusedError, _Unpacker
from agents.gateway.web_server import MAX_CONNECTIONS_PER_ADDRESS, start_site
from streams.errors import SpoolFullError
from streams.identity import PartId
from streams.settings import CameraSettings
from tests.agents.gateway.camera_line import CameraLine, wait_until, write_pictures

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
        self.cameras: dict[str, GatewayCamera] = {}
        self.stopping = threading.Event()
        self.threads: list[threading.Thread] = []
        budget = SpoolBudget(60_000)
        endpoints = {}
        for name, settings in {
            "http": CameraSettings(kind="http"),
            "timed": CameraSettings(kind="http", trigger="board", latency_s=0.0, match_window_s=0.5),
            "replay": CameraSettings(kind="folder", path=root / "in", trigger="board"),
        }.items():
            spool = self.spools[name] = Spool(root / "spool", name, budget)
            intake = Intake(settings, LIMIT, spool, on_stored=lambda: None)
            camera: GatewayCamera = UploadCamera() if settings.kind == "http" else FolderCamera(name, settings)
            self.cameras[name] = camera
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
        self.stuck = UploadCamera(3 * LIMIT)
        endpoints["stuck"] = LineEndpoint("stuck", SecretStr("let-me-in"), self.stuck, None, None)
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
    runner, address = await start_site(plant.app, "127.0.0.1", 0)
    yield address
    await runner.cleanup()


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
        ("/lines/http/pictures", {**UPLOAD, "Content-Type": "multipart/form-data; boundary=x"}, JPEG, 400),
        ("/lines/http/pictures", {**UPLOAD, "Content-Type": "multipart/form-data"}, JPEG, 400),
        ("/lines/http/pictures", {**UPLOAD, "Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\n\r\nhalf", 400),
        ("/lines/http/pictures", {**UPLOAD, "Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\n\r\ntext\r\n--x--", 415),
        ("/lines/http/pictures", {**UPLOAD, "Content-Type": "application/x-www-form-urlencoded"}, b"picture=7", 415),
        ("/lines/http/pictures", {**UPLOAD, "Content-Encoding": "gzip"}, JPEG, 400),
        ("/lines/http/pictures", {**UPLOAD, "Content-Encoding": "gzip"}, gzip.compress(JPEG, mtime=0)[:-9], 400),
        ("/lines/http/pictures", {**UPLOAD, "Content-Encoding": "br"}, JPEG, 415),
        ("/lines/http/pictures", {**UPLOAD, "Authorization": 'Digest username="camera", nonce="7"'}, JPEG, 401),
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
    now = datetime.now(UTC) - timedelta(seconds=16)
    for number in range(1, 4):
        assert (await post(url, "/lines/timed/parts", PARTS, json=report(number, now + timedelta(seconds=5 * number))))[0] == 202
    _, second = await post(url, "/lines/timed/pictures", {**UPLOAD, "X-Captured-At": (now + timedelta(seconds=10.01)).isoformat()})
    assert (second["part"], second["matched"]) == ("timed:12:2", True)
    _, stray = await post(url, "/lines/timed/pictures", {**UPLOAD, "X-Captured-At": (now + timedelta(seconds=12.5)).isoformat()})
    assert (stray["run"], stray["matched"]) == (plant.spools["timed"].run, False)
    _, third = await post(url, "/lines/timed/pictures", {**UPLOAD, "X-Captured-At": (now + timedelta(seconds=15.01)).isoformat()})
    assert third["part"] == "timed:12:3"


class FailingSpool(Spool):
    """A spool on a disk that fails in `method` with `error` until `is_failing` is False, or does not answer until `may_answer` is set."""

    def __init__(self, folder: Path, method: str, error: Exception | None) -> None:
        self.method, self.error, self.is_failing, self.may_answer = method, error, False, threading.Event()
        super().__init__(folder, "line-1", SpoolBudget(2**20))
        self.is_failing = True

    def _fail(self, method: str) -> None:
        if self.is_failing and method == self.method:
            if self.error is not None:
                raise self.error
            assert self.may_answer.wait(10)

    def _find_receipt(self, key: str) -> tuple[PartId, str] | None:
        self._fail("_find_receipt")
        return super()._find_receipt(key)

    def _count_write_ahead(self) -> int:
        self._fail("_count_write_ahead")
        return super()._count_write_ahead()


@pytest_asyncio.fixture
async def cleanup() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


STALE = OSError(errno.ESTALE, "Stale file handle")
FULL = SpoolFullError("the receipts cannot be read: disk I/O error")


@pytest.mark.parametrize(
    ("kind", "what", "method", "error", "status"),
    [
        ("http", "parts", "_find_receipt", FULL, 507),
        ("folder", "parts", "_find_receipt", FULL, 507),
        ("http", "parts", "_find_receipt", STALE, 507),
        ("http", "pictures", "_count_write_ahead", STALE, 507),
        ("http", "parts", "_find_receipt", None, 503),
        ("folder", "parts", "_find_receipt", None, 503),
    ],
)
@pytest.mark.asyncio
async def test_a_disk_that_fails_refuses_no_request_for_good(
    tmp_path: Path, cleanup: AsyncExitStack, kind: str, what: str, method: str, error: Exception | None, status: int
) -> None:
    write_pictures(tmp_path / "in", "a.jpg")
    path = tmp_path / "in" if kind == "folder" else None
    settings = CameraSettings.model_validate({"kind": kind, "path": path, "trigger": "board" if what == "parts" else "free"})
    spool = FailingSpool(tmp_path / "spool", method, error)
    line = CameraLine(tmp_path / "spool", settings, spool=spool)
    cleanup.callback(line.stop)
    camera: GatewayCamera = UploadCamera() if kind == "http" else FolderCamera("line-1", settings)
    line.start(camera)
    triggered = camera if isinstance(camera, TriggeredCamera) else None
    uploads = camera if isinstance(camera, UploadCamera) else None
    endpoint = LineEndpoint("line-1", SecretStr("let-me-in"), uploads, triggered, line.intake)
    app = build_app({"line-1": endpoint}, LIMIT, SecretStr("from-the-sorter"), receipt_timeout_s=0.2 if error is None else 10)
    runner, address = await start_site(app, "127.0.0.1", 0)
    cleanup.push_async_callback(runner.cleanup)
    cleanup.callback(spool.may_answer.set)

    async def ask() -> int:
        if what == "pictures":
            return (await post(address, "/lines/line-1/pictures", {**UPLOAD, "Idempotency-Key": "1"}))[0]
        return (await post(address, "/lines/line-1/parts", PARTS, json=report(1, datetime.now(UTC))))[0]

    assert await ask() == status
    if error is None:
        assert spool.find_disk_wait_s() > 0, "the disk of the spool is known to hang"
    spool.is_failing = False
    spool.may_answer.set()
    assert await ask() == (201 if what == "pictures" else 202)


@pytest.mark.asyncio
async def test_uploads_without_a_time_that_arrive_together_get_no_part(url: str, plant: UploadPlant) -> None:
    now = datetime.now(UTC)
    for number in range(1, 4):
        report_at = now + timedelta(seconds=2 * (number - 3))
        assert (await post(url, "/lines/timed/parts", PARTS, json=report(number, report_at)))[0] == 202
    answers = await asyncio.gather(*(post(url, "/lines/timed/pictures", UPLOAD, data=JPEG + end) for end in (b"1", b"2")))
    assert [body["matched"] for _, body in answers] == [False, False]


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "camera-7/000123"}], ids=["without a key", "with a key"])
@pytest.mark.asyncio
async def test_an_upload_without_a_time_that_is_sent_again_before_its_answer_gets_its_part(
    url: str, plant: UploadPlant, headers: dict[str, str]
) -> None:
    now = datetime.now(UTC)
    for number in range(1, 4):
        report_at = now + timedelta(seconds=2 * (number - 3))
        assert (await post(url, "/lines/timed/parts", PARTS, json=report(number, report_at)))[0] == 202
    answers = await asyncio.gather(*(post(url, "/lines/timed/pictures", {**UPLOAD, **headers}) for _ in range(3)))
    assert {(body["part"], body["matched"]) for _, body in answers} == {("timed:12:3", True)}
    assert sorted(bool(body["repeated"]) for _, body in answers) == [False, True, True]
    assert plant.parts("timed") == [PartId("timed", 12, 3)]


@pytest.mark.real
@pytest.mark.parametrize("receipt_timeout_s", [15.0, 2.0], ids=["the camera closes the connection", "the time limit ends the request"])
@pytest.mark.asyncio
async def test_a_copy_of_an_upload_that_never_reached_the_intake_gets_the_part_of_its_own_casting(
    tmp_path: Path, receipt_timeout_s: float
) -> None:
    """The first upload waits behind a disk that hangs. When the camera sends its picture again, the next casting is in front of it."""
    spool, camera, stopping = Spool(tmp_path, "line-1", SpoolBudget(60_000)), UploadCamera(), threading.Event()
    settings = CameraSettings(kind="http", trigger="board", latency_s=0.0, match_window_s=1.5)
    intake = Intake(settings, LIMIT, spool, on_stored=lambda: None)

    def run_camera() -> None:
        for frame in camera.frames(stopping):
            intake.accept(frame)

    def match() -> None:
        while not stopping.wait(0.05):
            intake.decide_due()

    endpoint = LineEndpoint("line-1", SecretStr("let-me-in"), camera, None, intake)
    app = build_app({"line-1": endpoint}, LIMIT, SecretStr("from-the-sorter"), receipt_timeout_s=receipt_timeout_s)
    runner, url = await start_site(app, "127.0.0.1", 0)
    counted_at = datetime.now(UTC)
    for number in (1, 2, 3):
        intake.report_part(PartId("line-1", 12, number), counted_at + timedelta(seconds=5 * (number - 3)))
    first = asyncio.create_task(post(url, "/lines/line-1/pictures", UPLOAD))
    await asyncio.to_thread(wait_until, lambda: camera.waiting_count == 1)
    if receipt_timeout_s == 15.0:
        first.cancel()
        await asyncio.to_thread(wait_until, lambda: camera.memory.used_bytes == 0)
    else:
        assert (await first)[0] == 503
    threads = [threading.Thread(target=run_camera), threading.Thread(target=match)]
    for thread in threads:
        thread.start()
    await asyncio.sleep(max(0.0, 5 - (datetime.now(UTC) - counted_at).total_seconds()))
    intake.report_part(PartId("line-1", 12, 4), counted_at + timedelta(seconds=5))
    status, body = await post(url, "/lines/line-1/pictures", UPLOAD)
    stopping.set()
    for thread in threads:
        thread.join(5)
    assert (status, body["part"], body["matched"]) == (201, "line-1:12:3", True)
    assert [spooled.part for spooled in spool.read_after(0, 9)] == [PartId("line-1", 12, 3)]
    await runner.cleanup()
    spool.close()


def upload(camera: UploadCamera, picture: bytes, key: str = "") -> CameraFrame:
    frame = CameraFrame(picture, datetime.now(UTC), idempotency_key=key, is_arrival=True)
    camera.upload(frame)
    return frame


def list_waiting(camera: UploadCamera, count: int) -> list[CameraFrame]:
    """Returns the next `count` frames. The last one must be the live picture b"end", so no further frame waits before it."""
    upload(camera, b"end")
    frames = list(islice(camera.frames(threading.Event()), count))
    assert frames[-1].value == b"end"
    return frames[:-1]


@pytest.mark.parametrize("key", ["", "key:1"])
def test_copies_of_an_abandoned_upload_do_not_remove_their_first_copy(key: str) -> None:
    camera = UploadCamera()
    first = upload(camera, JPEG, key)
    camera.abandon(first)
    for _ in range(1100):
        camera.abandon(upload(camera, JPEG, key))
    other = upload(camera, JPEG, "key:2")
    camera.abandon(other)
    assert [frame.receipt for frame in list_waiting(camera, 3)] == [first.receipt, other.receipt]


def test_an_upload_that_is_abandoned_after_its_copy_stays_the_first_copy() -> None:
    camera = UploadCamera()
    first, copy = upload(camera, JPEG), upload(camera, JPEG)
    camera.abandon(copy)
    camera.abandon(first)
    assert [frame.receipt for frame in list_waiting(camera, 2)] == [first.receipt]


def test_if_too_many_uploads_are_abandoned_the_oldest_ones_stay_known() -> None:
    camera = UploadCamera()
    frames = [upload(camera, JPEG + str(number).encode()) for number in range(1100)]
    for frame in frames:
        camera.abandon(frame)
    assert camera.waiting_count == 0
    assert [frame.receipt for frame in list_waiting(camera, 1025)] == [frame.receipt for frame in frames[:1024]]


class SlowCamera:
    """A triggered camera whose pictures are stored 1.2 s after their trigger."""

    def trigger(self, part: PartId, captured_at: datetime) -> Future[PictureReceipt]:
        receipt: Future[PictureReceipt] = Future()
        threading.Timer(1.2, receipt.set_result, [PictureReceipt(part)]).start()
        return receipt


@pytest.mark.real
@pytest.mark.asyncio
async def test_the_wait_for_a_slow_disk_and_a_slow_camera_ends_within_the_time_of_one_wait(tmp_path: Path, cleanup: AsyncExitStack) -> None:
    """The time limit is 2 s. The disk and the camera need 1.2 s each."""
    write_pictures(tmp_path / "in", "a.jpg")
    spool = FailingSpool(tmp_path / "spool", "_find_receipt", None)
    line = CameraLine(tmp_path / "spool", CameraSettings(kind="folder", path=tmp_path / "in", trigger="board"), spool=spool)
    cleanup.callback(line.stop)
    endpoint = LineEndpoint("line-1", SecretStr("let-me-in"), None, SlowCamera(), line.intake)
    runner, url = await start_site(
        build_app({"line-1": endpoint}, LIMIT, SecretStr("from-the-sorter"), receipt_timeout_s=2), "127.0.0.1", 0
    )
    cleanup.push_async_callback(runner.cleanup)
    cleanup.callback(spool.may_answer.set)
    threading.Timer(1.2, spool.may_answer.set).start()
    status, body = await post(url, "/lines/line-1/parts", PARTS, json=report(1, datetime.now(UTC)))
    assert (status, body["error"]) == (503, "the picture was not stored in time; send it again under the same Idempotency-Key")


@pytest.mark.asyncio
async def test_an_upload_that_waited_for_the_intake_has_the_time_at_which_it_arrived(tmp_path: Path) -> None:
    camera, now = UploadCamera(), datetime.now(UTC)
    frame = CameraFrame(JPEG, now, is_arrival=True)
    camera.upload(frame)
    await asyncio.sleep(0.3)
    waited = next(camera.frames(threading.Event()))
    assert waited.receipt is frame.receipt
    assert waited.waited_s is not None
    assert waited.waited_s >= 0.3


async def send(url: str, method: str = "POST", path: str = "/lines/http/pictures", **options: Any) -> tuple[int, dict[str, Any]]:
    """Sends a request with the line's token as Basic password, as cameras do, unless `options` say otherwise."""
    headers = {"Authorization": encode_basic_auth("camera", "let-me-in"), **options.pop("headers", {})}
    async with ClientSession() as session, session.request(method, url + path, headers=headers, **options) as response:
        return response.status, await response.json()


def make_form(*parts: tuple[str, bytes | str, str]) -> FormData:
    form = FormData()
    for name, content, content_type in parts:
        form.add_field(name, content, content_type=content_type, filename=f"{name}.bin" if isinstance(content, bytes) else None)
    return form


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/lines/http/pictures", "/lines/http/pictures/cam7_000123.jpg"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_cameras_put_and_post_with_basic_authentication(url: str, plant: UploadPlant, method: str, path: str) -> None:
    status, _ = await send(url, method, path, data=JPEG, headers={"Content-Type": "image/jpeg"})
    assert status == 201
    assert plant.spools["http"].read_after(0, 10)[0].picture.value == JPEG


@pytest.mark.asyncio
async def test_the_first_picture_of_a_form_is_taken_whatever_stands_beside_it(url: str, plant: UploadPlant) -> None:
    event = ("event", "<EventNotificationAlert/>", "application/xml")
    forms = [
        make_form(event, ("picture", JPEG, "image/jpeg"), ("second", JPEG + b"2", "image/jpeg")),
        make_form(("file", JPEG, "application/octet-stream"), event),
        make_form(event, ("damaged", b"no picture any more", "image/jpeg")),
    ]
    for form in forms:
        assert (await send(url, data=form))[0] == 201
    # Line feeds alone, base64, another kind of form, and bytes before the first boundary, as small devices write them.
    body = b"preamble\n--x y\nContent-Type: image/jpeg\nContent-Transfer-Encoding: base64\n\n" + b64encode(JPEG) + b"\n--x y--\n"
    assert (await send(url, data=body, headers={"Content-Type": 'multipart/mixed; boundary="x y"'}))[0] == 201
    assert [spooled.picture.value for spooled in plant.spools["http"].read_after(0, 10)] == [JPEG, JPEG, b"no picture any more", JPEG]


@pytest.mark.asyncio
async def test_bytes_of_a_picture_that_look_like_a_boundary_stay_in_it(url: str, plant: UploadPlant) -> None:
    picture = JPEG + b"\r\n--\r\n\n\r\n"
    assert (await send(url, data=make_form(("picture", picture, "image/jpeg"))))[0] == 201
    assert plant.spools["http"].read_after(0, 10)[0].picture.value == picture


@pytest.mark.asyncio
async def test_a_compressed_body_is_unpacked_up_to_the_limit(url: str, plant: UploadPlant) -> None:
    for encoding, body in (("gzip", gzip.compress(JPEG, mtime=0)), ("deflate", zlib.compress(JPEG))):
        headers = {"Content-Type": "image/jpeg", "Content-Encoding": encoding}
        assert (await send(url, data=body, headers=headers))[0] == 201
    assert [spooled.picture.value for spooled in plant.spools["http"].read_after(0, 10)] == [JPEG, JPEG]
    bomb = gzip.compress(JPEG + bytes(1_000_000), mtime=0)
    status, answer = await send(url, data=bomb, headers={"Content-Type": "image/jpeg", "Content-Encoding": "gzip"})
    assert (status, answer["size_bytes"], answer["limit_bytes"]) == (413, LIMIT + 1, LIMIT)


def test_a_compressed_body_is_unpacked_in_small_pieces() -> None:
    content = bytes(300_000) + np.random.default_rng(1).integers(0, 256, 100_000, np.uint8).tobytes() + bytes(5_000_000)
    packed = zlib.compress(content, 9)
    for size in (1, 7, 1000, len(packed)):
        unpacker = _Unpacker("deflate")
        pieces = unpack(unpacker, packed, size)
        assert b"".join(pieces) == content
        assert unpacker.is_complete
        assert max(map(len, pieces)) <= 65536


def test_a_body_that_unpacks_to_far_more_bytes_than_a_picture_is_refused_early() -> None:
    pieces: list[bytes] = []
    with pytest.raises(RequestRefusedError, match="at most 250 times their size") as refused:
        pieces.extend(_Unpacker("deflate").unpack(zlib.compress(bytes(100_000_000), 9)))
    assert refused.value.status == 400
    assert sum(map(len, pieces)) <= 2**20
    black = zlib.compress(bytes(2**20), 9)
    assert b"".join(_Unpacker("gzip").unpack(black)) == bytes(2**20), "a small black picture is accepted"


@pytest.mark.asyncio
async def test_the_received_bytes_of_a_compressed_body_are_limited_although_they_unpack_to_nothing(url: str) -> None:
    # The name of a file in the header of gzip (RFC 1952) has no largest length.
    long_name = bytes.fromhex("1f8b0808000000000003") + b"x" * (LIMIT + 1)
    headers = {**UPLOAD, "Content-Encoding": "gzip"}
    status, answer = await send(url, data=long_name, headers=headers)
    assert (status, answer["size_bytes"]) == (413, len(long_name))

    async def send_in_chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(long_name), 4096):
            yield long_name[at : at + 4096]

    assert (await send(url, data=send_in_chunks(), headers=headers))[0] == 413


def unpack(unpacker: _Unpacker, body: bytes, size: int) -> list[bytes]:
    """Unpacks `body`, which arrives in chunks of `size` bytes."""
    return [piece for at in range(0, len(body), size) for piece in unpacker.unpack(body[at : at + size])]


@pytest.mark.parametrize("size", [1, 100, 10**6])
@pytest.mark.parametrize("after", [b"x", gzip.compress(b"", mtime=0), gzip.compress(JPEG, mtime=0)], ids=["byte", "empty-member", "member"])
def test_bytes_after_the_end_of_compressed_data_are_refused(after: bytes, size: int) -> None:
    body = gzip.compress(JPEG, mtime=0) + after
    with pytest.raises(RequestRefusedError, match="nothing after the end of the gzip data") as refused:
        unpack(_Unpacker("gzip"), body, size)
    assert refused.value.status == 400


@pytest.mark.asyncio
async def test_a_picture_in_a_form_has_the_same_limit(url: str) -> None:
    status, body = await send(url, data=make_form(("picture", JPEG.ljust(LIMIT + 1), "image/jpeg")))
    assert (status, body["size_bytes"]) == (413, LIMIT + 1)


@pytest.mark.asyncio
async def test_refusals_say_what_was_found_and_what_to_change_at_the_camera(url: str) -> None:
    html, event = {"Content-Type": "text/html"}, make_form(("event", "<a/>", "application/xml"))
    refusals = {
        "found GET /lines/http/pictures; correct method and address at the camera": await send(url, "GET"),
        "found POST /picture; correct method and address at the camera": await send(url, path="/picture"),
        "found text/html; choose JPEG, PNG, BMP or TIFF at the camera": await send(url, data=JPEG, headers=html),
        "found event (application/xml, 4 bytes); let the camera attach": await send(url, data=event),
        "found other bytes; remove the header at the camera": await send(url, data=JPEG, headers={**UPLOAD, "Content-Encoding": "gzip"}),
    }
    assert {sentence: body["error"] for sentence, (_, body) in refusals.items() if sentence not in body["error"]} == {}
    async with ClientSession() as session, session.post(f"{url}/lines/http/pictures", data=JPEG) as response:
        assert response.headers["WWW-Authenticate"].startswith("Basic"), "many cameras send a password only if they are asked"
        assert "found no Authorization; enter the token at the camera" in (await response.json())["error"]
    digest = {"Authorization": 'Digest username="camera", nonce="7"'}
    async with ClientSession() as session, session.post(f"{url}/lines/http/pictures", data=JPEG, headers=digest) as response:
        assert "found 'Digest'; choose Basic authentication at the camera" in (await response.json())["error"]


@pytest.mark.asyncio
async def test_a_refused_upload_is_a_complaint_until_the_next_picture(url: str, plant: UploadPlant) -> None:
    async with ClientSession() as session, session.post(f"{url}/lines/http/pictures", data=JPEG) as response:
        assert response.status == 401
    assert plant.cameras["http"].list_complaints() == [], "a first request without a password is ordinary"
    await send(url, data=JPEG, headers={"Content-Type": "text/html"})
    (text,) = plant.cameras["http"].list_complaints()
    assert text.startswith("an upload to http from 127.0.0.1 was refused with 415: expected a picture as body")
    await send(url, data=JPEG)
    assert plant.cameras["http"].list_complaints() == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "claimed",
    ["9999-12-31T23:59:59-12:00", "2096-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1970-01-01T00:00:00"],
)
async def test_an_upload_whose_clock_is_wrong_is_stored_with_the_time_of_its_arrival(url: str, plant: UploadPlant, claimed: str) -> None:
    status, body = await post(url, "/lines/http/pictures", {**UPLOAD, "X-Captured-At": claimed})
    assert status == 201, body
    (spooled,) = plant.spools["http"].read_after(0, 10)
    assert abs(spooled.picture.captured_at - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.asyncio
async def test_uploads_that_were_not_stored_in_time_are_counted(plant: UploadPlant) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("castline_uploads_timed_out_total", {"line": "stuck"}) or 0.0

    before = count()
    endpoint = LineEndpoint("stuck", SecretStr("let-me-in"), plant.stuck, None, None)
    app = build_app({"stuck": endpoint}, LIMIT, SecretStr("from-the-sorter"), receipt_timeout_s=0.1)
    runner, url = await start_site(app, "127.0.0.1", 0)
    assert [(await post(url, "/lines/stuck/pictures", UPLOAD))[0] for _ in range(2)] == [503, 503]
    assert count() == before + 2
    await runner.cleanup()


@pytest.mark.asyncio
async def test_abandoned_uploads_leave_the_memory_and_too_many_uploads_are_refused(url: str, plant: UploadPlant) -> None:
    """The camera thread of the line `stuck` does not run, so its uploads wait for ever, as behind a disk that hangs."""
    camera = plant.stuck
    picture = JPEG + bytes(LIMIT - len(JPEG))
    async with ClientSession() as session:

        async def upload() -> int:
            async with session.post(f"{url}/lines/stuck/pictures", data=picture, headers=UPLOAD) as response:
                return response.status

        waiting = [asyncio.create_task(upload()) for _ in range(3)]
        await asyncio.to_thread(wait_until, lambda: camera.memory.used_bytes == 3 * LIMIT)
        assert await upload() == 503, "the memory of this line is full"
        status, _ = await post(url, "/lines/http/pictures", UPLOAD)
        assert status == 201, "another line has its own memory"
        for task in waiting:
            task.cancel()
        await asyncio.to_thread(wait_until, lambda: camera.memory.used_bytes == 0)
        assert camera.waiting_count == 0, "nothing of an abandoned upload stays in memory"
        assert any("503" in text for text in camera.list_complaints())


async def end_connection(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.asyncio
async def test_slow_bodies_and_silent_connections_keep_no_camera_out(url: str, plant: UploadPlant) -> None:
    host, port = url.removeprefix("http://").split(":")
    header = b"POST /lines/http/pictures HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer let-me-in\r\nContent-Type: image/jpeg\r\n"
    async with AsyncExitStack() as stack:
        opened = []
        for number in range(600):
            reader, writer = await asyncio.open_connection(host, int(port), local_addr=(f"127.0.1.{number % 20 + 1}", 0))
            stack.push_async_callback(end_connection, writer)
            opened.append(reader)
            if number % 2:
                writer.write(header if number % 4 == 1 else header + b"Content-Length: 100\r\n\r\nx")
        for _ in range(5):
            assert (await asyncio.wait_for(post(url, "/lines/http/pictures", UPLOAD), 10))[0] == 201
        assert len(plant.parts("http")) == 5
        # At the limit, each further connection took the place of an idle one.
        closed = [reader for reader in opened if reader.at_eof() or reader.exception()]
        assert len(closed) >= 100


@pytest.mark.asyncio
async def test_one_address_holds_only_some_of_the_connections(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    async with AsyncExitStack() as stack:

        async def connect(address: str) -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection(host, int(port), local_addr=(address, 0))
            stack.push_async_callback(end_connection, writer)
            return reader

        other = await connect("127.0.1.2")
        opened = [await connect("127.0.1.1") for _ in range(MAX_CONNECTIONS_PER_ADDRESS + 10)]
        assert [await asyncio.wait_for(reader.read(), 10) for reader in opened[:10]] == [b""] * 10, "the longest idle ones are closed"
        assert not any(reader.at_eof() for reader in (other, *opened[10:]))


@pytest.mark.asyncio
@pytest.mark.real
async def test_a_body_that_trickles_is_refused_in_time_and_a_silent_connection_is_closed(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    slow, to_slow = await asyncio.open_connection(host, int(port))
    silent, to_silent = await asyncio.open_connection(host, int(port))
    to_slow.write(
        b"POST /lines/http/pictures HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer let-me-in\r\nContent-Type: image/jpeg\r\n"
        b"Content-Length: 1000\r\n\r\n"
    )

    async def trickle() -> None:
        while not to_slow.is_closing():
            to_slow.write(b"x")
            await asyncio.sleep(0.5)

    trickling = asyncio.create_task(trickle())
    began_s = asyncio.get_running_loop().time()
    assert b" 408 " in await asyncio.wait_for(slow.readline(), 40)
    assert asyncio.get_running_loop().time() - began_s > 15
    assert await asyncio.wait_for(silent.read(), 20) == b""
    trickling.cancel()
    await end_connection(to_slow)
    await end_connection(to_silent)
