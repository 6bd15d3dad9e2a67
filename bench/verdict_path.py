"""Measures how long a verdict takes from Kafka to the board, and how long each of three steps takes.

For each part that the sorter reports, this process sends a verdict to Kafka. The measured time begins when the verdict is sent, and ends
when the board acknowledges the verdict. The steps are `fetch`, `send` and `board`:

    board, four lanes -> sorter -> HTTP: "part 345" -> this process -> castings.verdicts.<line> --fetch--> sorter --send--> serial port
    serial port --board--> acknowledgement

The sorter itself measures the steps (metric `castline_verdict_step_seconds`). About 5 ms of the step `board` are the time of the serial
line at 115200 baud. The simulated board runs on the same processors as the sorter, so the step `board` takes longer than with a real board.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from kafka import KafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from bench.inspector_process import CASTLINE, RoleProcess, create_bench_topics, make_settings_environment, run_broker
from bench.picture_feed import open_verdict_consumer
from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from streams.errors import CastlineError
from streams.identity import PartId, parse_time
from streams.records import ImageReference, Sorting, Verdict, make_verdict_id
from streams.settings import Settings
from streams.topics import TopicNames

ReportProgress = Callable[[str], None]

LANES = 4
# Seconds that a casting needs from photo-eye 1 to the gate. This time is long enough for every verdict, even on a busy machine.
_TRAVEL_S = 4.0
# The times of the first parts of each lane are left out, because the sorter and the broker are slow just after their start.
_SKIPPED_PARTS = 10
# The measurement fails if the sorter writes no record for this long.
_STALL_S = 60.0
_BOARD_START_S = 120.0


# The steps of a verdict from Kafka to the board, in order. Each step is mapped to its name in the output of `castline bench verdicts`.
STEPS = {"fetch": "Kafka to sorter", "send": "sorter to serial port", "board": "serial line and board"}
# A histogram. Each key is an upper bound in seconds. Its value is the number of measured times up to this bound.
Buckets = dict[float, float]


@dataclass(frozen=True)
class StepTimes:
    """How long one of the STEPS takes for a verdict, in milliseconds: the median and the 99th percentile.

    The two values are interpolated between the bounds of a histogram's buckets.
    """

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class VerdictPathTimes:
    """The times of `verdicts` verdicts, in milliseconds. `p50_ms` is the median, and `p99_ms` the 99th percentile.

    `per_s` is the number of parts a second on all lanes together. `late` counts the parts whose verdict the board never acknowledged.
    `steps` maps the name of each step (a key of STEPS) to its times.
    """

    verdicts: int
    per_s: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    late: int
    steps: dict[str, StepTimes]

    def as_json(self) -> dict[str, object]:
        """Returns the result as values that JSON can hold."""
        return asdict(self)


def measure_verdict_path(per_s: float, seconds: float, is_avr: bool, report_progress: ReportProgress) -> VerdictPathTimes:
    """Measures how long verdicts take from Kafka to a simulated board. Starts a temporary broker and a sorter for the measurement.

    The four lanes of the board together get `per_s` parts a second.

    If `is_avr` is True, the board runs the real firmware in the AVR simulator. Otherwise it is the simulated board in Python.
    """
    parts = round(per_s * seconds / LANES) + _SKIPPED_PARTS
    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        folder = Path(name)
        settings = _make_settings(folder)
        with run_broker(settings):
            create_bench_topics(settings)
            records = open_verdict_consumer(settings, TopicNames.sorted)
            with (
                _VerdictWriter(settings) as writer,
                _run_board(settings, folder, per_s / LANES, parts, is_avr),
                RoleProcess.of_settings(settings, folder, role="sorter") as sorter,
            ):
                report_progress(f"{parts} castings on each of {LANES} lanes, {per_s:g} a second in all")
                if not writer.is_warm.wait(_STALL_S):
                    raise CastlineError("The sorter reported too few parts. Run the command on a machine that is less busy.")
                before = sorter.read_metrics().decode()
                sortings = list(_read_sortings(records, parts * LANES))
                after = sorter.read_metrics().decode()
            records.close()
    steps = {step: read_step_times(step, before, after) for step in STEPS}
    return _evaluate(sortings, writer.sent_at, per_s, steps)


def read_step_times(step: str, before: str, after: str) -> StepTimes:
    """Returns how long the step `step` took for the verdicts of a period.

    `before` is the text of the sorter's metrics page at the beginning of the period, and `after` at its end. Raises CastlineError if the
    sorter measured no verdict in the period.
    """
    earlier, later = _read_buckets(step, before), _read_buckets(step, after)
    counts = {bound: count - earlier.get(bound, 0.0) for bound, count in sorted(later.items())}
    if not counts or not max(counts.values()):
        raise CastlineError(f"The sorter measured no verdict in the step {step}. Run the measurement for a longer time.")
    return StepTimes(*(round(_quantile(counts, share) * 1000, 1) for share in (0.5, 0.99)))


def _read_buckets(step: str, page: str) -> Buckets:
    """Returns the histogram of the step `step` on a metrics page, summed over all lines."""
    buckets: Buckets = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "castline_verdict_step_seconds_bucket" and sample.labels["step"] == step:
                bound = float(sample.labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + sample.value
    return buckets


def _quantile(counts: Buckets, share: float) -> float:
    """Returns the quantile `share` of a histogram, interpolated inside a bucket.

    The last bucket has no upper bound. If the quantile is in this bucket, returns the bucket's lower bound.
    """
    bounds = list(counts)
    rank = share * counts[bounds[-1]]
    index = next(number for number, bound in enumerate(bounds) if counts[bound] >= rank)
    low, below = (bounds[index - 1], counts[bounds[index - 1]]) if index else (0.0, 0.0)
    if np.isinf(bounds[index]):
        return low
    return low + (bounds[index] - low) * (rank - below) / (counts[bounds[index]] - below)


def _make_settings(folder: Path) -> Settings:
    port = str(folder / "board")
    return Settings.model_validate(
        {
            "broker": {"port": free_ports(2), "data_dir": folder / "kafka", "access": "open"},
            "service": {"run_dir": folder / "run"},
            "gateway": {"port": free_ports()},
            "sorter": {"journal_dir": folder / "journal"},
            "lines": [
                {"name": f"line-{lane}", "gate": {"port": port, "lane": lane, "travel_mm": round(_TRAVEL_S * 500)}}
                for lane in range(1, LANES + 1)
            ],
        }
    )


class _VerdictWriter:
    """Replaces the gateway and the inspector: sends a verdict for each part that the sorter reports.

    - `sent_at`: for each part, the time at which its verdict was given to the Kafka client.
    - `is_warm`: is set after the first verdicts. They are not measured, because the processes are slow just after their start.
    """

    def __init__(self, settings: Settings) -> None:
        self.sent_at: dict[PartId, datetime] = {}
        self.is_warm = threading.Event()
        self._names = TopicNames(settings.topics.prefix)
        self._producer = KafkaProducer(bootstrap_servers=settings.bootstrap, linger_ms=0)
        writer = self

        class PartsHandler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()
                writer.send(PartId(self.path.split("/")[2], body["run"], body["part"]), parse_time(body["captured_at"]))

            def log_message(self, format: str, *args: object) -> None:
                """Writes nothing, because the output would disturb the measurement."""

        self._server = ThreadingHTTPServer(("127.0.0.1", settings.gateway.port), PartsHandler)

    def __enter__(self) -> _VerdictWriter:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._producer.close()

    def send(self, part: PartId, captured_at: datetime) -> None:
        """Sends the verdict of a part. Every third part is a defect."""
        sha256, is_defect = f"{part.part:064x}", part.part % 3 == 0
        verdict = Verdict(
            line=part.line,
            run=part.run,
            part=part.part,
            verdict_id=make_verdict_id(part, sha256, "bench"),
            label="defect" if is_defect else "ok",
            defect_probability=0.9 if is_defect else 0.1,
            votes={},
            threshold=0.5,
            model="bench",
            captured_at=captured_at,
            received_at=captured_at,
            decided_at=datetime.now(UTC),
            image=ImageReference(topic="bench", partition=0, offset=part.part, sha256=sha256, width_px=300, height_px=300),
        )
        value = verdict.encode()
        self.sent_at[part] = datetime.now(UTC)
        self._producer.send(self._names.verdicts(part.line), value, part.key)
        if len(self.sent_at) >= _SKIPPED_PARTS * LANES:
            self.is_warm.set()


@contextmanager
def _run_board(settings: Settings, folder: Path, rate_per_s: float, parts: int, is_avr: bool) -> Iterator[None]:
    names = [word for line in settings.lines for word in ("--line", line.name)]
    command = [str(CASTLINE), "board", "simulate", *names, "--rate", str(rate_per_s), "--parts", str(parts), *(["--avr"] if is_avr else [])]
    log_file = folder / "board.log"
    with log_file.open("ab") as log:
        board = subprocess.Popen(bound_command(command), env=make_settings_environment(settings), stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + _BOARD_START_S
        while not (folder / "board").is_symlink():
            if board.poll() is not None or time.monotonic() > deadline_s:
                raise CastlineError(f"The simulated board did not start. The end of its log: {log_file.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        board.kill()
        board.wait()


def _read_sortings(records: object, count: int) -> Iterator[Sorting]:
    """Yields the first `count` sorting records. Raises CastlineError if none comes for a minute."""
    found, seen_s = 0, time.monotonic()
    while found < count:
        for batch in records.poll(timeout_ms=200).values():  # type: ignore[attr-defined]
            for record in batch:
                found, seen_s = found + 1, time.monotonic()
                yield Sorting.decode(record.value)
        if time.monotonic() - seen_s > _STALL_S:
            raise CastlineError(f"The sorter wrote only {found} of {count} records. Run the command on a machine that is less busy.")


def _evaluate(sortings: list[Sorting], sent_at: dict[PartId, datetime], per_s: float, steps: dict[str, StepTimes]) -> VerdictPathTimes:
    counted = [sorting for sorting in sortings if sorting.part > _SKIPPED_PARTS]
    ms = [(sorting.told_at - sent_at[sorting.part_id]).total_seconds() * 1000 for sorting in counted if sorting.told_at is not None]
    if not ms:
        raise CastlineError("The board acknowledged no verdict in time. Run the command on a machine that is less busy.")
    p50, p99 = np.percentile(ms, (50, 99))
    late = len(counted) - len(ms)
    return VerdictPathTimes(len(ms), per_s, round(float(p50), 1), round(float(p99), 1), round(max(ms), 1), late, steps)
