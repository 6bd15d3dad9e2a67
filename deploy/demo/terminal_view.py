"""Shows the lines of a foundry for `castline demo` and `castline top`.

A terminal gets a table that is redrawn in place. Other output, such as a file, gets a line of text every few seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.demo.topic_monitor import LineFigures
from deploy.supervisor import State
from streams.plant_states import STATE_ALARMS, PlantState

_MAX_ALARMS = 6
# If at least this many pictures wait in the spool, the view shows an alarm. The probable cause is that Kafka accepts no pictures.
_SPOOLED_ALARM = 10
_PLAIN_EVERY_S = 5.0


@dataclass(frozen=True)
class LineStatus:
    """The figures of one line in the view.

    - `parts`: parts that photo-eye 1 counted.
    - `queue`: pictures on Kafka that wait for a verdict.
    - `spooled`: pictures in the gateway's queue on disk.
    """

    name: str
    figures: LineFigures
    parts: int = 0
    queue: int = 0
    spooled: int = 0
    state: PlantState = PlantState.NO_CASTINGS


@dataclass(frozen=True)
class ProcessStatus:
    """The state of one process in the view. `starting_s` is the time since its start in seconds. Before the start it is 0."""

    name: str
    state: State
    starting_s: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """Everything that the view shows at one moment.

    - `phase`: `starting`, `running`, `draining`, `auditing` or `stopping`.
    - `seconds`: the planned length of the run, or None.
    - `deadline_s`: how long a verdict may take, in seconds. If the lines have different deadlines, this is the shortest one. 0 means that
      there is no deadline.
    - `station`: the address and the account of the station. It is empty without a station.
    """

    phase: str
    elapsed_s: float
    seconds: float | None
    rows: Sequence[LineStatus]
    processes: Sequence[ProcessStatus]
    cores: float = 0.0
    memory_mb: float = 0.0
    deadline_s: float = 0.0
    now: float = 0.0
    station: str = ""
    warnings: Sequence[str] = ()
    hint: str = "Ctrl-C: drain and stop; twice: at once"


class Screen(Protocol):
    """Shows a snapshot of the foundry to the user."""

    def show(self, snapshot: Snapshot) -> None: ...


class LiveScreen:
    """Shows snapshots as a table that is redrawn in place. The last table stays in the terminal."""

    def __init__(self, console: Console) -> None:
        # No refresh thread is needed, because each call of `show` draws the table.
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        self._live.update(render_table(snapshot), refresh=True)


class PlainScreen:
    """Shows snapshots as lines of text, for output that is not a terminal. Prints a line every 5 s and when the phase changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._printed_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def show(self, snapshot: Snapshot) -> None:
        if snapshot.phase == self._phase and snapshot.now - self._printed_at < _PLAIN_EVERY_S:
            return
        if snapshot.station and snapshot.phase == "running" != self._phase:
            self._console.print(f"        station: {snapshot.station}", soft_wrap=True)
        self._phase, self._printed_at = snapshot.phase, snapshot.now
        self._console.print(format_line(snapshot), soft_wrap=True)
        for warning in snapshot.warnings:
            self._console.print(f"        {warning}", soft_wrap=True)


def render_table(snapshot: Snapshot) -> RenderableType:
    """Returns the table of the lines with alarms and warnings. The table is at most 80 characters wide."""
    parts: list[RenderableType] = [_render_title(snapshot), Text(), _render_lines(snapshot), Text(), _render_totals(snapshot)]
    if snapshot.station and snapshot.phase in ("starting", "running"):
        parts.append(Text(f"station: {snapshot.station}", "cyan", overflow="fold"))
    if text := _render_unready(snapshot):
        parts.append(text)
    alarms = find_alarms(snapshot)
    if len(alarms) > _MAX_ALARMS:
        alarms = [*alarms[: _MAX_ALARMS - 1], f"and {len(alarms) - _MAX_ALARMS + 1} more"]
    parts += [Text(alarm, "bold red", overflow="ellipsis", no_wrap=True) for alarm in alarms]
    parts += [Text(warning, "yellow", overflow="ellipsis", no_wrap=True) for warning in snapshot.warnings]
    return Group(*parts)


