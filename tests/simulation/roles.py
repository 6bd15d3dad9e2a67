"""The processes of the gateway and of the sorter in virtual time. Their code is the real one.

Simulated are the clients of Kafka, HTTP between the processes, the serial port, and a disk that can be full or fail.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast
from unittest.mock import Mock

import aiohttp
from aiohttp.test_utils import make_mocked_request
from faust.types import AppT

from agents.gate.lane import GateEvent
from agents.gate.link import GateLink, LinkSettings
from agents.gateway.gateway import run_camera
from agents.gateway.intake import Intake
from agents.gateway.sender import ChannelUnavailableError, Sender, SendResult
from agents.gateway.spool import CheckedPicture, Spool, SpoolBudget, SpooledPicture
from agents.gateway.upload_camera import LineEndpoint, UploadCamera, build_app
from agents.sorter.command_topic import CommandTopic
from agents.sorter.decisions import lane_settings
from agents.sorter.journal import CountedPart, SortingJournal
from agents.sorter.journal_sender import JournalSender
from agents.sorter.line_commands import LineCommands
from agents.sorter.outage_recorder import OutageRecorder
from agents.sorter.part_reports import PartReports
from agents.sorter.part_states import restore_states
from agents.sorter.sorter import MAX_OPEN_VERDICTS, ROLE, Sorter
from streams.complaints import Complaints
from streams.group_members import make_identity
from streams.health import ProcessHealth, ProgressWatchdog
from streams.identity import PartId, PictureIdentity, make_headers
from streams.recent_start import RecentStart
from streams.record_producer import RecordProducer
from streams.records import Sorting
from streams.settings import Settings
from streams.supervision import SupervisedThread
from streams.topics import TopicNames
from streams.worker import ConsumerGroup, make_app
from tests.simulation.board_line import BoardLine, SimulatedPorts
from tests.simulation.broker import Broker, SimulatedConsumer, SimulatedReader
from tests.simulation.virtual_processes import VirtualProcess, VirtualSystem
from tests.simulation.workers import connect_app

LINE = "line-1"
_CHECK_INTERVAL_S = 0.1
# The web server of the gateway waits at most this long for its handlers.
_ANSWER_S = 2.0
# Stands for the connection of an HTTP request.
_CONNECTION = Mock(_reading_paused=False)


@dataclass
class Disk:
    """The disk of the machine. `flush_fails`: the disk reports an error when it is told to keep its data."""

    choice: random.Random
    is_full: bool = False
    flush_fails: bool = False

    def repair(self) -> None:
        self.is_full = self.flush_fails = False

    def write(self) -> None:
        """Raises sqlite3.OperationalError if the disk is full."""
        if self.is_full:
            raise sqlite3.OperationalError("database or disk is full")


class _Spool(Spool):
    """A spool on the simulated disk. The gateway can be killed before and after each of its steps."""

    def __init__(self, folder: Path, budget: SpoolBudget, system: VirtualSystem, disk: Disk) -> None:
        self._disk = disk
        self._system = system
        super().__init__(folder, LINE, budget, system.now_s)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # A full disk is noticed at the first write or at the commit.
        is_late = self._disk.choice.random() < 0.5
        if not is_late:
            self._disk.write()
        with super()._transaction():
            yield
            if is_late:
                self._disk.write()

    def accept(self, picture: CheckedPicture, keys: Iterable[str] = (), part: PartId | None = None) -> Any:
        self._pause()
        try:
            return super().accept(picture, keys, part)
        finally:
            self._pause()

    def flush(self) -> None:
        self._pause()
        if self._disk.flush_fails:
            raise OSError(5, "Input/output error")
        super().flush()
        self._pause()

    def read_after(self, seq: int, limit: int, max_bytes: int | None = None) -> list[SpooledPicture]:
        self._pause()
        return super().read_after(seq, limit, max_bytes)

    def remove(self, seqs: Iterable[int]) -> None:
        self._pause()
        super().remove(seqs)
        self._pause()

    def _pause(self) -> None:
        self._system.sleep(self._disk.choice.uniform(0.0, 0.01))


class _Journal(SortingJournal):
    """A journal on the simulated disk. `BoardLine.stored` gets each part whose count is on the disk."""

    def __init__(self, folder: Path, disk: Disk, line: BoardLine) -> None:
        self._disk = disk
        self._line = line
        super().__init__(folder, LINE)

    def append(
        self,
        sortings: Iterable[Sorting],
        counted: Sequence[CountedPart] = (),
        run: int | None = None,
        unreported: Sequence[CountedPart] = (),
        reported: Iterable[CountedPart] = (),
    ) -> None:
        super().append(sortings, counted, run, unreported, reported)
        number = self._line.board.number
        self._line.stored.update((number, PartId(LINE, part.run, part.part)) for part in counted)

    def _insert(self, sortings: Iterable[Sorting], counted: Sequence[CountedPart], run: int | None) -> None:
        self._disk.write()
        super()._insert(sortings, counted, run)


class _Channel:
    """The gateway's producer. Like an idempotent producer, it repeats each record until it is stored once.

    A closed channel repeats nothing.
    """

    def __init__(self, broker: Broker, partitions: int) -> None:
        if broker.weather.is_away:
            raise ChannelUnavailableError("The broker is away.")
        self._broker = broker
        self._partitions = partitions
        self._is_closed = False
        self._due_s = 0.0

    def send(self, picture: SpooledPicture, on_result: Callable[[SendResult], None]) -> None:
        if self._broker.choice.random() < self._broker.weather.fail / 4:
            raise ChannelUnavailableError("The connection broke.")
        self._plan(self._store, picture, on_result)

    def _plan(self, step: Callable[..., None], *arguments: Any) -> None:
        loop, choice = self._broker.loop, self._broker.choice
        self._due_s = max(self._due_s + 1e-6, loop.time() + choice.uniform(0.0, self._broker.weather.longest_delay_s))
        loop.call_at(self._due_s, step, *arguments)

    def _store(self, picture: SpooledPicture, on_result: Callable[[SendResult], None]) -> None:
        choice, weather = self._broker.choice, self._broker.weather
        if self._is_closed:
            return
        if weather.is_away or choice.random() < weather.fail:
            self._broker.loop.call_later(0.1, self._store, picture, on_result)
            return
        checked = picture.picture
        identity = PictureIdentity(picture.part, checked.captured_at, checked.content_type, checked.sha256, None, checked.traceparent)
        partition = picture.part.part % self._partitions
        topic = TopicNames("castings").images(picture.part.line)
        self._broker.append(topic, picture.part.key, checked.value, make_headers(identity), partition)
        # A lost answer costs a time-out. The idempotent producer then sends the record again, and the broker does not store it twice.
        late_s = choice.uniform(1.0, 5.0) if choice.random() < weather.lose_answer else 0.0
        self._broker.loop.call_later(late_s, self._confirm, on_result, SendResult(picture, None))

    def _confirm(self, on_result: Callable[[SendResult], None], result: SendResult) -> None:
        if not self._is_closed:
            on_result(result)

    def close(self) -> None:
        self._is_closed = True


@dataclass(frozen=True)
class HttpAnswer:
    """The answer to an HTTP request."""

    status: int
    body: Mapping[str, Any]

    async def text(self) -> str:
        return json.dumps(self.body)


class _Startable(Protocol):
    def start(self) -> None: ...


class GatewayProcess:
    """A process of the gateway. It serves one line, to which a camera uploads pictures."""

    def __init__(self, settings: Settings, broker: Broker, system: VirtualSystem, disk: Disk, folder: Path) -> None:
        self.is_ready = False
        self.has_crashed = False
        self.has_ended = False
        self.spool: _Spool | None = None
        self._settings = settings
        self._broker = broker
        self._system = system
        self._disk = disk
        self._folder = folder
        self._process = VirtualProcess(broker.loop, "gateway")
        self._requests: dict[asyncio.Future[HttpAnswer], None] = {}
        self._answers: dict[asyncio.Task[None], None] = {}
        self._handlers: dict[str, Any] = {}
        self._stop = asyncio.Event()

    def start(self) -> None:
        self._process.run(self._serve())

    async def _serve(self) -> None:
        try:
            self._build()
        except Exception:  # noqa: BLE001  The supervisor starts the process again.
            self.has_crashed = True
            return
        for thread in self._threads:
            thread.start()
        self.is_ready = True
        await self._stop.wait()
        self.is_ready = False
        # Like the web server of the real gateway, answer the requests that have arrived before the spool is closed.
        if self._answers:
            await asyncio.wait(self._answers, timeout=_ANSWER_S)
            for task in list(self._answers):
                task.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self._stop_threads)
        self._close()

    def _build(self) -> None:
        settings, system = self._settings, self._system
        camera = settings.find_line(LINE).camera
        assert camera is not None
        self._stopping = system.make_event()
        self.spool = spool = _Spool(self._folder, SpoolBudget(settings.gateway.spool_max_bytes), system, self._disk)
        partitions = settings.topics.image_partitions
        self._sender = Sender(
            spool,
            lambda: _Channel(self._broker, partitions),
            lambda: not self._broker.weather.is_away,
            settings.gateway.in_flight,
            ProgressWatchdog(30),
            system=system,
        )
        self._intake = Intake(
            camera, settings.pictures.max_bytes, spool, self._sender.wake, system.now_s, steady_clock=self._broker.loop.time, system=system
        )
        uploads = UploadCamera(system=system)
        token = settings.gateway.token
        line_token = settings.find_line(LINE).token
        app = build_app({LINE: LineEndpoint(LINE, line_token, uploads, None, self._intake)}, settings.pictures.max_bytes, token)
        self._handlers = {
            route.resource.canonical: route.handler
            for route in app.router.routes()
            if route.resource is not None and route.method == "POST"
        }
        work = partial(run_camera, LINE, uploads, self._intake, Complaints(), self._stopping)
        self._camera = SupervisedThread("camera", work, self._stopping, system=system)
        maintenance = SupervisedThread("spool", self._maintain, self._stopping, system=system)
        matching = system.make_thread("matching", self._match)
        self._threads: Sequence[_Startable] = [self._intake, self._sender, self._camera, maintenance, matching]

    def _match(self) -> None:
        """Does what the thread `matcher` of the gateway does."""
        while not self._stopping.wait(_CHECK_INTERVAL_S):
            self._intake.decide_due()

    def _maintain(self) -> None:
        assert self.spool is not None
        while not self._stopping.wait(1.0):
            self.spool.run_maintenance()

    def _stop_threads(self) -> None:
        self._stopping.set()
        self._camera.join(5)
        self._intake.drain()
        self._intake.stop(10)
        self._sender.stop(self._broker.loop.time() + 5)
        self._sender.join(5)

    async def request(self, path: str, token: str, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        """Sends a request to the gateway. Raises ClientConnectionError if the gateway is away or dies before its answer."""
        if not self.is_ready:
            raise aiohttp.ClientConnectionError("The gateway refuses the connection.")
        answer: asyncio.Future[HttpAnswer] = self._broker.loop.create_future()
        self._requests[answer] = None
        answer.add_done_callback(lambda done: self._requests.pop(done, None))
        task = self._process.run(self._answer(path, {**headers, "Authorization": f"Bearer {token}"}, body, answer))
        self._answers[task] = None
        task.add_done_callback(lambda done: self._answers.pop(done, None))
        return await answer

    async def _answer(self, path: str, headers: Mapping[str, str], body: bytes, answer: asyncio.Future[HttpAnswer]) -> None:
        content = aiohttp.StreamReader(_CONNECTION, 2**16)
        content.feed_data(body)
        content.feed_eof()
        request = make_mocked_request(
            "POST",
            f"/lines/{LINE}/{path}",
            headers,
            match_info={"line": LINE},
            app=_CONNECTION,
            writer=_CONNECTION,
            protocol=_CONNECTION,
            transport=_CONNECTION,
            payload=content,
        )
        response = await self._handlers[f"/lines/{{line}}/{path}"](request)
        if not answer.done():
            answer.set_result(HttpAnswer(response.status, json.loads(response.body)))

    def stop(self) -> None:
        """Ends the gateway as SIGTERM does."""
        self._stop.set()

    def kill(self) -> None:
        """Ends the gateway as kill -9 does."""
        self.is_ready = False
        self._process.kill()
        self._close()

    def _close(self) -> None:
        for answer in list(self._requests):
            if not answer.done():
                answer.set_exception(aiohttp.ClientConnectionError("The gateway has closed the connection."))
        if self.spool is not None:
            self.spool.close()
            self.spool = None
        self.has_ended = True


Post = Callable[[str, str, Mapping[str, str], bytes], Any]


class _Session:
    """Stands for `aiohttp.ClientSession`."""

    def __init__(self, post: Post, headers: Mapping[str, str]) -> None:
        self._post = post
        self._token = headers["Authorization"].removeprefix("Bearer ")

    @asynccontextmanager
    async def post(self, address: str, json: Mapping[str, Any]) -> AsyncIterator[HttpAnswer]:
        body = _dump(json)
        yield await self._post(address.rpartition("/")[2], self._token, {"Content-Type": "application/json"}, body)

    async def close(self) -> None: ...


def _dump(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode()


class SorterProcess:
    """A process of the sorter. It serves one line. `post` sends an HTTP request to the gateway."""

    def __init__(
        self, settings: Settings, broker: Broker, system: VirtualSystem, disk: Disk, folder: Path, line: BoardLine, post: Post
    ) -> None:
        self.is_gone = False
        self.has_ended = False
        self._has_failed = False
        self.journal: _Journal | None = None
        self._settings = settings
        self._broker = broker
        self._system = system
        self._disk = disk
        self._folder = folder
        self._line = line
        self._ports = SimulatedPorts(line)
        self._post = post
        self._app: AppT[object] | None = None
        self._link: GateLink | None = None
        self._group: ConsumerGroup | None = None
        self._stack = AsyncExitStack()
        self._process = VirtualProcess(broker.loop, "sorter")

    def start(self) -> None:
        self._process.run(self._serve())

    async def _serve(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._wait_for_kafka)
            await self._build()
            assert self._app is not None
            await self._app.start()
        except Exception:  # noqa: BLE001  The supervisor starts the process again.
            self._has_failed = True

    def _wait_for_kafka(self) -> None:
        """Waits until the broker answers. Meanwhile, the outage recorder records the reports of the board, as in `castline sorter`."""
        self._system.sleep(0.05)
        with OutageRecorder(self._settings, [LINE], self._system, self._ports):
            while self._broker.weather.is_away:
                self._system.sleep(0.5)

    async def _build(self) -> None:
        """Puts the sorter together as `agents.sorter.process` does."""
        settings, system, loop = self._settings, self._system, asyncio.get_running_loop()
        gate = settings.find_line(LINE).gate
        assert gate is not None
        self._link = link = GateLink(LinkSettings(gate.port, gate.baud, settings.sorter.window), system=system, ports=self._ports)
        identity = make_identity(settings, f"{ROLE}-{LINE}", "1", is_exclusive=True)
        self._app = make_app(settings, identity, max(64, MAX_OPEN_VERDICTS))
        recent_start = RecentStart(gate.travel_s, system.now_s)
        recent_start.apply_to(self._app)
        connect_app(self._app, self._broker)

        def handle_event(event: GateEvent) -> None:
            loop.call_soon_threadsafe(sorter.handle_event, event)
            loop.call_soon_threadsafe(commands.add_event, event)

        lane = link.add_lane(LINE, handle_event, lane_settings(gate), gate.lane)
        commands = LineCommands(LINE, lane, gate, self._folder / "paused")
        self.journal = journal = _Journal(self._folder, self._disk, self._line)
        states = await loop.run_in_executor(None, restore_states, settings, LINE, journal, self._open_reader)
        token = settings.gateway.token.get_secret_value()
        reports = PartReports("http://gateway", LINE, token, 1.0, cast(Any, self._open_session))
        await self._stack.enter_async_context(reports)
        reports.send_again(await loop.run_in_executor(None, journal.unreported_parts))
        producer = RecordProducer(self._app, settings, ROLE, lambda problem: None)
        sender = JournalSender(journal, producer, TopicNames(settings.topics.prefix).sorted(LINE), ROLE, lambda problem: None)
        sorter = Sorter(settings, LINE, gate, lane, producer, sender, reports, states, system)
        health = ProcessHealth(ROLE, ProgressWatchdog(30))
        self._group = ConsumerGroup(self._app, identity, sorter, settings, ROLE, health)
        self._command_topic = CommandTopic(settings, {LINE: commands}, {LINE: producer}, self._open_reader, system)
        self._command_topic.start()
        self._starting = asyncio.create_task(self._start_link(link, self._group))

    async def _start_link(self, link: GateLink, group: ConsumerGroup) -> None:
        await group.has_partitions.wait()
        await group.has_tasks.wait()
        link.start()

    def _open_reader(self, *_: object, **__: object) -> SimulatedReader:
        return SimulatedReader(self._broker, self._system)

    def _open_session(self, timeout: object, headers: Mapping[str, str]) -> _Session:
        return _Session(self._post, headers)

    @property
    def is_ready(self) -> bool:
        return self._group is not None and self._group.has_tasks.is_set() and not self.is_gone

    @property
    def has_crashed(self) -> bool:
        return self._has_failed or (self._app is not None and self._app.crash_reason is not None)

    def stop(self) -> None:
        """Ends the sorter as SIGTERM does."""
        self.is_gone = True
        self._process.run(self._drain_and_stop())

    async def _drain_and_stop(self) -> None:
        assert self._group is not None
        assert self._app is not None
        assert self._link is not None
        try:
            async with asyncio.timeout(self._settings.service.grace_s):
                await self._group.drain()
                await self._app.consumer.commit()
        except TimeoutError:
            pass
        await self._app.stop()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._command_topic.stop)
        await loop.run_in_executor(None, self._link.stop)
        await self._stack.aclose()
        self._close()

    def kill(self) -> None:
        """Ends the sorter as kill -9 does."""
        self.is_gone = True
        if self._app is not None and self._app.consumer is not None:
            client: SimulatedConsumer | None = self._app.consumer._thread._consumer
            if client is not None:
                client.die()
        self._process.kill()
        self._line.port = None
        self._close()

    def _close(self) -> None:
        if self.journal is not None:
            self.journal.close()
            self.journal = None
        self.has_ended = True
