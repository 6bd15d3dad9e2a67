"""The gateway's process: cameras, spools and senders of its lines, wired together, started and stopped."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from agents.gateway.camera import Camera, Triggered
from agents.gateway.channel import KafkaChannel
from agents.gateway.drop_camera import DropCamera
from agents.gateway.folder_camera import FolderCamera
from agents.gateway.intake import Intake
from agents.gateway.sender import Sender
from agents.gateway.spool import Budget, Spool
from agents.gateway.upload_server import Door, UploadCamera, build_app
from agents.gateway.video_camera import VideoCamera, open_cv
from streams import metrics
from streams.errors import SettingsError
from streams.health import HealthServer, InstanceSlot, ProcessHealth, ProgressWatchdog
from streams.kafka import is_reachable
from streams.object_store import ObjectStore
from streams.settings import LineSettings, Settings

log = logging.getLogger(__name__)

_BEAT_S = 0.25
_CAMERA_BACK_OFF_S = (0.5, 10.0)
# A spool fuller than this says so before it refuses.
_NEARLY_FULL = 0.95


@dataclass(frozen=True)
class Lane:
    """All that one line has in the gateway."""

    line: LineSettings
    camera: Camera
    spool: Spool
    intake: Intake
    sender: Sender
    progress: ProgressWatchdog

    def door(self) -> Door:
        board = self.line.camera is not None and self.line.camera.trigger == "board"
        uploads = self.camera if isinstance(self.camera, UploadCamera) else None
        triggered = self.camera if isinstance(self.camera, Triggered) else None
        return Door(self.line.name, self.line.token, uploads, triggered, self.intake if board else None)


def chosen_lines(settings: Settings, names: Sequence[str]) -> list[LineSettings]:
    """The lines called `names`; all with a camera where none are named.

    Raises SettingsError: for an unknown line, one without a camera, or when there is nothing to do.
    """
    lines = [settings.find_line(name) for name in dict.fromkeys(names)] or [line for line in settings.lines if line.camera]
    without = [line.name for line in lines if line.camera is None]
    if without:
        raise SettingsError(f"lines.camera: expected a camera on {', '.join(without)}, found none")
    if not lines:
        raise SettingsError("lines: expected at least one with a camera, found none")
    return lines


def _camera(line: LineSettings, settings: Settings, spool: Spool) -> Camera:
    camera = line.camera
    assert camera is not None
    if camera.kind == "folder":
        return FolderCamera(line.name, camera)
    if camera.kind == "drop":
        return DropCamera(line.name, camera, settings.pictures.max_bytes, spool.forget)
    if camera.kind == "video":
        return VideoCamera(line.name, camera, open_cv(camera.address))
    return UploadCamera()


def _lane(line: LineSettings, settings: Settings, budget: Budget, store: ObjectStore) -> Lane:
    assert line.camera is not None
    spool = Spool(settings.gateway.spool_dir, line.name, budget)
    progress = ProgressWatchdog(settings.service.stall_s)
    sender = Sender(
        spool,
        connect=lambda: KafkaChannel(settings, line.name, store),
        probe=lambda: is_reachable(settings.bootstrap),
        in_flight=settings.gateway.in_flight,
        progress=progress,
    )
    intake = Intake(line.camera, settings.pictures.max_bytes, spool, sender.wake)
    return Lane(line, _camera(line, settings, spool), spool, intake, sender, progress)


class Gateway:
    """One process for some lines; `run` ends after SIGTERM or SIGINT."""

    def __init__(self, settings: Settings, lines: Sequence[LineSettings]) -> None:
        """Raises SettingsError: when a camera or a spool cannot be had."""
        self._settings = settings
        self._budget = Budget(settings.gateway.spool_max_bytes)
        store = ObjectStore(settings.store.url, settings.pictures.max_bytes)
        self._lanes = [_lane(line, settings, self._budget, store) for line in lines]
        self._health = ProcessHealth("gateway", self._lanes[0].progress)
        for lane in self._lanes[1:]:
            self._health.add_check(lane.progress.find_stall)
        for lane in self._lanes:
            self._health.add_check(partial(_parked, lane))
        self._stopping = threading.Event()
        self._cameras_away: dict[str, str] = {}
        self._broken = ""  # the part of the process that ended by itself
        self._health.add_check(lambda: "; ".join(list(self._cameras_away.values())))
        metrics.spool_limit_bytes.set(self._budget.max_bytes)
        for line in lines:
            metrics.initialise_counters("gateway", line.name)

    def run(self) -> int:
        """Exit status: 0, or 1 when a part of it ended by itself."""
        slot = InstanceSlot(self._settings.service.run_dir, "gateway")
        try:
            with HealthServer(self._health, self._settings.service, str(slot)):
                asyncio.run(self._serve())
        finally:
            for lane in self._lanes:
                lane.spool.close()
            slot.release()
        return 1 if self._broken else 0

    async def _serve(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
        web_runner = await self._open_doors()
        cameras = [threading.Thread(target=self._film, args=(lane,), name=f"camera-{lane.line.name}", daemon=True) for lane in self._lanes]
        for lane in self._lanes:
            lane.sender.start()
        for thread in cameras:
            thread.start()
        janitor = threading.Thread(target=self._tidy, name="tidy", daemon=True)
        janitor.start()
        for lane in self._lanes:
            log.info("gateway of %s: run %d, %d pictures wait from before", lane.line.name, lane.spool.run, lane.spool.waiting)
        while not stop.is_set() and not self._broken:
            self._beat()
            try:
                await asyncio.wait_for(stop.wait(), _BEAT_S)
            except TimeoutError:
                continue
        by = time.monotonic() + self._settings.service.grace_s * 0.8
        self._health.set_not_ready("stopping")
        if self._broken:
            log.critical("%s has ended by itself; stopping, the spool keeps what was taken", self._broken)
        if web_runner is not None:
            await web_runner.cleanup()  # first, while the cameras still answer what has come in
        await asyncio.to_thread(self._finish, cameras, by)
        await asyncio.to_thread(janitor.join, 2)

    async def _open_doors(self) -> web.AppRunner | None:
        doors = {lane.line.name: lane.door() for lane in self._lanes}
        if not any(door.uploads or door.parts for door in doors.values()):
            return None
        gateway = self._settings.gateway
        app = build_app(doors, self._settings.pictures.max_bytes, gateway.token)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
        await runner.setup()
        site = web.TCPSite(runner, gateway.host, gateway.port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise SettingsError(
                f"gateway.port: expected {gateway.host}:{gateway.port} to be free, found it in use: {error.strerror}"
            ) from None
        host, port = runner.addresses[0][:2]
        log.info("uploads and part reports are taken at http://%s:%d", host, port)
        self._leave_address(f"http://{host}:{port}")
        return runner

    def _leave_address(self, url: str) -> None:
        # For whoever is not told the port: gateway.port = 0 takes a free one.
        folder = self._settings.service.run_dir / "gateways"
        folder.mkdir(parents=True, exist_ok=True)
        for lane in self._lanes:
            partial = folder / f".{lane.line.name}"
            partial.write_text(url + "\n")
            partial.replace(folder / lane.line.name)

    def _film(self, lane: Lane) -> None:
        """One camera's thread. A folder or device that fails is tried again; anything else ends the process, loudly."""
        line, wait_s, ended_well = lane.line.name, _CAMERA_BACK_OFF_S[0], False
        try:
            while not self._stopping.is_set():
                try:
                    for frame in lane.camera.frames(self._stopping):
                        wait_s = _CAMERA_BACK_OFF_S[0]
                        self._cameras_away.pop(line, None)
                        lane.intake.offer(lane.camera, frame)
                    break
                except OSError as error:
                    self._cameras_away[line] = f"the camera of {line} gives nothing: {error}"
                    log.error("the camera of %s gives nothing: %s; next try in %.1f s", line, error, wait_s)
                    self._stopping.wait(wait_s)
                    wait_s = min(2 * wait_s, _CAMERA_BACK_OFF_S[1])
            ended_well = True
        finally:
            if not ended_well:
                self._broken = f"the camera of {line}"

    def _beat(self) -> None:
        for lane in self._lanes:
            lane.intake.decide()
            metrics.spool_pictures.labels(lane.line.name).set(lane.spool.waiting)
            # While Kafka is away there is no work that could be done: that is said by /readyz, not by /healthz.
            lane.progress.set_pending(0 if lane.sender.complaint else lane.spool.waiting - lane.spool.parked)
            if not lane.sender.is_alive():
                self._broken = f"the sender of {lane.line.name}"
        used = self._budget.used
        metrics.spool_bytes.set(used)
        complaints = [f"{lane.line.name}: {lane.sender.complaint}" for lane in self._lanes if lane.sender.complaint]
        if used > _NEARLY_FULL * self._budget.max_bytes:
            complaints.append(f"the spool is nearly full: {used} of {self._budget.max_bytes} bytes")
        if complaints:
            self._health.set_not_ready("; ".join(complaints))
        elif not self._health.is_ready():
            self._health.set_ready()

    def _tidy(self) -> None:
        while not self._stopping.wait(1.0):
            for lane in self._lanes:
                lane.spool.tidy()

    def _finish(self, cameras: Sequence[threading.Thread], by: float) -> None:
        self._stopping.set()
        for thread in cameras:
            thread.join(max(0.1, by - time.monotonic()))
        for lane in self._lanes:
            lane.intake.drain()
            lane.sender.stop(by)
        for lane in self._lanes:
            lane.sender.join()
            if lane.spool.waiting:
                log.warning("%d pictures of %s stay in the spool for the next start", lane.spool.waiting, lane.line.name)


def _parked(lane: Lane) -> str:
    count = lane.spool.parked
    return f"{count} pictures of {lane.line.name} are parked in the spool: Kafka refused them for good, see the log" if count else ""
