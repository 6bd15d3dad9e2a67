"""The process of the gateway: builds the camera, intake, spool and sender of each line, runs them, and stops them in order."""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from aiohttp import web

from agents.gateway.drop_camera import DropCamera
from agents.gateway.folder_camera import FolderCamera
from agents.gateway.forced_end import ForcedEnd
from agents.gateway.intake import CameraFrame, GatewayCamera, Intake, TriggeredCamera
from agents.gateway.latency_endpoint import add_latency_routes
from agents.gateway.sender import KafkaChannel, Sender
from agents.gateway.spool import Spool, SpoolBudget
from agents.gateway.token_check import KnownClients, TokenCheck
from agents.gateway.upload_camera import LineEndpoint, UploadCamera, build_app
from agents.gateway.upload_request import FORM_EXTRA_BYTES
from agents.gateway.video_camera import VideoCamera, make_stream_opener
from agents.gateway.web_server import start_site
from streams import metrics
from streams.atomic_file import write_atomically
from streams.backoff import Backoff
from streams.complaints import Complaints
from streams.errors import SettingsError
from streams.gateway_token import make_gateway_token
from streams.health import HealthServer, InstanceSlot, ProcessHealth, ProgressWatchdog
from streams.kafka import is_reachable
from streams.object_store import ObjectStore
from streams.settings import LineSettings, Settings
from streams.supervision import SupervisedThread

log = logging.getLogger(__name__)

# The interval, in seconds, at which waiting pictures are matched with parts, and metrics and health are updated. A picture waits at most
# this much longer than needed.
_CHECK_INTERVAL_S = 0.05
_MAINTENANCE_INTERVAL_S = 1.0
# If more than this share of the spool is used, the gateway reports on /readyz that it is not ready.
_NEARLY_FULL = 0.95
# The gateway warns if less than this fraction of the disk is free. It gives no warning if the free space is still enough for a full spool.
_FREE_DISK_SHARE = 0.1
# If a read or write of the disk takes longer than this, the gateway reports on /readyz that it is not ready. The limit is shorter than the
# 15 s for which an upload waits for its answer.
_LONGEST_WRITE_S = 5.0
# When the process stops, cameras and senders must end within this fraction of the setting service.grace_s.
_GRACE_SHARE = 0.8
# After this time, the gateway waits at most this many seconds longer until the last pictures of each line are on the disk, and until its
# sender has ended. A sender can be waiting for the object store or for Kafka.
_LAST_WAIT_S = 2.0
# When the process stops, the gateway waits at most this many seconds for the threads that do the maintenance of the spools.
_LAST_MAINTENANCE_S = 2.0
# The process should stop within service.grace_s seconds. If a thread waits for a disk and keeps the process from stopping, the process ends
# by force this many seconds later. If the log does not answer, either, the process ends after one more second. `castline up` waits even
# longer before it kills the process.
_FORCED_END_S = 5.0
# At the end, the log says that the disk does not answer if the disk has not answered for this many seconds.
_LONG_WAIT_S = 1.0


@dataclass(frozen=True)
class GatewayLine:
    """The components of the gateway that serve one line."""

    settings: LineSettings
    camera: GatewayCamera
    spool: Spool
    intake: Intake
    sender: Sender
    watchdog: ProgressWatchdog
    complaints: Complaints = field(default_factory=Complaints)

    @property
    def name(self) -> str:
        return self.settings.name

    def make_endpoint(self) -> LineEndpoint:
        """Returns the HTTP endpoint of this line. It accepts uploads or part reports if the settings of the camera ask for them."""
        has_board = self.settings.camera is not None and self.settings.camera.trigger == "board"
        return LineEndpoint(
            line=self.name,
            token=self.settings.token,
            uploads=self.camera if isinstance(self.camera, UploadCamera) else None,
            triggered=self.camera if isinstance(self.camera, TriggeredCamera) else None,
            part_intake=self.intake if has_board else None,
        )

    def find_outage(self) -> str:
        """Returns why the camera of the line cannot deliver pictures now, or "" if no such problem is known."""
        return self.camera.find_outage() or self.complaints.find("camera")

    def list_complaints(self) -> list[str]:
        """Returns a sentence for each problem of this line that a person has to solve.

        These problems do not make the process unhealthy, because a restart would not solve them.
        """
        count = self.spool.parked_count
        parked = f"Kafka refused {count} pictures of {self.name}, which are parked in the spool; the log says why"
        cameras = [*self.camera.list_complaints(), *self.intake.list_complaints()]
        damaged = self.spool.find_complaint()
        return [*self.complaints.list_texts(), *cameras, *([parked] if count else []), *([damaged] if damaged else [])]

    def find_complaint(self) -> str:
        """Returns all complaints of this line in one text, or "" if there are none."""
        return "; ".join(self.list_complaints())


