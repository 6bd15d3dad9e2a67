"""The process that serves one board: its serial link, and for each line that is wired to it a sorter with a consumer group of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

from agents.gate.events import GateEvent, GateState
from agents.gate.lane import GateLane
from agents.gate.link import GateLink, LinkSettings
from agents.sorter.part_reports import PartReports
from agents.sorter.restore_state import recall
from agents.sorter.sorter import IN_HAND, ROLE, Sorter, register
from agents.sorter.sorting import grade_settings, lane_settings
from streams.app import make_app, run_app
from streams.errors import SettingsError
from streams.health import ProcessHealth, ProgressWatchdog
from streams.lag import LagWatch
from streams.record_producer import RecordProducer
from streams.settings import GateSettings, Settings

log = logging.getLogger(__name__)

Listening = Callable[[str], None]
_REACHED = (GateState.RUNNING, GateState.SAFE, GateState.STOPPED)


async def sort(settings: Settings, lines: list[str], instance: str, health: ProcessHealth) -> int:
    """Serves `lines`, which share a board, until SIGTERM; the exit status."""
    gates = {line: gate for line in lines if (gate := settings.find_line(line).gate) is not None}
    board = gates[lines[0]]
    link = GateLink(LinkSettings(board.port, board.baud, settings.sorter.window))
    health.add_check(lambda: "" if link.alive else "the thread of the gate link has ended")
    waiting = set(lines)

    def listening(line: str) -> None:
        # Not before all can hear: a configured board begins to count, and the first verdicts would come while nobody listens.
        waiting.discard(line)
        if not waiting:
            link.start()

    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        served: list[_Line] = []
        for line, gate in gates.items():
            each = _Line(settings, line, gate, instance, link, _LineHealth(health, line, settings.service.stall_s), listening)
            await each.attach(stack)
            served.append(each)
        health.set_ready()
        first, *others = served

        async def drain() -> None:
            await asyncio.gather(*(each.sorter.drain() for each in served))

        try:
            return await run_app(first.app, ROLE, drain, settings.service.grace_s, [each.app for each in others])
        finally:
            await loop.run_in_executor(None, link.stop)


class _LineHealth(ProcessHealth):
    """What one line says of itself, as a part of its process's health."""

    def __init__(self, process: ProcessHealth, line: str, stall_s: float) -> None:
        super().__init__(process.role, ProgressWatchdog(stall_s))
        self._process = process
        self._line = line
        process.add_check(self.watchdog.find_stall)

    def set_ready(self, about: str = "start") -> None:
        self._process.set_ready(f"{about} {self._line}")

    def set_not_ready(self, why: str, about: str = "start") -> None:
        self._process.set_not_ready(why, f"{about} {self._line}")

    def is_ready(self) -> bool:
        return self._process.is_ready()


class _Line:
    """One line's sorter and all that it stands on; `listening` is told when its verdicts can be heard."""

    def __init__(
        self, settings: Settings, line: str, gate: GateSettings, instance: str, link: GateLink, health: ProcessHealth, listening: Listening
    ) -> None:
        self.sorter: Sorter
        # A group a line: two processes of one group with different topics would fight over the assignment, and a line that is
        # wired to another board goes on where it was.
        self.app = make_app(settings, f"{ROLE}-{line}", instance, max(64, IN_HAND))
        self._settings = settings
        self._line = line
        self._gate = gate
        self._link = link
        self._health = health
        self._listening = listening
        health.set_not_ready("waiting for its partitions")

    async def attach(self, stack: AsyncExitStack) -> None:
        """Wires the line; what it holds is closed with `stack`."""
        settings, line, loop = self._settings, self._line, asyncio.get_running_loop()

        def heard(event: GateEvent) -> None:
            loop.call_soon_threadsafe(self.sorter.heard, event)

        try:
            lane = self._link.serve(line, heard, lane_settings(self._gate), self._gate.lane, grade_settings(self._gate))
        except ValueError as error:
            raise SettingsError(f"lines.{line}.gate: {error}") from None
        notes = await loop.run_in_executor(None, recall, settings, line)
        camera = settings.find_line(line).camera
        url = settings.sorter.gateway_url or f"http://{settings.gateway.host}:{settings.gateway.port}"
        fresh_s = camera.match_window_s if camera else 1.0
        triggered = camera is None or camera.trigger == "board"
        reports = await stack.enter_async_context(PartReports(url, line, settings.gateway.token.get_secret_value(), fresh_s))
        courier = RecordProducer(self.app, self._health.set_problem)
        self.sorter = Sorter(settings, line, self._gate, lane, courier, reports if triggered else None, notes)
        register(self.app, self.sorter)
        self._watch_assignment()
        watch = LagWatch(settings, self.app.conf.id, {self.sorter.topic: line}, self._assigned, self._health)
        watch.start()
        stack.callback(watch.stop)
        watching = asyncio.create_task(_watch_gate(lane, self._link.link.port, self._health))
        stack.callback(watching.cancel)

    def _assigned(self) -> set[tuple[str, int]]:
        if not self._health.is_ready():
            return set()
        return {(place.topic, place.partition) for place in self.app.consumer.assignment()}

    def _watch_assignment(self) -> None:
        @self.app.on_partitions_assigned.connect(weak=False)  # type: ignore[untyped-decorator]
        async def join(_sender: object, assigned: set[object], **_: object) -> None:
            log.info("%s has %d partitions", self._line, len(assigned))
            self._health.set_ready()
            self._listening(self._line)


async def _watch_gate(lane: GateLane, port: str, health: ProcessHealth) -> None:
    while True:
        health.set_problem("" if lane.state in _REACHED else f"lane {lane.number} of the board at {port} is {lane.state}", "gate")
        await asyncio.sleep(0.2)
