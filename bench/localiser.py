"""Measures how many heat maps the localiser makes, and whether it slows down an inspector on the same machine.

The inspector is measured in short windows of time, with and without the localiser. For a window without the localiser, the signal SIGSTOP
pauses the localiser's process. Each window must be shorter than Kafka's session time-out. After a longer pause, Kafka would remove the
localiser from its consumer group.
"""

from __future__ import annotations

import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.compare import RatioEstimate, estimate_median
from bench.inspector_process import RoleProcess, create_bench_topics, make_bench_settings, run_broker
from bench.picture_feed import PictureFeed, VerdictTimes
from streams.errors import BrokerError
from streams.settings import Settings
from streams.topics import TopicNames

ReportProgress = Callable[[str], None]

_LINES = 3
_WARM_UP_PICTURES = 512
# After the localiser was paused or continued, the bench waits this many seconds before the next measurement, until the speeds of all
# processes are steady.
_SETTLE_S = 1.0
_FIRST_FINDING_S = 180.0


@dataclass(frozen=True)
class LocaliserCost:
    """The speeds of the inspector and of the localiser, as medians over all windows.

    - `ratio`: the inspector's speed with the localiser, divided by the inspector's speed without the localiser.
    - `with_per_s`, `without_per_s`: the inspector's speed with and without the localiser, in pictures a second.
    - `findings_beside_per_s`: heat maps a second while an inspector runs.
    - `findings_alone_per_s`: heat maps a second while no inspector runs.
    - `processor_ms_per_finding`: processor time of the localiser for one heat map.
    - `processor_ratio`: like `ratio`, but for the inspector's processor time for one picture instead of its speed. Other programs on the
      machine have little effect on `processor_ratio`.
    - `localiser_processors`: number of processors that the localiser uses while an inspector runs.
    """

    ratio: RatioEstimate
    with_per_s: float
    without_per_s: float
    findings_beside_per_s: float
    findings_alone_per_s: float
    processor_ms_per_finding: float
    processor_ratio: RatioEstimate
    localiser_processors: float
    windows: list[tuple[float, float]]

    def as_json(self) -> dict[str, Any]:
        """Returns the result as values that JSON can hold."""
        return asdict(self)


def measure_localiser(
    base: Settings, pictures: list[bytes], pairs: int, window_s: float, findings_s: float, report_progress: ReportProgress
) -> LocaliserCost:
    """Measures an inspector alternately with and without the localiser. Then measures the localiser alone.

    The inspector is measured 2 * `pairs` times, each time for `window_s` seconds. The measurement of the localiser alone takes `findings_s`
    seconds.

    `base` gives the settings of the sections [model], [batch], [inspector] and [pictures]. Raises BrokerError if a process fails or makes
    no heat map.
    """
    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        folder = Path(name)
        settings = make_bench_settings(base, folder, _LINES)
        lines = tuple(line.name for line in settings.lines)
        settings = settings.model_copy(
            update={"inspector": settings.inspector.model_copy(update={"localise": True, "explain_lines": lines})}
        )
        with run_broker(settings):
            create_bench_topics(settings)
            bench = _LocaliserBench(settings, folder, pictures, window_s, report_progress)
            try:
                return bench.measure(pairs, findings_s)
            finally:
                bench.close()


@dataclass(frozen=True)
class _Window:
    """The result of a measurement of some seconds: pictures per second, heat maps per second, and processor time."""

    pictures_per_s: float
    findings_per_s: float
    processor_ms_per_picture: float
    localiser_processors: float