def select_lines(settings: Settings, names: Sequence[str]) -> list[LineSettings]:
    """Returns the lines with the given `names`, or all lines with a camera if `names` is empty.

    Raises SettingsError if a line is unknown or has no camera, or if no line has a camera.
    """
    lines = [settings.find_line(name) for name in dict.fromkeys(names)] or [line for line in settings.lines if line.camera]
    names_without_camera = [line.name for line in lines if line.camera is None]
    if names_without_camera:
        raise SettingsError(f"lines.camera: expected a camera on {', '.join(names_without_camera)}, found none")
    if not lines:
        raise SettingsError("lines: expected at least one line with a camera, found none")
    return lines


def _build_camera(line: LineSettings, settings: Settings, spool: Spool, buffer_bytes: int) -> GatewayCamera:
    camera = line.camera
    assert camera is not None
    if camera.kind == "folder":
        return FolderCamera(line.name, camera)
    if camera.kind == "drop":
        return DropCamera(line.name, camera, settings.pictures.max_bytes, spool.forget_key, buffer_bytes=buffer_bytes)
    if camera.kind == "video":
        return VideoCamera(line.name, camera, make_stream_opener(camera.address.get_secret_value(), camera.stall_s), buffer_bytes)
    # A picture that is uploaded in a form needs extra bytes for the other parts of the form.
    return UploadCamera(buffer_bytes + FORM_EXTRA_BYTES)


def _build_line(line: LineSettings, settings: Settings, budget: SpoolBudget, store: ObjectStore) -> GatewayLine:
    assert line.camera is not None
    spool = Spool(settings.gateway.spool_dir, line.name, budget)
    watchdog = ProgressWatchdog(settings.service.stall_s)
    # Each buffer of a line must hold the largest picture.
    buffer_bytes = max(settings.gateway.buffer_bytes, settings.pictures.max_bytes)
    sender = Sender(
        spool,
        connect=lambda: KafkaChannel(settings, line.name, store),
        is_kafka_reachable=lambda: is_reachable(settings.bootstrap),
        in_flight=settings.gateway.in_flight,
        watchdog=watchdog,
        in_flight_bytes=buffer_bytes,
    )
    intake = Intake(
        line.camera, settings.pictures.max_bytes, spool, on_stored=sender.wake, buffer_bytes=buffer_bytes, steady_clock=time.monotonic
    )
    return GatewayLine(line, _build_camera(line, settings, spool, buffer_bytes), spool, intake, sender, watchdog)


def run_camera(line: str, camera: GatewayCamera, intake: Intake, complaints: Complaints, stopping: threading.Event) -> None:
    """Passes the frames of a camera to its intake until `stopping` is set.

    After an error, the camera is started again, and a complaint names the error until the next accepted picture.
    """
    backoff = Backoff(first_s=0.5, longest_s=10.0)
    while not stopping.is_set():
        try:
            for frame in camera.frames(stopping):
                _accept(intake, frame)
                backoff.succeeded()
                complaints.set("camera", "")
            return
        except Exception as error:
            wait_s = backoff.failed()
            metrics.camera_failures.labels(line).inc()
            complaints.set("camera", f"the camera of {line} was interrupted by an error: {error}; the log has the details")
            log.exception("The camera of %s was interrupted by an error. It starts again in %.1f s.", line, wait_s)
            stopping.wait(wait_s)


def _accept(intake: Intake, frame: CameraFrame) -> None:
    """Passes a frame to the intake.

    If the intake fails, the error is also set in the frame's receipt, because the camera may wait for it.
    """
    try:
        intake.accept(frame)
    except BaseException as error:
        if not frame.receipt.done():
            frame.receipt.set_exception(error)
        raise


