"""What the operator sees: one line of the terminal for each line of the foundry. Pure: a snapshot in, a picture out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy.demo.watch import LineNumbers
from deploy.supervisor import State

SILENT_S = 10.0
_MOST_ALARMS = 6
_SPOOLED = 10  # every picture passes the spool; so many in it have stopped passing


@dataclass(frozen=True)
class Row:
    """One line. `parts` are those that photo-eye 1 counted, `queue` the pictures not yet judged."""

    name: str
    numbers: LineNumbers
    parts: int = 0
    queue: int = 0
    spooled: int = 0
    gate: str = ""


@dataclass(frozen=True)
class Standing:
    """One process: its state, and for how long while it starts."""

    name: str
    state: State
    for_s: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """Everything that is shown at one moment."""

    phase: str  # "starting", "running", "draining", "stopping"
    elapsed_s: float
    seconds: float | None
    rows: Sequence[Row]
    processes: Sequence[Standing]
    cores: float = 0.0
    memory_mb: float = 0.0
    useful_s: float = 0.0  # from picture to the last useful verdict
    now: float = 0.0
    pages: str = ""  # where the station is and who may log in; empty without one
    news: Sequence[str] = field(default_factory=tuple)
    hint: str = "Ctrl-C: drain and stop; twice: at once"


def render(snapshot: Snapshot) -> RenderableType:
    """The live view; fits 80 columns."""
    parts: list[RenderableType] = [_title(snapshot), Text(), _table(snapshot), Text(), _totals(snapshot)]
    if snapshot.pages and snapshot.phase in ("starting", "running"):
        parts.append(Text(f"station: {snapshot.pages}", "cyan", overflow="fold"))
    if text := _not_ready(snapshot):
        parts.append(text)
    found = alarms(snapshot)
    shown = found if len(found) <= _MOST_ALARMS else [*found[: _MOST_ALARMS - 1], f"and {len(found) - _MOST_ALARMS + 1} more"]
    parts += [Text(alarm, "bold red", overflow="ellipsis", no_wrap=True) for alarm in shown]
    parts += [Text(sentence, "yellow", overflow="ellipsis", no_wrap=True) for sentence in snapshot.news]
    return Group(*parts)


def plain(snapshot: Snapshot) -> str:
    """The same in one line, for a log."""
    rows = snapshot.rows
    waiting = [standing.name + (f" ({standing.state})" if standing.for_s else "") for standing in _unready(snapshot)]
    if snapshot.phase == "starting":
        return f"{snapshot.elapsed_s:5.0f} s starting; waiting for {', '.join(waiting) or 'the first parts'}"
    labels = " ".join(f"{sum(row.numbers.labels.get(label, 0) for row in rows)} {label}" for label in ("ok", "defect", "review"))
    fields = [
        f"{snapshot.elapsed_s:5.0f} s {snapshot.phase}",
        f"parts {sum(row.parts for row in rows)}",
        f"verdicts {sum(row.numbers.verdicts for row in rows)} ({labels})",
        f"sorted {sum(row.numbers.sorted for row in rows)}",
        f"diverted {sum(row.numbers.diverted for row in rows)}",
        f"queue {sum(row.queue for row in rows)}",
        f"age p50/p99 {_worst(rows, 'p50_ms')}/{_worst(rows, 'p99_ms')} ms",
        f"{sum(row.numbers.per_s for row in rows):.1f} verdicts/s",
    ]
    if waiting and snapshot.phase == "running":
        fields.append("waiting for " + ", ".join(waiting))
    return "; ".join([*fields, *alarms(snapshot)])


def alarms(snapshot: Snapshot) -> list[str]:
    """What an operator should act on, worst first."""
    if snapshot.phase == "starting":
        return []
    found = []
    for row in snapshot.rows:
        numbers = row.numbers
        if numbers.no_verdict:
            found.append(f"{row.name}: {numbers.no_verdict} parts reached the gate without a verdict and were treated as unsafe")
        if snapshot.phase == "running" and row.queue and numbers.last_verdict_at and snapshot.now - numbers.last_verdict_at > SILENT_S:
            found.append(f"{row.name}: {row.queue} pictures wait and no verdict for {snapshot.now - numbers.last_verdict_at:.0f} s")
        if numbers.p99_ms is not None and snapshot.useful_s and numbers.p99_ms > snapshot.useful_s * 1000:
            found.append(f"{row.name}: verdicts come later than {snapshot.useful_s:.1f} s after the picture, when the part is at the gate")
        if row.spooled >= _SPOOLED:
            found.append(f"{row.name}: {row.spooled} pictures wait on the gateway's disk, Kafka takes none")
    return found


def _title(snapshot: Snapshot) -> Text:
    clock = _clock(snapshot.elapsed_s) + (f" of {_clock(snapshot.seconds)}" if snapshot.seconds else "")
    text = Text.assemble(("Castline ", "bold"), (f" {snapshot.phase} ", "reverse"), f"  {clock}   ")
    text.append(snapshot.hint, "dim")
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _table(snapshot: Snapshot) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("line", no_wrap=True, min_width=6)
    for name in ("parts", "ok", "defect", "review", "diverted", "age ms", "queue"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("gate", no_wrap=True, min_width=7)
    for row in snapshot.rows:
        numbers, labels = row.numbers, row.numbers.labels
        late = numbers.p99_ms is not None and snapshot.useful_s and numbers.p99_ms > snapshot.useful_s * 1000
        table.add_row(
            row.name,
            str(row.parts),
            Text(str(labels.get("ok", 0)), "green"),
            Text(str(labels.get("defect", 0)), "red"),
            Text(str(labels.get("review", 0)), "yellow"),
            str(numbers.diverted),
            Text(f"{_ms(numbers.p50_ms)}/{_ms(numbers.p99_ms)}", "bold red" if late else ""),
            str(row.queue),
            Text(row.gate or "-", "green" if row.gate == "running" else "yellow"),
        )
    return table


def _totals(snapshot: Snapshot) -> Text:
    rows = snapshot.rows
    return Text(
        f"{sum(row.numbers.per_s for row in rows):.1f} verdicts/s   {sum(row.numbers.verdicts for row in rows)} verdicts   "
        f"{sum(row.numbers.sorted for row in rows)} sorted   {snapshot.cores:.1f} cores   {snapshot.memory_mb:.0f} MB\n"
        "age: from the picture to its verdict, median/99th percentile of the latest",
        "dim",
    )


def _not_ready(snapshot: Snapshot) -> Text | None:
    unready = _unready(snapshot)
    if not unready or snapshot.phase not in ("starting", "running"):
        return None
    text = Text("waiting for ", "dim")
    text.append(
        ", ".join(f"{standing.name} ({standing.state} {standing.for_s:.0f} s)" for standing in unready if standing.for_s) or "the broker"
    )
    later = [standing.name for standing in unready if not standing.for_s]
    if later:
        text.append(f"; then {', '.join(later)}", "dim")
    return text


def _unready(snapshot: Snapshot) -> list[Standing]:
    return [standing for standing in snapshot.processes if standing.state not in (State.READY, State.ENDED)]


def _worst(rows: Sequence[Row], name: str) -> str:
    return _ms(max((value for row in rows if (value := getattr(row.numbers, name)) is not None), default=None))


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