def format_line(snapshot: Snapshot) -> str:
    """Returns one line of text with the totals of the foundry and all alarms."""
    rows = snapshot.rows
    waiting = [process.name + (f" ({process.state})" if process.starting_s else "") for process in _list_unready(snapshot)]
    if snapshot.phase == "starting":
        return f"{snapshot.elapsed_s:5.0f} s starting; waiting for {', '.join(waiting) or 'the first parts'}"
    labels = " ".join(f"{sum(row.figures.labels.get(label, 0) for row in rows)} {label}" for label in ("ok", "defect", "review"))
    fields = [
        f"{snapshot.elapsed_s:5.0f} s {snapshot.phase}",
        f"parts {sum(row.parts for row in rows)}",
        f"verdicts {sum(row.figures.verdicts for row in rows)} ({labels})",
        f"sorted {sum(row.figures.sorted for row in rows)}",
        f"diverted {sum(row.figures.diverted for row in rows)}",
        f"queue {sum(row.queue for row in rows)}",
        f"age p50/p99 {_format_worst(rows, 'p50_ms')}/{_format_worst(rows, 'p99_ms')} ms",
        f"{sum(row.figures.verdicts_per_s for row in rows):.1f} verdicts/s",
    ]
    if waiting and snapshot.phase == "running":
        fields.append("waiting for " + ", ".join(waiting))
    return "; ".join([*fields, *find_alarms(snapshot)])


def find_alarms(snapshot: Snapshot) -> list[str]:
    """Returns a sentence for each problem that an operator should solve. While the foundry starts there are no alarms."""
    if snapshot.phase == "starting":
        return []
    alarms = []
    for row in snapshot.rows:
        figures = row.figures
        if figures.no_verdict:
            alarms.append(f"{row.name}: {figures.no_verdict} parts reached the gate without a verdict, so the gate took its safe action")
        if snapshot.phase == "running" and (alarm := STATE_ALARMS.get(row.state)):
            alarms.append(f"{row.name}: {row.state.display_name}. {alarm.first_step}")
        if row.spooled >= _SPOOLED_ALARM:
            alarms.append(f"{row.name}: {row.spooled} pictures wait on the gateway's disk, because Kafka accepts none")
    return alarms


def _is_late(row: LineStatus, snapshot: Snapshot) -> bool:
    return row.figures.p99_ms is not None and 0 < snapshot.deadline_s * 1000 < row.figures.p99_ms


def _render_title(snapshot: Snapshot) -> Text:
    clock = _format_clock(snapshot.elapsed_s) + (f" of {_format_clock(snapshot.seconds)}" if snapshot.seconds else "")
    text = Text.assemble(("Castline ", "bold"), (f" {snapshot.phase} ", "reverse"), f"  {clock}   ")
    text.append(snapshot.hint, "dim")
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _render_lines(snapshot: Snapshot) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("line", no_wrap=True, min_width=6)
    for name in ("parts", "ok", "defect", "review", "diverted", "age ms", "queue"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=7)
    for row in snapshot.rows:
        figures, labels = row.figures, row.figures.labels
        table.add_row(
            row.name,
            str(row.parts),
            Text(str(labels.get("ok", 0)), "green"),
            Text(str(labels.get("defect", 0)), "red"),
            Text(str(labels.get("review", 0)), "yellow"),
            str(figures.diverted),
            Text(f"{_format_ms(figures.p50_ms)}/{_format_ms(figures.p99_ms)}", "bold red" if _is_late(row, snapshot) else ""),
            str(row.queue),
            Text(
                row.state.display_name,
                "green" if row.state is PlantState.RUNNING else "bold red" if row.state in STATE_ALARMS else "yellow",
            ),
        )
    return table


def _render_totals(snapshot: Snapshot) -> Text:
    rows = snapshot.rows
    return Text(
        f"{sum(row.figures.verdicts_per_s for row in rows):.1f} verdicts/s   {sum(row.figures.verdicts for row in rows)} verdicts   "
        f"{sum(row.figures.sorted for row in rows)} sorted   {snapshot.cores:.1f} cores   {snapshot.memory_mb:.0f} MB\n"
        "age: time from a picture to its verdict, median/99th percentile",
        "dim",
    )


def _render_unready(snapshot: Snapshot) -> Text | None:
    unready = _list_unready(snapshot)
    if not unready or snapshot.phase not in ("starting", "running"):
        return None
    starting = [f"{process.name} ({process.state} {process.starting_s:.0f} s)" for process in unready if process.starting_s]
    text = Text("waiting for ", "dim")
    text.append(", ".join(starting) or "the broker")
    not_started = [process.name for process in unready if not process.starting_s]
    if not_started:
        text.append(f"; then {', '.join(not_started)}", "dim")
    return text


def _list_unready(snapshot: Snapshot) -> list[ProcessStatus]:
    return [process for process in snapshot.processes if process.state not in (State.READY, State.ENDED)]


def _format_worst(rows: Sequence[LineStatus], name: str) -> str:
    return _format_ms(max((value for row in rows if (value := getattr(row.figures, name)) is not None), default=None))


def _format_ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _format_clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