def store_waiting_pictures(line: GatewayLine, store: Callable[[], None]) -> None:
    """Calls `store`, which stores pictures of `line`. An error becomes a complaint of this line, so that the other lines go on."""
    try:
        store()
    except Exception as error:
        text = f"pictures of {line.name} could not be stored: {error}; the log has the details"
        # `store` is called several times a second. So an error is logged only if there is no complaint about an earlier error.
        if not line.complaints.find("storing"):
            log.exception("Pictures of %s could not be stored.", line.name)
        line.complaints.add_event("storing", text)


def stop_line(line: GatewayLine, threads: Iterable[SupervisedThread], stop_by_s: float, end_by_s: float) -> None:
    """Stores the pictures of `line` that still wait for their parts, and lets the sender empty the spool.

    - `threads`: the threads of the camera and of the matcher, which have been told to end.
    - `stop_by_s`: the monotonic time at which the sender stops.
    - `end_by_s`: the monotonic time until which the last flush and the sender may take.
    """
    for thread in threads:
        thread.join(max(0.1, stop_by_s - time.monotonic()))
    store_waiting_pictures(line, line.intake.drain)
    line.intake.stop(max(0.0, end_by_s - time.monotonic()))
    line.sender.stop(stop_by_s)
    line.sender.join(max(0.0, end_by_s - time.monotonic()))
    if line.spool.waiting_count:
        log.warning("%d pictures of %s stay in the spool and are sent after the next start.", line.spool.waiting_count, line.name)


async def _wait_for_end(threads: Sequence[SupervisedThread], until_s: float = math.inf) -> None:
    """Waits until all `threads` have ended, at most until the monotonic time `until_s`. Uses no thread, because all could be waiting."""
    while any(thread.is_alive() for thread in threads) and time.monotonic() < until_s:  # noqa: ASYNC110  No event tells the end of a thread.
        await asyncio.sleep(_CHECK_INTERVAL_S)


def find_disk_problem(folder: Path, free_bytes: int, disk_bytes: int, needed_bytes: int) -> str:
    """Returns a sentence if the disk of the spool `folder` is nearly full, otherwise "".

    `needed_bytes` is the number of bytes that the spool can still need. The size of the spool is limited, but other files can fill the
    disk.
    """
    if free_bytes >= min(needed_bytes, _FREE_DISK_SHARE * disk_bytes):
        return ""
    return (
        f"the disk of the spool {folder} has only {free_bytes // 2**20} of {disk_bytes // 2**20} MB free; when it is full, pictures are "
        "refused; delete files that Castline does not need"
    )


def ask_disk(folder: Path, needed_bytes: int) -> str:
    """Checks the disk of the spool `folder`. Returns a sentence if the disk is nearly full or does not answer, otherwise "".

    `needed_bytes` is the number of bytes that the spool can still need.
    """
    try:
        disk = shutil.disk_usage(folder)
    except OSError as error:
        return f"the free space of {folder} cannot be read ({error.strerror}); check that its disk is connected and mounted"
    return find_disk_problem(folder, disk.free, disk.total, needed_bytes)


def find_write_problem(line: str, wait_s: float) -> str:
    """Returns a sentence if the spool of `line` has waited too long for the disk (`wait_s` seconds), otherwise ""."""
    if wait_s < _LONGEST_WRITE_S:
        return ""
    return (
        f"the disk of the spool of {line} has not finished a read or write for {wait_s:.0f} s, so cameras may get no receipts and send "
        "their pictures again; check the disk, and the network if the spool is on a share"
    )


