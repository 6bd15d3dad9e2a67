"""The roles of one machine as processes: what is started before what, and what is stopped before what."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deploy.cli.sorter import lines_by_board
from deploy.supervisor import Backoff, LinePrinted, PageReady, Role, castline_command
from streams.settings import Settings

# Start: everything that takes parts is ready before the sorter tells the boards to count them.
_BROKER, _TOPICS, _WORKERS, _SORTER = range(4)
BOARDS_START = _WORKERS
# Stop: a simulated board stops feeding and lets its belt run empty; then along the way of a picture, so that each worker
# finds what the one before it left; the broker outlives its clients.
BOARDS_STOP, _GATEWAY_STOPS, INSPECTORS_STOP, _SORTER_STOPS, _ARCHIVIST_STOPS, BROKER_STOPS = range(6)
# A worker ends within service.grace_s by itself; what is beyond goes into leaving the group and closing clients.
_BEYOND_GRACE_S = 10.0
# Loading TensorFlow and warming up takes a minute where the disk is cold and the processors are busy.
_SLOW_START_S = 240.0


def plant_roles(
    file: Path | None,
    settings: Settings,
    inspectors: int,
    backoff: Backoff,
    boards: Iterable[Role] = (),
    station: bool = True,
) -> list[Role]:
    """The processes for what `settings` name on this machine: broker, topics, inspectors, a gateway, sorters, archivist and station.

    Every process reads `file`, or without one the environment alone. `boards` are simulated ones, none in a real plant.
    Without `station` nothing is archived and no pages are served.
    """
    page = PageReady(settings.service.run_dir)
    reading = ("--settings", str(file)) if file else ()

    def worker(name: str, command: tuple[str, ...], stage: int, stops: int) -> Role:
        grace_s = settings.service.grace_s + _BEYOND_GRACE_S
        line = castline_command(*reading, *command)
        return Role(name, line, page, stage, stops, grace_s, backoff, slow_start_s=_SLOW_START_S)

    roles = []
    if settings.kafka.bootstrap == "embedded":
        line = castline_command(*reading, "broker")
        grace_s = max(settings.service.grace_s, 20) + _BEYOND_GRACE_S
        ready = LinePrinted("Kafka ready at")
        slow_start_s = settings.broker.start_timeout_s + 30
        roles.append(
            Role(
                "broker",
                line,
                ready,
                _BROKER,
                BROKER_STOPS,
                grace_s,
                backoff,
                essential=True,
                slow_start_s=slow_start_s,
            )
        )
    topics = castline_command(*reading, "topics", "create")
    roles.append(Role("topics", topics, page, _TOPICS, _GATEWAY_STOPS, 5, backoff, once=True))
    roles += [worker(f"inspector-{number}", ("inspector",), _WORKERS, INSPECTORS_STOP) for number in range(1, inspectors + 1)]
    roles += boards
    if station:
        roles.append(worker("archivist", ("archivist",), _WORKERS, _ARCHIVIST_STOPS))
        roles.append(worker("station", ("station",), _WORKERS, _ARCHIVIST_STOPS))
    if any(line.camera for line in settings.lines):
        roles.append(worker("gateway", ("gateway",), _WORKERS, _GATEWAY_STOPS))
    # A sorter a board: a stuck serial port harms one board.
    sharing = lines_by_board(settings) if any(line.gate for line in settings.lines) else []
    roles += [worker(sorter_of(*shared), ("sorter", "--line", shared[0]), _SORTER, _SORTER_STOPS) for shared in sharing]
    return roles


def sorter_of(*lines: str) -> str:
    """Name of the role that sorts `lines`, which share a board."""
    return f"sorter {', '.join(lines)}"
