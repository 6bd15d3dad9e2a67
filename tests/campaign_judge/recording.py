"""What a run of the campaign has written into its folder."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

# Faults are told apart from each other and from the time without faults by this distance. Until then, a plant may still recover.
AFTERMATH_S = 60.0


@dataclass(frozen=True)
class Plan:
    """How the run was started. `silence_limits` maps a kind of fault to its limit as the campaign states it."""

    lines: tuple[str, ...]
    prefix: str = "castings"
    seed: int | None = None
    minutes: float | None = None
    machines: tuple[str, ...] = ()
    bootstrap: str = ""
    runtime: str = ""
    version: str = ""
    safe: str = "divert"
    on_review: str = "divert"
    silence_limits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Casting:
    """A casting that has left the belt. `run` and `part` are None if the board did not count the casting."""

    line: str
    casting: int
    is_defect: bool
    eye1_at: float | None
    eye2_at: float | None
    run: int | None
    part: int | None
    left_by: str
    gate_moves: int

    @property
    def name(self) -> str:
        number = "not counted" if self.part is None else f"part {self.run}:{self.part}"
        return f"{self.line} casting {self.casting} ({number})"


@dataclass(frozen=True)
class Upload:
    """One attempt of a camera to send a picture."""

    line: str
    casting: int | None
    sha256: str
    sent_at: float
    acknowledged_at: float | None
    status: int | None = None
    run: int | None = None
    part: int | None = None
    judged_part: str | None = None


@dataclass(frozen=True)
class InjectedFault:
    """A fault of the plan. `error` says why the fault could not be injected. `loses` names what the stated order may drop in it."""

    number: int
    kind: str
    target: str
    began_at: float
    ended_at: float
    alone: bool
    loses: Any = None
    error: str | None = None

    @property
    def name(self) -> str:
        return f"fault {self.number} ({self.kind}{' of ' + self.target if self.target else ''})"


@dataclass(frozen=True)
class MemorySample:
    """The memory of one process at one time."""

    at: float
    machine: str
    role: str
    slot: str
    pid: int
    rss_bytes: int
    pss_bytes: int | None = None


@dataclass
class Recording:
    """All that the run has written, except the topics. `gate_moves` and `resets` map a line to times."""

    plan: Plan
    castings: list[Casting] = field(default_factory=list)
    gate_moves: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    resets: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    uploads: list[Upload] = field(default_factory=list)
    injected_records: list[tuple[str, int, int]] = field(default_factory=list)
    planned_faults: list[InjectedFault] = field(default_factory=list)
    memory: list[MemorySample] = field(default_factory=list)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    last_fault_ended_at: float = 0.0
    stopped_at: float = 0.0

    @classmethod
    def read(cls, folder: Path) -> Recording:
        """Reads all files of `folder`. Raises OSError if `plan.json` or `end.json` is missing."""
        plan, end = json.loads((folder / "plan.json").read_text()), json.loads((folder / "end.json").read_text())
        recording = cls(_select(Plan, plan | {name: tuple(plan.get(name) or ()) for name in ("lines", "machines")}))
        recording.last_fault_ended_at = float(end.get("last_fault_ended_at") or 0.0)
        recording.stopped_at = float(end["stopped_at"])
        for line in read_lines(folder / "castings.jsonl"):
            if "gate" in line:
                recording.gate_moves[line["line"]].append(float(line["at"]))
            elif "board" in line:
                recording.resets[line["line"]].append(float(line["at"]))
            else:
                recording.castings.append(_select(Casting, line))
        recording.uploads = [_select(Upload, line) for line in read_lines(folder / "uploads.jsonl")]
        recording.injected_records = [
            (line["topic"], int(line["partition"]), int(line["offset"])) for line in read_lines(folder / "injected.jsonl")
        ]
        recording.planned_faults = [_read_fault(line) for line in read_lines(folder / "faults.jsonl")]
        recording.memory = [_select(MemorySample, line) for line in read_lines(folder / "memory.jsonl")]
        recording.alarms = list(read_lines(folder / "alarms.jsonl"))
        return recording

    @cached_property
    def faults(self) -> list[InjectedFault]:
        """The faults that were really injected, in the order of their begin."""
        return sorted((fault for fault in self.planned_faults if not fault.error), key=lambda fault: fault.began_at)

    @cached_property
    def castings_by_part(self) -> dict[tuple[str, int, int], Casting]:
        return {
            (casting.line, casting.run, casting.part): casting
            for casting in self.castings
            if casting.run is not None and casting.part is not None
        }

    def faults_between(self, begin_at: float, end_at: float, aftermath_s: float = AFTERMATH_S) -> list[InjectedFault]:
        """Returns the faults that were active between the two times, or had ended at most `aftermath_s` before, by their begin.

        A fault with an error is among them, because it can have had a part of its effect.
        """
        near = [fault for fault in self.planned_faults if fault.began_at <= end_at and fault.ended_at + aftermath_s >= begin_at]
        return sorted(near, key=lambda fault: fault.began_at)

    def pair_of(self, fault: InjectedFault) -> tuple[InjectedFault, ...]:
        """Returns the fault, and the other fault of its pair if it was injected as one of two."""
        paired = sorted((each for each in self.planned_faults if not each.alone), key=lambda each: each.number)
        if fault.alone or fault not in paired:
            return (fault,)
        first = paired.index(fault) // 2 * 2
        return tuple(paired[first : first + 2])


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yields the JSON objects of a file. A missing file has none. The last line may be cut, because a run can be killed."""
    lines = file.read_text().splitlines() if file.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError:
            if number < len(lines):
                raise


def _select(kind: Any, values: Mapping[str, Any]) -> Any:
    """Makes a dataclass from the values that it has fields for."""
    return kind(**{name: values[name] for name in kind.__dataclass_fields__ if name in values})


def _read_fault(line: dict[str, Any]) -> InjectedFault:
    began_at = float(line.get("began_at") or 0.0)
    ended_at = float(line.get("ended_at") or began_at)
    times = {"began_at": began_at, "ended_at": ended_at, "alone": bool(line.get("alone", True)), "target": str(line.get("target") or "")}
    fault: InjectedFault = _select(InjectedFault, line | times)
    return fault
