"""The report of a run: the fields that are promised first, then what helps to understand them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from deploy.demo.audit import Findings, audit
from deploy.demo.evidence import Evidence
from deploy.demo.physical import Comparison, Fall, compare
from streams.identity import PartId

PROMISED = (
    *("parts", "pictures", "verdicts", "sorted", "diverted", "lost", "repeated_moves", "late"),
    *("accuracy", "p50_ms", "p99_ms", "cpu_s", "rss_mb"),
)
# Narrow enough for 80 columns.
_COLUMNS = {
    **{name: name for name in ("line", "parts", "pictures", "verdicts", "sorted", "diverted", "lost", "late")},
    **{"accuracy": "right", "p50_ms": "p50 ms", "p99_ms": "p99 ms"},
}


@dataclass(frozen=True)
class Report:
    """Findings of the whole run and of each line, the physical truth, and what the run cost."""

    findings: Findings
    by_line: Mapping[str, Findings]
    physical: Comparison
    cpu_s: float
    rss_mb: float
    extra: Mapping[str, Any]

    @property
    def bad(self) -> list[str]:
        """Why the exit status is 1; empty when it is 0."""
        found = self.findings
        return [
            sentence
            for wrong, sentence in (
                (not found.parts, "no part was seen"),
                (found.lost, f"{found.lost} parts were lost, they lack {_lacks(found)}: {_some(found.lost_parts)}"),
                (found.repeated_moves, f"{found.repeated_moves} times a gate moved again for the same part"),
                (self.physical.mismatches, f"{self.physical.mismatches} castings fell to another side than recorded"),
            )
            if wrong
        ]

    def as_json(self) -> dict[str, Any]:
        """The promised fields first; `latency` says what p50_ms and p99_ms are between."""
        whole = {**asdict(self.findings), "cpu_s": round(self.cpu_s, 2), "rss_mb": round(self.rss_mb, 1)}
        promised = {name: _rounded(whole.pop(name)) for name in PROMISED}
        return {
            **promised,
            "latency": "from captured_at to the verdict's append on the broker",
            "bad": self.bad,
            **whole,
            "physical_mismatches": self.physical.mismatches,
            "physical": asdict(self.physical),
            "lines": {line: {name: _rounded(getattr(found, name)) for name in PROMISED[:-2]} for line, found in self.by_line.items()},
            **self.extra,
        }


def report_on(
    evidence: Evidence,
    falls: Mapping[str, Sequence[Fall]],
    cost: tuple[float, float],
    extra: Mapping[str, Any],
) -> Report:
    """`falls`: what the boards' logs of each line say; `cost`: processor seconds and peak MiB of all processes."""
    lines = frozenset(falls)
    whole = audit(evidence, lines, _counted(fall for line in falls.values() for fall in line))
    by_line = {line: audit(only(evidence, line), lines, _counted(falls[line])) for line in falls}
    return Report(whole, by_line, compare([fall for line in falls.values() for fall in line], evidence.sortings), *cost, extra)


def only(evidence: Evidence, line: str) -> Evidence:
    """The records of one line."""
    return replace(
        evidence,
        pictures=tuple(picture for picture in evidence.pictures if picture.part.line == line),
        judged=tuple(judged for judged in evidence.judged if judged.verdict.line == line),
        sortings=tuple(sorting for sorting in evidence.sortings if sorting.line == line),
    )


def write_report(report: Report, file: Path) -> None:
    """As JSON; written under another name first, so that a reader never finds half of it."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    partial.replace(file)


def print_report(report: Report, console: Console) -> None:
    """For people: a table by line, the sums, and what is bad."""
    table = Table(title="Audit of the topics", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for name, header in _COLUMNS.items():
        table.add_column(header, justify="left" if name == "line" else "right", no_wrap=True)
    for line, found in [*report.by_line.items(), ("all", report.findings)]:
        table.add_row(line, *(_shown(name, getattr(found, name)) for name in list(_COLUMNS)[1:]))
    console.print()
    console.print(table)
    console.print()
    found, physical = report.findings, report.physical
    console.print(
        f"{found.repeated_moves} repeated moves, {found.misses} misses, {found.false_alarms} false alarms, "
        f"{found.labels.get('review', 0)} for review; {found.repeated_pictures} pictures, {found.repeated_verdicts} verdicts and "
        f"{found.repeated_sortings} sortings came more than once; {found.dead_letters} dead letters",
        soft_wrap=not console.is_terminal,
    )
    console.print(
        f"{physical.fallen} castings fell, {physical.mismatches} to another side than recorded, {physical.struck} struck by the blade; "
        f"{report.cpu_s:.1f} s of processor, at most {report.rss_mb:.0f} MB",
        soft_wrap=not console.is_terminal,
    )
    for sentence in report.bad:
        console.print(f"BAD: {sentence}", style="bold red", soft_wrap=not console.is_terminal)
    if not report.bad:
        console.print(
            "Every part has its picture, its verdict and its place; no gate moved twice for one.",
            style="bold green",
            soft_wrap=not console.is_terminal,
        )


def _counted(falls: Iterable[Fall]) -> list[PartId]:
    return [fall.part for fall in falls if fall.part]


def _lacks(found: Findings) -> str:
    return ", ".join(f"{count} a {what}" for what, count in found.lost_for.items() if count)


def _some(parts: Sequence[str]) -> str:
    return ", ".join(parts[:5]) + (" …" if len(parts) > 5 else "")


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if name == "accuracy" else f"{value:.0f}"
