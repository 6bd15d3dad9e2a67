"""Lists the roles that the settings ask for on this machine, and sets the order in which they start and stop."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deploy.supervisor import LinePrinted, PageReady, RestartPolicy, Role, castline_command
from streams.settings import Settings

# The sorters start in the last stage, because a board counts parts as soon as its sorter runs, and these parts need the gateway and the
# inspectors. Archivist, station and localiser are also in the last stage, so that no sorter waits for them.
_BROKER, _TOPICS, _WORKERS, _SORTERS = range(4)
BOARDS_STAGE = _WORKERS
# Simulated boards stop first, then gateway, inspectors, sorters and archivist, so that each can finish its work. The broker stops last.
BOARDS_STOP, _GATEWAY_STOP, INSPECTORS_STOP, _SORTER_STOP, _ARCHIVIST_STOP, BROKER_STOP = range(6)
# After SIGTERM, a worker has service.grace_s seconds to finish its work. After that it has this many seconds to leave its consumer group
# and to close its clients.
_CLOSING_S = 10.0
# Longest time until a worker is ready. Loading TensorFlow can take a minute on a busy machine.
_SLOW_START_S = 240.0


def plant_roles(
    file: Path | None,
    settings: Settings,
    inspectors: int,
    restarts: RestartPolicy,
    boards: Iterable[Role] = (),
    station: bool = True,
) -> list[Role]:
    """Returns the roles that the settings ask for on this machine.

    - `file`: the settings file. None means that all settings come from environment variables.
    - `inspectors`: number of inspector processes.
    - `boards`: the roles of simulated boards.
    - `station`: whether archivist and station run.
    """
    page = PageReady(settings.service.run_dir)
    castline = castline_command(*(("--settings", str(file)) if file else ()))

    def worker(name: str, command: tuple[str, ...], stage: int, stop_order: int) -> Role:
        grace_s = settings.service.grace_s + _CLOSING_S
        return Role(name, (*castline, *command), page, stage, stop_order, grace_s, restarts, slow_start_s=_SLOW_START_S)

    roles = []
    if settings.kafka.bootstrap == "embedded":
        roles.append(
            Role(
                "broker",
                (*castline, "broker"),
                LinePrinted("Kafka ready at", settings.service.run_dir),
                _BROKER,
                BROKER_STOP,
                max(settings.service.grace_s, 20) + _CLOSING_S,
                restarts,
                is_essential=True,
                slow_start_s=settings.broker.start_timeout_s + 30,
            )
        )
    roles.append(Role("topics", (*castline, "topics", "create"), page, _TOPICS, _GATEWAY_STOP, 5, restarts, is_one_shot=True))
    roles += [worker(f"inspector-{number}", ("inspector",), _WORKERS, INSPECTORS_STOP) for number in range(1, inspectors + 1)]
    roles += boards
    if station:
        roles.append(worker("archivist", ("archivist",), _SORTERS, _ARCHIVIST_STOP))
        roles.append(worker("station", ("station",), _SORTERS, _ARCHIVIST_STOP))
    if any(line.camera for line in settings.lines):
        roles.append(worker("gateway", ("gateway",), _WORKERS, _GATEWAY_STOP))
    # Each board has its own sorter. If a serial port hangs, only the lines of its board stop.
    sharing = settings.lines_by_board() if any(line.gate for line in settings.lines) else []
    roles += [worker(sorter_name(*lines), ("sorter", "--line", lines[0]), _SORTERS, _SORTER_STOP) for lines in sharing]
    if settings.inspector.localise:
        roles.append(worker("localiser", ("localiser",), _SORTERS, _SORTER_STOP))
    return roles


def sorter_name(*lines: str) -> str:
    """Returns the name of the sorter role of a board. `lines` are the lines that share the board."""
    return f"sorter {', '.join(lines)}"