class _LocaliserBench:
    def __init__(self, settings: Settings, folder: Path, pictures: list[bytes], window_s: float, report_progress: ReportProgress) -> None:
        self._inspector = RoleProcess.of_settings(settings, folder)
        self._localiser = RoleProcess.of_settings(settings, folder, role="localiser")
        self._feed = PictureFeed(settings, pictures)
        self._verdicts, self._findings = VerdictTimes(settings), VerdictTimes(settings, TopicNames.findings)
        self._window_s = window_s
        self._report_progress = report_progress

    def measure(self, pairs: int, findings_s: float) -> LocaliserCost:
        with self._localiser:
            with self._inspector:
                self._warm_up()
                windows: list[tuple[_Window, _Window]] = []
                for number in range(1, pairs + 1):
                    # In one pair the measurement with the localiser comes first, in the next pair the one without it. So a change of the
                    # machine's speed affects both measurements equally.
                    pair = {is_running: self._measure_window(is_running) for is_running in ((True, False) if number % 2 else (False, True))}
                    windows.append((pair[True], pair[False]))
                    with_per_s, without_per_s = pair[True].pictures_per_s, pair[False].pictures_per_s
                    self._report_progress(
                        f"pair {number} of {pairs}: {with_per_s:.1f}/s with the localiser, {without_per_s:.1f}/s without, ratio "
                        f"{with_per_s / without_per_s:.3f}"
                    )
                self._continue_localiser()
            alone_per_s, processor_ms = self._measure_findings(findings_s)
        return LocaliserCost(
            ratio=estimate_median([with_it.pictures_per_s / without.pictures_per_s for with_it, without in windows]),
            with_per_s=statistics.median(with_it.pictures_per_s for with_it, _ in windows),
            without_per_s=statistics.median(without.pictures_per_s for _, without in windows),
            findings_beside_per_s=statistics.median(with_it.findings_per_s for with_it, _ in windows),
            findings_alone_per_s=alone_per_s,
            processor_ms_per_finding=processor_ms,
            processor_ratio=estimate_median(
                [with_it.processor_ms_per_picture / without.processor_ms_per_picture for with_it, without in windows]
            ),
            localiser_processors=statistics.median(with_it.localiser_processors for with_it, _ in windows),
            windows=[(with_it.pictures_per_s, without.pictures_per_s) for with_it, without in windows],
        )

    def close(self) -> None:
        self._verdicts.close()
        self._findings.close()

    def _warm_up(self) -> None:
        self._feed.send(_WARM_UP_PICTURES)
        self._verdicts.wait_for(_WARM_UP_PICTURES, self._inspector)
        deadline_s = time.monotonic() + _FIRST_FINDING_S
        while not self._findings.count():
            self._localiser.check_alive()
            if time.monotonic() > deadline_s:
                raise BrokerError(f"The localiser made no heat map within {_FIRST_FINDING_S:.0f} s. Run the bench again.")
            time.sleep(0.2)

    def _measure_window(self, is_running: bool) -> _Window:
        inspector, localiser = psutil.Process(self._inspector.pid), psutil.Process(self._localiser.pid)
        self._fill_queue()
        if is_running:
            self._continue_localiser()
        else:
            localiser.send_signal(signal.SIGSTOP)
        time.sleep(_SETTLE_S)
        verdicts, findings, start_s = self._verdicts.count(), self._findings.count(), time.monotonic()
        inspector_s, localiser_s = _read_processor_s(inspector), _read_processor_s(localiser)
        time.sleep(self._window_s)
        self._inspector.check_alive()
        seconds, judged = time.monotonic() - start_s, self._verdicts.count() - verdicts
        if self._verdicts.count() >= self._feed.sent_count:
            raise BrokerError("The inspector judged all pictures before the window ended. Run the bench again with a smaller --seconds.")
        if not judged:
            raise BrokerError("The inspector judged no picture in one of the measurements. Run the bench again with more --seconds.")
        return _Window(
            judged / seconds,
            (self._findings.count() - findings) / seconds,
            (_read_processor_s(inspector) - inspector_s) / judged * 1000,
            (_read_processor_s(localiser) - localiser_s) / seconds,
        )

    def _fill_queue(self) -> None:
        before, start_s = self._verdicts.count(), time.monotonic()
        time.sleep(_SETTLE_S)
        rate_per_s = max(200.0, (self._verdicts.count() - before) / (time.monotonic() - start_s))
        waiting = self._feed.sent_count - self._verdicts.count()
        self._feed.send(max(0, int(2 * rate_per_s * (self._window_s + 2 * _SETTLE_S)) - waiting))

    def _continue_localiser(self) -> None:
        psutil.Process(self._localiser.pid).send_signal(signal.SIGCONT)

    def _measure_findings(self, seconds: float) -> tuple[float, float]:
        """Measures the localiser while no inspector runs. Returns heat maps per second, and the processor time of one heat map in ms.

        Raises BrokerError if the localiser makes no heat map within `seconds`.
        """
        process = psutil.Process(self._localiser.pid)
        before, before_s, start_s = self._findings.count(), _read_processor_s(process), time.monotonic()
        time.sleep(seconds)
        self._localiser.check_alive()
        count, taken_s = self._findings.count() - before, _read_processor_s(process) - before_s
        if count <= 0:
            raise BrokerError(f"The localiser made no heat map within {seconds:.0f} s. Run the bench again with more --findings-seconds.")
        return count / (time.monotonic() - start_s), taken_s / count * 1000


def _read_processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
