"""`castline sorter`: tells a line's board the verdicts and records what the gate did."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click

from deploy.orphans import die_with_parent
from firmware.board.codes import codes
from streams import metrics
from streams.errors import SettingsError
from streams.health import Health, HealthServer, Progress, Slot
from streams.kafka import wait_for_kafka
from streams.logs import configure_logs
from streams.settings import GateSettings, Settings, load_settings
from streams.topics import TopicNames

log = logging.getLogger(__name__)
ROLE = "sorter"


@click.command("sorter")
@click.option("--line", "names", multiple=True, help="Line to serve; may be given several times. Without: all lines that have a gate.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the health pages of one line; 0 takes a free one.")
@click.pass_obj
def command(file: Path | None, names: tuple[str, ...], port: int) -> int:
    """Tell each line's board the verdicts and record what its gate did, until SIGTERM.

    One process serves one line, so that a stuck port harms one line; for several lines it starts one process each, and
    ends with the first that ends. While Kafka or the board is away it waits and says so; /readyz is 503.
    """
    settings = load_settings(file)
    configure_logs(settings.service, ROLE)
    lines = _lines(settings, names)
    if len(lines) > 1:
        return _serve_each(file, lines)
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    (line,) = lines
    metrics.begin_at_zero(ROLE, line, [code.code for code in codes().values() if code.kind == "fault"])
    slot = Slot(settings.service.run_dir, f"{ROLE}-{line}")
    health = Health(ROLE, Progress(settings.service.stall_s))
    with HealthServer(health, settings.service, str(slot), port) as pages:
        log.info("%s serves its health at %s", slot, pages.address)
        return _serve(settings, line, str(slot), health, stopping)


def _lines(settings: Settings, names: tuple[str, ...]) -> list[str]:
    lines = list(dict.fromkeys(names)) or [line.name for line in settings.lines if line.gate]
    if not lines:
        raise SettingsError("lines: expected at least one line with a gate, found none")
    for name in lines:
        _gate(settings, name)
    return lines


def _gate(settings: Settings, name: str) -> GateSettings:
    gate = settings.line(name).gate
    if gate is None:
        raise SettingsError(f"lines.{name}.gate: expected the settings of a gate, found none: such a line has no sorter")
    return gate


def _serve_each(file: Path | None, lines: list[str]) -> int:
    """A process a line; all of them end when one ends or when this one is told to."""
    castline = [str(Path(sys.argv[0])), *(("--settings", str(file)) if file else ())]
    children = [subprocess.Popen([*castline, ROLE, "--line", line], preexec_fn=die_with_parent) for line in lines]
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    while not stopping.is_set() and all(child.poll() is None for child in children):
        time.sleep(0.1)
    for child in children:
        if child.poll() is None:
            child.terminate()
    return max(abs(child.wait()) for child in children)


def _serve(settings: Settings, line: str, instance: str, health: Health, stopping: threading.Event) -> int:
    def say(why: str) -> None:
        health.not_ready(why)
        log.warning(why)

    health.not_ready("waiting for Kafka")
    admin = wait_for_kafka(settings, ROLE, say, stopping.is_set)
    if admin is None:
        return 0
    names = TopicNames(settings.topics.prefix)
    try:
        present = {topic["name"] for topic in admin.describe_topics(None)}
    finally:
        admin.close()
    missing = [topic for topic in (names.verdicts(line), names.sorted(line), names.dead_letters) if topic not in present]
    if missing:
        raise SettingsError(f"expected the topics {', '.join(missing)}, found none of that name; make them with: castline topics create")
    if stopping.is_set():
        return 0
    return asyncio.run(_run(settings, line, instance, health))


async def _run(settings: Settings, line: str, instance: str, health: Health) -> int:
    # Imported here: Faust takes a second, and `castline sorter --help` should not.
    from agents.gate_events import GateEvent
    from agents.gate_link import GateLink, LinkSettings
    from agents.part_reports import PartReports
    from agents.recall import recall
    from agents.sorter import IN_HAND, Sorter, register
    from agents.sorting import lane_settings
    from streams.app import make_app, run_app
    from streams.delivery import Courier
    from streams.lag import LagWatch

    gate, camera = _gate(settings, line), settings.line(line).camera
    try:
        board = LinkSettings(line, gate.port, lane_settings(gate), gate.baud, window=settings.sorter.window)
    except ValueError as error:
        raise SettingsError(f"lines.{line}.gate: {error}") from None
    loop = asyncio.get_running_loop()
    notes = await loop.run_in_executor(None, recall, settings, line)
    # A group a line: two processes of one group with different topics would fight over the assignment.
    app = make_app(settings, f"{ROLE}-{line}", instance, max(64, IN_HAND))
    url = settings.sorter.gateway_url or f"http://{settings.gateway.host}:{settings.gateway.port}"
    fresh_s = camera.match_window_s if camera else 1.0
    triggered = camera is None or camera.trigger == "board"

    def heard(event: GateEvent) -> None:
        loop.call_soon_threadsafe(sorter.heard, event)

    link = GateLink(board, heard)
    async with PartReports(url, line, settings.gateway.token.get_secret_value(), fresh_s) as reports:
        sorter = Sorter(settings, line, gate, link, Courier(app, health.trouble), reports if triggered else None, notes)
        register(app, sorter)

        def assigned() -> set[tuple[str, int]]:
            return {(place.topic, place.partition) for place in app.consumer.assignment()} if health.is_ready() else set()

        @app.on_partitions_assigned.connect(weak=False)  # type: ignore[untyped-decorator]
        async def join(_sender: object, assigned: set[object], **_: object) -> None:
            log.info("%s has %d partitions", instance, len(assigned))
            health.ready()
            # Not before: a configured board begins to count, and the first verdicts would come while nobody listens.
            link.start()

        health.add_check(lambda: "" if link.alive else "the thread of the gate link has ended")
        watch = LagWatch(settings, app.conf.id, {sorter.topic: line}, assigned, health)
        watch.start()
        watching = asyncio.create_task(_watch_gate(link, health))
        try:
            return await run_app(app, ROLE, sorter.drain, settings.service.grace_s)
        finally:
            watching.cancel()
            watch.stop()
            await loop.run_in_executor(None, link.stop)


async def _watch_gate(link: object, health: Health) -> None:
    from agents.gate_events import GateState
    from agents.gate_link import GateLink

    assert isinstance(link, GateLink)
    reached = (GateState.RUNNING, GateState.SAFE, GateState.STOPPED)
    while True:
        health.trouble("" if link.state in reached else f"the board at {link.link.port} is {link.state}", "gate")
        await asyncio.sleep(0.2)
