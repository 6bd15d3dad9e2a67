"""Runs the sorters of one board: one for each line of the board. They share the serial link, but each has its own consumer group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from agents.gate.lane import GateEvent, GateLane
from agents.gate.link import GateLink, LinkSettings
from agents.sorter.command_socket import CommandSocket
from agents.sorter.command_topic import CommandTopic
from agents.sorter.decisions import grade_settings, lane_settings
from agents.sorter.journal import SortingJournal
from agents.sorter.journal_sender import JournalSender
from agents.sorter.line_commands import LineCommands
from agents.sorter.part_reports import PartReports
from agents.sorter.part_states import restore_states
from agents.sorter.saved_settings import keep_settings, settings_path
from agents.sorter.sorter import MAX_OPEN_VERDICTS, ROLE, Sorter
from firmware.lane_settings import LaneSettings
from streams.errors import SettingsError
from streams.gateway_token import make_gateway_token
from streams.group_members import make_identity
from streams.health import ProcessHealth, ProgressWatchdog
from streams.recent_start import RecentStart
from streams.record_producer import RecordProducer
from streams.settings import GateSettings, Settings
from streams.supervision import run_supervised
from streams.topics import TopicNames
from streams.worker import ConsumerGroup, make_app, run_worker

log = logging.getLogger(__name__)

# At this interval, the sorter looks whether a person has moved the damaged files of a journal away.
_JOURNAL_CHECK_INTERVAL_S = 1.0


async def run_sorters(settings: Settings, lines: list[str], instance: str, health: ProcessHealth) -> int:
    """Runs the sorters of `lines`, whose gates are wired to the same board, until SIGTERM. Returns the exit status of the process."""
    gates = {line: gate for line in lines if (gate := settings.find_line(line).gate) is not None}
    board = gates[lines[0]]
    link = GateLink(LinkSettings(board.port, board.baud, settings.sorter.window))
    health.add_check(lambda: "" if link.is_alive else "the thread of the gate link has ended")
    async with AsyncExitStack() as stack:
        commands: dict[str, LineCommands] = {}
        producers: dict[str, RecordProducer] = {}
        groups = []
        for line, gate in gates.items():
            line_health = _LineHealth(health, line, settings.service.stall_s)
            group, commands[line], producers[line] = await _make_group(stack, settings, line, gate, instance, link, line_health)
            groups.append(group)
        command_topic = CommandTopic(settings, commands, producers)
        command_topic.start()
        stack.callback(command_topic.stop)
        health.set_ready()
        starting = asyncio.create_task(run_supervised("gate start", partial(_start_link, link, groups)))
        try:
            return await run_worker(groups, ROLE, settings.service.grace_s)
        finally:
            starting.cancel()
            for line_commands in commands.values():
                await line_commands.teaching.end()
            await asyncio.get_running_loop().run_in_executor(None, link.stop)


class _LineHealth(ProcessHealth):
    """The health of one line, in a process that serves several lines. A problem of the line is also a problem of the process."""

    def __init__(self, process: ProcessHealth, line: str, stall_s: float) -> None:
        super().__init__(process.role, ProgressWatchdog(stall_s))
        self._process = process
        self._line = line
        process.add_check(self.watchdog.find_stall)

    def add_check(self, find_problem: Callable[[], str]) -> None:
        self._process.add_check(find_problem)

    def add_complaint_check(self, find_complaint: Callable[[], str]) -> None:
        self._process.add_complaint_check(find_complaint)

    def set_ready(self, about: str = "start") -> None:
        super().set_ready(about)
        self._process.set_ready(f"{about} {self._line}")

    def set_not_ready(self, why: str, about: str = "start") -> None:
        super().set_not_ready(why, about)
        self._process.set_not_ready(why, f"{about} {self._line}")

    def is_ready(self) -> bool:
        return self._process.is_ready()


async def _make_group(
    stack: AsyncExitStack, settings: Settings, line: str, gate: GateSettings, instance: str, link: GateLink, health: ProcessHealth
) -> tuple[ConsumerGroup, LineCommands, RecordProducer]:
    """Connects the sorter of `line` to Kafka and to its lane of the board. Closing `stack` closes both connections."""
    loop = asyncio.get_running_loop()
    # Each line has a consumer group of its own, because the processes of a shared group would take partitions from each other.
    identity = make_identity(settings, f"{ROLE}-{line}", instance, is_exclusive=True)
    app = make_app(settings, identity, max(64, MAX_OPEN_VERDICTS))
    # Skip verdicts that are older than the travel time of a part from photo-eye 1 to photo-eye 2. The parts of these verdicts have already
    # reached the gate.
    recent_start = RecentStart(gate.travel_s)
    recent_start.apply_to(app)
    health.set_not_ready("waiting for its partitions")

    def handle_event(event: GateEvent) -> None:
        loop.call_soon_threadsafe(sorter.handle_event, event)
        loop.call_soon_threadsafe(commands.add_event, event)

    try:
        lane = link.add_lane(line, handle_event, lane_settings(gate), gate.lane, grade_settings(gate))
    except ValueError as error:
        raise SettingsError(f"lines.{line}.gate: {error}") from None
    file = settings_path(settings.sorter.journal_dir, line)
    # A single thread writes the file of saved settings, so that the newest settings are written last.
    keeper = ThreadPoolExecutor(1, f"keep-{line}")
    stack.callback(keeper.shutdown)

    def keep(used: Mapping[int, LaneSettings]) -> None:
        # The settings are saved so that a new board can get them if this board is exchanged. The settings of a teaching session are
        # temporary, so they are not saved.
        if used == commands.teaching.lasting_settings:
            keeper.submit(_keep_settings, file, line, gate.port, used)

    lane.on_accepted = keep
    # While the line is paused, this file exists. It is beside the journal and not in service.run_dir, because systemd deletes the content
    # of service.run_dir when Castline stops.
    pause_file = settings.sorter.journal_dir / f"{line}.paused"
    older_pause_file = settings.service.run_dir / "paused" / line
    commands = LineCommands(line, lane, gate, pause_file, lambda: recent_start.description, older_pause_file)
    # The socket is opened before the journal. If another sorter of the line runs, opening the socket raises an error that says so.
    await stack.enter_async_context(CommandSocket(settings.service.run_dir, commands))
    journal = SortingJournal(settings.sorter.journal_dir, line)
    stack.callback(journal.close)
    part_states = await loop.run_in_executor(None, restore_states, settings, line, journal)
    camera, is_triggered_by_board = settings.find_line(line).camera, settings.find_line(line).is_triggered_by_board
    gateway_url = settings.sorter.gateway_url.get_secret_value() or f"http://{settings.gateway.host}:{settings.gateway.port}"
    match_window_s = camera.match_window_s if camera else 1.0
    token = make_gateway_token(settings).get_secret_value()
    reports = await stack.enter_async_context(PartReports(gateway_url, line, token, match_window_s))
    if is_triggered_by_board:
        reports.send_again(await loop.run_in_executor(None, journal.unreported_parts))
    producer = RecordProducer(app, settings, ROLE, partial(health.set_problem, topic="producer"))
    topic = TopicNames(settings.topics.prefix).sorted(line)
    report_journal_problem = partial(health.set_problem, topic="journal")
    health.add_complaint_check(journal.find_complaint)
    if journal.fault:
        log.error("%s: %s The sorter sends its records directly to Kafka.", line, journal.fault)
        report_journal_problem(journal.fault)
    sender = JournalSender(journal, producer, topic, ROLE, report_journal_problem)
    sorter = Sorter(settings, line, gate, lane, producer, sender, reports if is_triggered_by_board else None, part_states)
    commands.teaching.on_gate_changed = sorter.use_gate
    watching = asyncio.create_task(run_supervised(f"lane-{line}", partial(_watch_lane, lane, link.settings.port, health)))
    stack.callback(watching.cancel)
    looking = asyncio.create_task(run_supervised(f"journal-{line}", partial(_look_for_damaged_files, journal)))
    stack.callback(looking.cancel)
    return ConsumerGroup(app, identity, sorter, settings, ROLE, health), commands, producer


def _keep_settings(file: Path, line: str, port: str, settings_by_lane: Mapping[int, LaneSettings]) -> None:
    try:
        keep_settings(file, line, port, settings_by_lane)
    except OSError as error:
        log.warning("%s: the settings of the board were not written to %s: %s. Free space on its disk.", line, file, error)


async def _start_link(link: GateLink, groups: list[ConsumerGroup]) -> None:
    """Opens the serial port when the sorters of all lines are ready for parts. The board counts parts as soon as it is configured.

    A sorter is ready when it receives verdicts from Kafka and can write to its journal.
    """
    for group in groups:
        await group.has_partitions.wait()
        await group.has_tasks.wait()
    link.start()


async def _look_for_damaged_files(journal: SortingJournal) -> None:
    """Updates the complaint of the journal on /healthz. The thread of the health pages never waits for the disk."""
    while True:
        await asyncio.to_thread(journal.list_set_aside)
        await asyncio.sleep(_JOURNAL_CHECK_INTERVAL_S)


async def _watch_lane(lane: GateLane, port: str, health: ProcessHealth) -> None:
    """Shows a problem on /readyz while the board of the line is not connected."""
    while True:
        problem = f"lane {lane.number} of the board at {port} is {lane.state}. {lane.problem}".strip()
        health.set_problem("" if lane.is_connected else problem, "gate")
        await asyncio.sleep(0.2)
