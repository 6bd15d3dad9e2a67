"""The report of a demo run: the audit of the topics, a comparison with the simulated castings, and the processor time and memory used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from deploy.demo.audit import AuditResult, TopicRecords, audit_records
from streams.atomic_file import write_atomically
from streams.identity import PartId
from streams.records import Sorting

# The JSON report begins with these fields. Their names do not change, so that other programs can use them.
PROMISED_FIELDS = (
    *("parts", "pictures", "verdicts", "sorted", "diverted", "lost", "repeated_moves", "late"),
    *("accuracy", "p50_ms", "p99_ms", "cpu_s", "rss_mb"),
)
# Column headings by field. They are short, so that the table fits into 80 characters.
_COLUMNS = {
    **{name: name for name in ("line", "parts", "pictures", "verdicts", "sorted", "diverted", "lost", "late")},
    **{"accuracy": "right", "p50_ms": "p50 ms", "p99_ms": "p99 ms"},
}
_MAX_EXAMPLES = 20
_MAX_PRINTED_PARTS = 5


@dataclass(frozen=True)
class CastingFall:
    """A simulated casting that left its belt.

    - `part`: None if photo-eye 1 did not see the casting.
    - `side`: where the casting went, `diverted` or `passed`.
    - `struck`: True if the moving blade of the gate hit the casting.
    """

    part: PartId | None
    side: str
    struck: bool


@dataclass(frozen=True)
class FallComparison:
    """Says whether each simulated casting fell to the side that its sorting record names.

    The JSON report uses the same field names.
    """

    fallen: int
    # Number of castings that fell to the wrong side: the sorting record says `diverted`, but the casting passed, or the reverse.
    mismatches: int
    unrecorded: int
    struck: int
    examples: tuple[str, ...]


def read_falls(log: Path, line: str) -> list[CastingFall]:
    """Reads from the log of a simulated board which castings left the belt of `line`. Returns an empty list if there is no log."""
    if not log.exists():
        return []
    falls = []
    for text in log.read_text().splitlines():
        entry = json.loads(text)
        if entry["what"] == "fell":
            part = PartId(line, entry["run"], entry["counted"]) if entry["counted"] else None
            falls.append(CastingFall(part, entry["side"], entry["struck"]))
    return falls


def compare_falls(falls: Iterable[CastingFall], sortings: Iterable[Sorting]) -> FallComparison:
    """Checks that each simulated casting fell to the side that its sorting record names.

    Sortings with the action `stopped` or `untracked` name no side, so their castings are not compared.
    """
    recorded: dict[PartId, set[str]] = {}
    for event in sortings:
        recorded.setdefault(event.part_id, set()).add(event.action)
    fallen = mismatches = unrecorded = struck = 0
    examples: list[str] = []
    for fall in falls:
        fallen += 1
        struck += fall.struck
        actions = recorded.get(fall.part, set()) if fall.part else set()
        claimed = actions & {"diverted", "passed"}
        if not actions:
            unrecorded += 1
        elif claimed and claimed != {fall.side}:
            mismatches += 1
            examples.append(f"{fall.part}: {fall.side} on the belt, but recorded as {' and '.join(sorted(claimed))}")
    return FallComparison(fallen, mismatches, unrecorded, struck, tuple(examples[:_MAX_EXAMPLES]))


@dataclass(frozen=True)
class DemoReport:
    """The report of a demo run.

    - `whole`, `by_line`: the audit of all lines, and of each line.
    - `physical`: whether each casting fell to the recorded side.
    - `cpu_s`: processor time of all processes, in seconds.
    - `rss_mb`: peak memory of all processes, in MiB.
    - `extra`: further fields of the JSON report.
    """

    whole: AuditResult
    by_line: Mapping[str, AuditResult]
    physical: FallComparison
    cpu_s: float
    rss_mb: float
    extra: Mapping[str, Any]

    @property
    def failures(self) -> list[str]:
        """A sentence for each failure of the run. If there is a failure, the exit status of the demo is 1."""
        found = self.whole
        checks = (
            (not found.parts, "No part was seen."),
            (found.lost, f"{found.lost} parts were lost. Missing: {_describe_missing(found)}. Parts: {_list_some(found.lost_parts)}."),
            (found.repeated_moves, f"A gate moved again for the same part {found.repeated_moves} times."),
            (self.physical.mismatches, f"{self.physical.mismatches} castings fell to another side than recorded."),
        )
        return [sentence for is_failure, sentence in checks if is_failure]

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON report. It begins with PROMISED_FIELDS."""
        whole = {**asdict(self.whole), "cpu_s": round(self.cpu_s, 2), "rss_mb": round(self.rss_mb, 1)}
        promised = {name: _round(whole.pop(name)) for name in PROMISED_FIELDS}
        return {
            **promised,
            "latency": "from captured_at to the verdict's append on the broker",
            "bad": self.failures,
            **whole,
            "physical_mismatches": self.physical.mismatches,
            "physical": asdict(self.physical),
            "lines": {line: {name: _round(getattr(found, name)) for name in PROMISED_FIELDS[:-2]} for line, found in self.by_line.items()},
            **self.extra,
        }