class Gateway:
    """One gateway process, which serves the given lines until it receives SIGTERM or SIGINT."""

    def __init__(self, settings: Settings, lines: Sequence[LineSettings]) -> None:
        """Raises SettingsError if a camera or a spool cannot be opened."""
        self._settings = settings
        self._budget = SpoolBudget(settings.gateway.spool_max_bytes)
        store = ObjectStore(settings.store.url, settings.pictures.max_bytes)
        self._lines = [_build_line(line, settings, self._budget, store) for line in lines]
        # The file is named after the first line. No other gateway process serves this line, so no other process writes this file.
        self._known_clients = KnownClients(settings.gateway.spool_dir / f"{lines[0].name}.clients.json")
        self._tokens = TokenCheck(settings.gateway.proxies, settings.gateway.trusted_proxies, known=self._known_clients)
        self._stopping = threading.Event()
        # For each line: why its pictures are not assigned to parts, or "".
        self._latency_problems = {line.name: line.intake.find_latency_problem() for line in self._lines}
        self._forced_end = ForcedEnd(settings.service.grace_s + _FORCED_END_S, self._log_forced_end)
        self._health = ProcessHealth("gateway", self._lines[0].watchdog)
        for line in self._lines[1:]:
            self._health.add_check(line.watchdog.find_stall)
        for line in self._lines:
            self._health.add_complaint_check(line.find_complaint)
        metrics.spool_limit_bytes.set(self._budget.max_bytes)
        for line in self._lines:
            metrics.initialise_counters("gateway", line.name)

    def run(self) -> int:
        """Runs the gateway until a signal, and returns the exit status 0."""
        slot = InstanceSlot(self._settings.service.run_dir, "gateway")
        try:
            with HealthServer(self._health, self._settings.service, str(slot)):
                asyncio.run(self._serve())
        finally:
            for line in self._lines:
                line.spool.close()
            slot.release()
        return 0

    def _log_forced_end(self) -> None:
        for line in self._lines:
            wait_s = line.spool.find_disk_wait_s()
            log.critical(
                "The gateway of %s ends by force, because it could not stop in time.%s %d pictures were perhaps not written, and their "
                "cameras got no receipts. %d pictures are in the spool and are sent after the next start.",
                line.name,
                f" The disk of the spool has not answered for {wait_s:.0f} s." if wait_s >= _LONG_WAIT_S else "",
                line.intake.unconfirmed_count,
                line.spool.waiting_count,
            )

    async def _serve(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ask_to_stop() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stop.set)

        # asyncio calls its own signal handlers only when the event loop goes on, and the event loop can wait for the log.
        self._forced_end.watch_signals(ask_to_stop)
        web_runner = await self._start_web_server()
        cameras = [
            SupervisedThread(
                f"camera-{line.name}",
                partial(run_camera, line.name, line.camera, line.intake, line.complaints, self._stopping),
                self._stopping,
            )
            for line in self._lines
        ]
        matchers = [SupervisedThread(f"matcher-{line.name}", partial(self._match_pictures, line), self._stopping) for line in self._lines]
        # Each spool has its own thread, so that a disk or file that fails does not stop the maintenance of the other spools.
        maintenance = [
            SupervisedThread(f"spool-{line.name}", partial(self._run_maintenance, line.spool), self._stopping) for line in self._lines
        ]
        maintenance.append(SupervisedThread("disk", self._check_disk, self._stopping))
        maintenance.append(SupervisedThread("writes", self._check_writes, self._stopping))
        maintenance.append(SupervisedThread("clients", self._save_clients, self._stopping))
        for line in self._lines:
            log.info(
                "Line %s: run %d begins. %d pictures of earlier runs wait in the spool.",
                line.name,
                line.spool.run,
                line.spool.waiting_count,
            )
            line.intake.start()
            line.sender.start()
        for thread in (*cameras, *matchers, *maintenance):
            thread.start()
        while not stop.is_set():
            self._check_lines()
            try:
                await asyncio.wait_for(stop.wait(), _CHECK_INTERVAL_S)
            except TimeoutError:
                continue
        stop_by_s = time.monotonic() + self._settings.service.grace_s * _GRACE_SHARE
        self._health.set_not_ready("stopping")
        # The web server stops first, because the requests that have arrived still need the cameras for their answers.
        if web_runner is not None:
            await web_runner.cleanup()
        self._stopping.set()
        # Each line has its own thread, so that a disk that hangs does not hold up the end of the other lines.
        end_by_s = max(stop_by_s, time.monotonic()) + _LAST_WAIT_S
        ends = [
            SupervisedThread(f"end-{line.name}", partial(stop_line, line, threads, stop_by_s, end_by_s), self._stopping)
            for line, *threads in zip(self._lines, cameras, matchers, strict=True)
        ]
        for thread in ends:
            thread.start()
        await _wait_for_end(ends)
        await _wait_for_end(maintenance, time.monotonic() + _LAST_MAINTENANCE_S)

    async def _start_web_server(self) -> web.AppRunner | None:
        """Starts the HTTP server for uploads and part reports. Returns None if no line accepts uploads or part reports."""
        endpoints = {line.name: line.make_endpoint() for line in self._lines}
        if not any(endpoint.uploads or endpoint.part_intake for endpoint in endpoints.values()):
            return None
        gateway = self._settings.gateway
        token = make_gateway_token(self._settings)
        tokens = self._tokens
        app = build_app(endpoints, self._settings.pictures.max_bytes, token, tokens)
        timed = {line.name: line.intake for line in self._lines if line.settings.camera and line.settings.camera.needs_latency}
        add_latency_routes(app, timed, token, tokens)
        runner, address = await start_site(app, gateway.host, gateway.port, gateway.connections_per_address)
        log.info("The gateway accepts uploads and part reports at %s.", address)
        # If gateway.port is 0, the system chooses the port. So the address of each line is written to a file, where `castline gateway
        # measure` finds it.
        for line in self._lines:
            write_atomically(self._settings.service.run_dir / "gateways" / line.name, f"{address}\n")
        return runner

    def _check_lines(self) -> None:
        """Updates metrics and health. Called several times a second."""
        for line in self._lines:
            metrics.spool_pictures.labels(line.name).set(line.spool.waiting_count)
            metrics.camera_complaints.labels(line.name).set(len(line.list_complaints()))
            # If pictures wait and none is sent, the watchdog reports that the gateway hangs. This report would be wrong while Kafka is
            # unavailable. So the watchdog is then told that no pictures wait.
            line.watchdog.set_pending(0 if line.sender.problem else line.spool.sendable_count)
            outage = line.find_outage()
            metrics.camera_up.labels(line.name).set(not outage)
            self._health.set_part_problem(line.name, outage)
        self._health.set_person_problem("; ".join(filter(None, self._latency_problems.values())), "latency")
        self._health.set_person_problem(self._tokens.find_proxy_problem(), "proxies")
        used_bytes = self._budget.used_bytes
        metrics.spool_bytes.set(self._budget.picture_bytes)
        metrics.spool_write_ahead_bytes.set(self._budget.write_ahead_bytes)
        problems = [f"{line.name}: {line.sender.problem}" for line in self._lines if line.sender.problem]
        if used_bytes > _NEARLY_FULL * self._budget.max_bytes:
            problems.append(f"the spool is nearly full: {used_bytes} of {self._budget.max_bytes} bytes")
        if problems:
            self._health.set_waiting("; ".join(problems))
        else:
            self._health.set_ready()

    def _match_pictures(self, line: GatewayLine) -> None:
        """Matches the waiting pictures of `line` with parts, and stores them. Runs in a thread of its own, because the disk can be slow."""
        while not self._stopping.wait(_CHECK_INTERVAL_S):
            store_waiting_pictures(line, line.intake.decide_due)
            # This call can wait for the disk. So it is made in this thread, and not in the event loop.
            self._latency_problems[line.name] = line.intake.find_latency_problem()

    def _check_disk(self) -> None:
        """Updates what /healthz says about the disk of the spool. Runs in a thread of its own, because a network folder can hang."""
        folder = self._settings.gateway.spool_dir
        while not self._stopping.is_set():
            self._health.set_person_problem(ask_disk(folder, self._budget.max_bytes - self._budget.used_bytes), "disk")
            self._stopping.wait(_MAINTENANCE_INTERVAL_S)

    def _check_writes(self) -> None:
        """Updates what /readyz says about writes that last too long. Runs in a thread that never waits for the disk."""
        while not self._stopping.wait(_MAINTENANCE_INTERVAL_S):
            problems = [find_write_problem(line.name, line.spool.find_disk_wait_s()) for line in self._lines]
            if text := "; ".join(problem for problem in problems if problem):
                self._health.set_waiting(text, "write")
            else:
                self._health.set_ready("write")

    def _save_clients(self) -> None:
        while not self._stopping.wait(_MAINTENANCE_INTERVAL_S):
            self._known_clients.save()
        self._known_clients.save()

    def _run_maintenance(self, spool: Spool) -> None:
        while not self._stopping.wait(_MAINTENANCE_INTERVAL_S):
            spool.run_maintenance()
