"""A small run of the campaign in which nothing went wrong, as the files of its folder. Tests change it and judge it again."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

BEGIN = 1_800_000_000.0
LINES = ("north", "south")
CASTINGS = 60
TRAVEL_S = 5.0
# The castings with these numbers show what a fault may do to a casting.
KILLED, LATE, FORGOTTEN, UNCOUNTED, UNMATCHED, RECOVERED, REFUSED, REPEATED = 11, 12, 31, 32, 13, 14, 15, 16
RESET_AT = BEGIN + FORGOTTEN + 2.0
GATEWAY_RUN = 1_799_999_000

Line = dict[str, Any]


@dataclass
class SampleRun:
    """The files of a folder, each a list of JSON objects, and the records of the topics."""

    plan: Line
    end: Line
    files: dict[str, list[Line]]
    topics: dict[str, list[Line]] = field(default_factory=dict)

    def copy(self) -> SampleRun:
        return copy.deepcopy(self)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(self.plan))
        (folder / "end.json").write_text(json.dumps(self.end))
        for name, lines in self.files.items():
            (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        (folder / "topics").mkdir(exist_ok=True)
        for name, lines in self.topics.items():
            (folder / "topics" / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return folder

    def casting(self, number: int, line: str = LINES[0]) -> Line:
        return next(each for each in self.files["castings"] if each.get("casting") == number and each["line"] == line)

    def find_json(self, topic: str, number: int, line: str = LINES[0]) -> Line:
        """Returns the record about a casting in the topic `verdicts` or `sorted`."""
        casting = self.casting(number, line)
        return next(each for each in self.topics[f"castings.{topic}.{line}"] if _about(each) == (casting["run"], casting["part"]))

    def change(self, record: Line, **fields: Any) -> None:
        """Replaces fields in the JSON value of a record."""
        record["value"] = encode(json.loads(base64.b64decode(record["value"])) | fields)

    def number_records(self, topic: str) -> None:
        """Gives the records of a topic with one partition the offsets that belong to their times."""
        self.topics[topic].sort(key=lambda record: record["timestamp"])
        for offset, record in enumerate(self.topics[topic]):
            record["offset"] = offset

    def add_record(self, topic: str, at: float, value: Line | None, headers: dict[str, str] | None = None, **given: Any) -> Line:
        records = self.topics.setdefault(topic, [])
        partition = given.get("partition", 0)
        offset = max((each["offset"] for each in records if each["partition"] == partition), default=-1) + 1
        record = {
            "partition": partition,
            "offset": offset,
            "timestamp": at * 1000,
            "key": None,
            "value": None if value is None else encode(value),
            "headers": [[name, base64.b64encode(text.encode()).decode()] for name, text in (headers or {}).items()],
            **given,
        }
        records.append(record)
        return record


def encode(value: Line) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def decode(record: Line) -> Line:
    fields: Line = json.loads(base64.b64decode(record["value"]))
    return fields


def _about(record: Line) -> tuple[int, int]:
    fields = decode(record)
    return fields["run"], fields["part"]


def format_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def make_sample_run() -> SampleRun:
    """Returns a run of a minute with five faults, after which every casting and every picture is where it belongs."""
    plan = {"seed": 1, "minutes": 1, "lines": LINES, "machines": ["a", "b"], "prefix": "castings", "bootstrap": "", "runtime": "openvino"}
    end = {"last_fault_ended_at": BEGIN + 50, "stopped_at": BEGIN + CASTINGS + 130, "topics_dumped": True}
    names = ("castings", "uploads", "faults", "memory", "alarms", "injected")
    run = SampleRun(plan, end, {name: [] for name in names})
    for line in LINES:
        for number in range(1, CASTINGS + 1):
            _add_casting(run, line, number)
        run.files["castings"].append({"board": "reset", "line": line, "at": RESET_AT})
        run.number_records(f"castings.verdicts.{line}")
        run.number_records(f"castings.sorted.{line}")
    _add_faults(run)
    _add_injected_record(run)
    for second in range(0, 60, 5):
        sample = {"machine": "a", "role": "inspector", "slot": "1", "pid": 7, "rss_bytes": 400 * 2**20, "pss_bytes": 300 * 2**20}
        run.files["memory"].append(sample | {"at": BEGIN + second})
    return run


def _add_faults(run: SampleRun) -> None:
    faults = [
        ("kill-inspector", "a", 10.5, 10.5, True, None),
        ("disk-full", "spool", 20.0, 24.0, True, None),
        ("unplug-board", "board", 30.0, 33.0, True, None),
        ("kill-broker", "broker", 45.0, 45.0, False, None),
        ("kill-gateway", "gateway", 45.2, 50.0, False, None),
    ]
    for number, (kind, target, began_s, ended_s, alone, loses) in enumerate(faults, 1):
        times = {"began_at": BEGIN + began_s, "ended_at": BEGIN + ended_s}
        run.files["faults"].append(
            times | {"number": number, "kind": kind, "target": target, "alone": alone, "loses": loses, "error": None}
        )
    run.files["alarms"].append({"at": BEGIN + 21, "source": "gateway", "name": "SpoolDiskFilling", "line": None, "state": "firing"})


def _add_injected_record(run: SampleRun) -> None:
    """Adds a damaged image record that the campaign has sent, and the dead letter about it."""
    topic = f"castings.images.{LINES[0]}"
    record = run.add_record(topic, BEGIN + 20, None, {}, sha256="0" * 64)
    run.files["injected"].append({"topic": topic, "partition": 0, "offset": record["offset"]})
    about = {"dead-topic": topic, "dead-partition": "0", "dead-offset": str(record["offset"]), "dead-reason": "identity"}
    run.add_record("castings.dead-letters", BEGIN + 20.1, None, about)


def _add_casting(run: SampleRun, line: str, number: int) -> None:
    eye1_at = BEGIN + number
    eye2_at = eye1_at + TRAVEL_S
    board_run = 1 if number < FORGOTTEN + 3 else 2
    part = None if number == UNCOUNTED else number if board_run == 1 else number - FORGOTTEN - 2
    label = ("ok", "ok", "defect", "review")[number % 4]
    is_untold = number in (LATE, UNCOUNTED, UNMATCHED, FORGOTTEN)
    is_diverted = label != "ok" or is_untold
    casting = {
        "casting": number,
        "line": line,
        "is_defect": label == "defect",
        "eye1_at": eye1_at,
        "eye2_at": eye2_at,
        "run": None if part is None else board_run,
        "part": part,
        "left_by": "chute" if is_diverted else "belt",
        "gate_moves": int(is_diverted),
    }
    run.files["castings"].append(casting)
    if is_diverted:
        run.files["castings"].append({"gate": "moved", "line": line, "at": eye2_at})
    _add_picture(run, line, number, casting, label)
    if part is not None:
        _add_sorting(run, casting, label, is_untold)


def _add_picture(run: SampleRun, line: str, number: int, casting: Line, label: str) -> None:
    sha256, sent_at = hashlib.sha256(f"{line} {number}".encode()).hexdigest(), casting["eye1_at"] + 0.1
    acknowledged_at = None if number in (RECOVERED, REFUSED) else sent_at + 0.02
    upload = {"line": line, "casting": number, "run": casting["run"], "part": casting["part"], "sha256": sha256}
    status = 200 if acknowledged_at else 503 if number == REFUSED else None
    run.files["uploads"].append(upload | {"sent_at": sent_at, "status": status, "acknowledged_at": acknowledged_at})
    if number == REFUSED:
        return
    is_matched = number not in (UNCOUNTED, UNMATCHED)
    identity = {"run": casting["run"] if is_matched else GATEWAY_RUN, "part": casting["part"] if is_matched else number}
    image_topic = f"castings.images.{line}"
    image = run.add_record(image_topic, sent_at + 0.1, None, {"sha256": sha256}, sha256=sha256, partition=number % 4)
    verdict = {
        "line": line,
        **identity,
        "verdict_id": f"{line}-{number}",
        "label": label,
        "reason": "doubt" if label == "review" else "",
        "model": "demo",
        "decision": "",
        "image": {"topic": image_topic, "partition": image["partition"], "offset": image["offset"], "sha256": sha256},
    }
    # The verdict of casting LATE came after its casting had passed photo-eye 2, because the inspector was killed.
    judged_at = casting["eye2_at"] + 0.3 if number == LATE else sent_at + 0.3
    for repeat in range(1 + (number == REPEATED)):
        run.add_record(f"castings.verdicts.{line}", judged_at + repeat, verdict)


def _add_sorting(run: SampleRun, casting: Line, label: str, is_untold: bool) -> None:
    number, eye2_at = casting["casting"], casting["eye2_at"]
    sorting = {
        "line": casting["line"],
        "run": casting["run"],
        "part": casting["part"],
        "event": 0 if number == FORGOTTEN else casting["part"] + 100,
        "action": "untracked" if number == FORGOTTEN else "diverted" if casting["left_by"] == "chute" else "passed",
        "reason": "board-restarted" if number == FORGOTTEN else "no-verdict" if is_untold else "verdict",
        "code": 0,
        "label": None if is_untold else label,
        "gate_moved": bool(casting["gate_moves"]) and number != FORGOTTEN,
        "told_at": None if is_untold else format_time(casting["eye1_at"] + 0.5),
        "at_gate_at": format_time(eye2_at),
        "sorted_at": format_time(eye2_at + 0.1),
    }
    topic = f"castings.sorted.{casting['line']}"
    run.add_record(topic, eye2_at + 0.1, sorting)
    if number == LATE:
        run.add_record(topic, eye2_at + 0.5, sorting | {"reason": "late-verdict", "label": label, "late": True})