def make_report(
    records: TopicRecords,
    falls: Mapping[str, Sequence[CastingFall]],
    cost: tuple[float, float],
    extra: Mapping[str, Any],
) -> DemoReport:
    """Audits `records` and returns the report of the run.

    - `falls`: for each line, the simulated castings that left the belt.
    - `cost`: processor time in seconds, and peak memory in MiB, of all processes.
    - `extra`: further fields of the JSON report.
    """
    lines = frozenset(falls)
    all_falls = [fall for line_falls in falls.values() for fall in line_falls]
    whole = audit_records(records, lines, _list_counted_parts(all_falls))
    by_line = {line: audit_records(select_line(records, line), lines, _list_counted_parts(falls[line])) for line in falls}
    return DemoReport(whole, by_line, compare_falls(all_falls, records.sortings), *cost, extra)


def select_line(records: TopicRecords, line: str) -> TopicRecords:
    """Returns the records of one line."""
    return replace(
        records,
        pictures=tuple(picture for picture in records.pictures if picture.part.line == line),
        verdicts=tuple(record for record in records.verdicts if record.verdict.line == line),
        sortings=tuple(sorting for sorting in records.sortings if sorting.line == line),
    )


def write_report(report: DemoReport, file: Path) -> None:
    """Writes the report as JSON. The file appears only when it is complete."""
    write_atomically(file, json.dumps(report.as_json(), indent=2) + "\n")


def print_report(report: DemoReport, console: Console) -> None:
    """Prints a table of the lines, the totals of the run, and a sentence for each failure."""
    table = Table(title="Audit of the topics", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for name, header in _COLUMNS.items():
        table.add_column(header, justify="left" if name == "line" else "right", no_wrap=True)
    for line, found in [*report.by_line.items(), ("all", report.whole)]:
        table.add_row(line, *(_format_cell(name, getattr(found, name)) for name in list(_COLUMNS)[1:]))
    console.print()
    console.print(table)
    console.print()
    for sentence in _summarise(report):
        console.print(sentence, soft_wrap=not console.is_terminal)
    for sentence in report.failures:
        console.print(f"FAILED: {sentence}", style="bold red", soft_wrap=not console.is_terminal)
    if not report.failures:
        sentence = "Every part has its picture, its verdict and its sorting, and no gate moved twice for one part."
        console.print(sentence, style="bold green", soft_wrap=not console.is_terminal)


def _summarise(report: DemoReport) -> tuple[str, str]:
    found, physical = report.whole, report.physical
    return (
        f"Repeated moves: {found.repeated_moves}. Misses: {found.misses}. False alarms: {found.false_alarms}. "
        f"For review: {found.labels.get('review', 0)}. Repeated records: {found.repeated_pictures} pictures, "
        f"{found.repeated_verdicts} verdicts, {found.repeated_sortings} sortings. Dead letters: {found.dead_letters}. "
        f"Pictures that expired unjudged: {found.expired}.",
        f"{physical.fallen} castings fell, {physical.mismatches} of them to another side than recorded, and the blade struck "
        f"{physical.struck} of them. The run took {report.cpu_s:.1f} s of processor time and at most {report.rss_mb:.0f} MB of memory.",
    )


def _list_counted_parts(falls: Iterable[CastingFall]) -> list[PartId]:
    return [fall.part for fall in falls if fall.part]


def _describe_missing(found: AuditResult) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in found.lost_for.items() if count)


def _list_some(parts: Sequence[str]) -> str:
    return ", ".join(parts[:_MAX_PRINTED_PARTS]) + (" …" if len(parts) > _MAX_PRINTED_PARTS else "")


def _round(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _format_cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if name == "accuracy" else f"{value:.0f}"
