"""Runs the demo once: starts the processes, shows the lines, lets the belts run empty, and audits the topics at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import psutil
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from deploy.demo.audit import read_topic_records
from deploy.demo.foundry import Foundry
from deploy.demo.line_states import LineStates
from deploy.demo.report import DemoReport, make_report, read_falls
from deploy.demo.terminal_view import LineStatus, ProcessStatus, Screen, Snapshot
from deploy.demo.topic_monitor import LineFigures, TopicMonitor
from deploy.supervisor import Journal, State, StopRequests, Supervisor
from deploy.supervisor.plant_roles import BROKER_STOP, INSPECTORS_STOP, sorter_name
from deploy.supervisor.supervisor import TICK_S
from streams.errors import CastlineError
from streams.kafka import make_client_arguments, open_client
from streams.plant_states import LineCounts
from streams.topics import TopicNames

_SHOW_EVERY_S = 0.5
_MEASURE_EVERY_S = 1.0
# The view shows how many processor cores the demo uses, as a mean over at least this many seconds.
_CORES_WINDOW_S = 2.0
# At the end, the demo waits for missing verdicts until no verdict has come for this many seconds.
_BACKLOG_TIMEOUT_S = 15.0
_MAX_WARNINGS = 3
_WARNING_SHOWN_S = 20.0


class DemoInterruptedError(CastlineError):
    """Raised if the user stops the demo before the demo can audit the topics."""


class ProcessUsage:
    """Measures the processor time (seconds) and the memory (MiB) of processes and their children.

    Call `measure` about every second. A process that has ended keeps the processor time of its last measurement.
    """

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self.current_mb = 0.0
        self.peak_mb_by_role: dict[str, float] = defaultdict(float)
        # Role and processor seconds of each process. The key is process id and creation time, because process ids are reused.
        self._cpu_s: dict[tuple[int, float], tuple[str, float]] = {}
        self._processes: dict[int, psutil.Process] = {}

    @property
    def cpu_s(self) -> float:
        """User and system time of all processes so far, in seconds."""
        return sum(seconds for _, seconds in self._cpu_s.values())

    def cpu_s_by_role(self) -> dict[str, float]:
        by_role: dict[str, float] = defaultdict(float)
        for role, seconds in self._cpu_s.values():
            by_role[role] += seconds
        return dict(by_role)

    def measure(self, pids: Mapping[str, int]) -> None:
        """Measures the running processes. `pids` maps each role to its process id."""
        total_mb = 0.0
        for role, pid in pids.items():
            role_mb = sum(self._measure_process(role, process) for process in self._find_family(pid)) / 2**20
            self.peak_mb_by_role[role] = max(self.peak_mb_by_role[role], role_mb)
            total_mb += role_mb
        self.current_mb = total_mb
        self.peak_mb = max(self.peak_mb, total_mb)

    def _find_family(self, pid: int) -> list[psutil.Process]:
        try:
            parent = self._processes.setdefault(pid, psutil.Process(pid))
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            self._processes.pop(pid, None)
            return []

    def _measure_process(self, role: str, process: psutil.Process) -> float:
        try:
            with process.oneshot():
                times = process.cpu_times()
                self._cpu_s[process.pid, process.create_time()] = (role, times.user + times.system)
                return float(process.memory_info().rss)
        except psutil.NoSuchProcess:
            return 0.0


class DemoRun:
    """One run of the demo. `seconds` is the length of the run. With None the demo runs until Ctrl-C."""

    def __init__(self, foundry: Foundry, seconds: float | None, screen: Screen, requests: StopRequests, journal: Journal) -> None:
        self._foundry = foundry
        self._seconds = seconds
        self._screen = screen
        self._requests = requests
        self._journal = journal
        self._supervisor = Supervisor(foundry.roles, journal)
        self._monitor = TopicMonitor(foundry.gated_settings)
        self._line_states = LineStates(foundry.gated_settings)
        self._usage = ProcessUsage()
        self._started_at = time.monotonic()
        self._phase = "starting"
        self._phase_started_at = self._started_at
        self._running_s = 0.0
        self._first_verdict_s: float | None = None
        self._shown_at = self._measured_at = 0.0
        self._last_cpu: tuple[float, float] = (self._started_at, 0.0)
        self._cores = 0.0

    def run(self) -> DemoReport:
        """Runs the foundry until the time is over or the user stops it. Returns the report of the audit. Call this method in the main
        thread.

        Raises CastlineError if a process cannot run. Raises DemoInterruptedError if the user stops the demo before all lines run, or stops
        it a second time.
        """
        try:
            self._start()
            self._let_run()
            self._drain()
            report = self._audit()
            self._enter_phase("stopping")
            self._supervisor.stop(self._requests.is_kill_requested, meanwhile=self._refresh)
            return report
        finally:
            self._monitor.close()
            self._supervisor.kill_all()

    def _start(self) -> None:
        self._tick_until(lambda: self._supervisor.processes["topics"].state is State.ENDED)
        self._stamp_verdicts_on_append()
        self._monitor.start()
        self._tick_until(lambda: self._supervisor.all_ready)

    def _let_run(self) -> None:
        self._enter_phase("running")
        started_at = time.monotonic()
        end = started_at + self._seconds if self._seconds else None
        self._tick_until(lambda: self._requests.is_stop_requested() or (end is not None and time.monotonic() >= end), may_interrupt=False)
        self._running_s = time.monotonic() - started_at

    def _drain(self) -> None:
        """Lets the belts run empty, waits for the last verdicts, and stops all processes except the broker."""
        self._enter_phase("draining")
        self._supervisor.stop(self._requests.is_kill_requested, before=INSPECTORS_STOP, meanwhile=self._refresh)
        self._wait_for_backlog()
        self._supervisor.stop(self._requests.is_kill_requested, before=BROKER_STOP, meanwhile=self._refresh)
        if self._requests.is_kill_requested():
            raise DemoInterruptedError("The demo was stopped twice, so the topics of this run were not audited.")

    def _wait_for_backlog(self) -> None:
        pictures = self._count_pictures()
        verdicts, changed_at = -1, time.monotonic()
        while not self._requests.is_kill_requested():
            self._refresh()
            now, count = time.monotonic(), sum(figures.verdicts for figures in self._monitor.compute_figures().values())
            if count != verdicts:
                verdicts, changed_at = count, now
            if verdicts >= pictures:
                return
            if now - changed_at > _BACKLOG_TIMEOUT_S:
                missing = pictures - verdicts
                self._journal.warn(f"{missing} of {pictures} pictures have no verdict, and none has come for {_BACKLOG_TIMEOUT_S:.0f} s")
                return
            time.sleep(TICK_S)

    def _count_pictures(self) -> int:
        names = TopicNames(self._foundry.settings.topics.prefix)
        consumer = open_client(KafkaConsumer, **make_client_arguments(self._foundry.settings, "demo"), group_id=None)
        try:
            topics = [names.images(line) for line in self._foundry.lines]
            partitions = [TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic) or ()]
            return sum(consumer.end_offsets(partitions).values())
        finally:
            consumer.close()

    def _audit(self) -> DemoReport:
        self._enter_phase("auditing")
        records = read_topic_records(self._foundry.gated_settings)
        self._refresh(force=True)
        falls = {line: read_falls(self._foundry.board_log(line), line) for line in self._foundry.lines}
        return make_report(records, falls, (self._usage.cpu_s, self._usage.peak_mb), self._describe_run())

    def _describe_run(self) -> dict[str, Any]:
        settings = self._foundry.gated_settings
        return {
            "seconds": round(self._running_s, 1),
            "first_verdict_s": self._first_verdict_s and round(self._first_verdict_s, 1),
            "restarts": {name: managed.starts - 1 for name, managed in self._supervisor.processes.items() if managed.starts > 1},
            "cpu_s_by_role": {role: round(seconds, 2) for role, seconds in self._usage.cpu_s_by_role().items()},
            "rss_mb_by_role": {role: round(peak, 1) for role, peak in self._usage.peak_mb_by_role.items()},
            "settings": {
                "lines": len(settings.lines),
                "inspectors": sum(role.name.startswith("inspector") for role in self._foundry.roles),
                "model": settings.model.version,
                "batch": settings.batch.model_dump(mode="json"),
                "travel_s": [line.gate.travel_s for line in settings.lines if line.gate],
                "images": sorted({str(line.camera.path) for line in settings.lines if line.camera}),
            },
        }

    def _stamp_verdicts_on_append(self) -> None:
        # A verdict counts as delivered when the broker has appended it. So the broker, not the producer, must set the timestamp.
        names = TopicNames(self._foundry.settings.topics.prefix)
        admin = open_client(KafkaAdminClient, **make_client_arguments(self._foundry.settings, "demo"))
        try:
            change = {"message.timestamp.type": "LogAppendTime"}
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, names.verdicts(line), change) for line in self._foundry.lines])
        finally:
            admin.close()

    def _tick_until(self, is_done: Callable[[], bool], may_interrupt: bool = True) -> None:
        while not is_done():
            self._supervisor.tick()
            if self._supervisor.failure:
                raise CastlineError(self._supervisor.failure)
            if may_interrupt and self._requests.is_stop_requested():
                raise DemoInterruptedError("The demo was stopped before the lines ran, so there is no report.")
            self._refresh()
            time.sleep(TICK_S)

    def _enter_phase(self, phase: str) -> None:
        self._phase, self._phase_started_at = phase, time.monotonic()
        self._refresh(force=True)

    def _refresh(self, force: bool = False) -> None:
        """Measures the processes once a second and shows a snapshot every half second, however often it is called.

        If `force` is True, measures and shows at once.
        """
        now = time.monotonic()
        if force or now - self._measured_at >= _MEASURE_EVERY_S:
            self._measured_at = now
            self._usage.measure({name: managed.pid for name, managed in self._supervisor.processes.items() if managed.is_running})
            before, cpu_s = self._last_cpu
            if now - before >= _CORES_WINDOW_S:
                self._cores, self._last_cpu = (self._usage.cpu_s - cpu_s) / (now - before), (now, self._usage.cpu_s)
        if force or now - self._shown_at >= _SHOW_EVERY_S:
            self._shown_at = now
            self._screen.show(self._make_snapshot(now))

    def _make_snapshot(self, now: float) -> Snapshot:
        figures = self._monitor.compute_figures()
        if self._first_verdict_s is None and any(line.verdicts for line in figures.values()):
            self._first_verdict_s = now - self._started_at
        processes = [
            ProcessStatus(name, managed.state, now - managed.started_at if managed.is_running else 0.0)
            for name, managed in self._supervisor.processes.items()
        ]
        deadlines = [deadline_s for line in self._foundry.settings.lines if (deadline_s := line.verdict_deadline_s) is not None]
        is_busy = self._phase in ("starting", "running")
        return Snapshot(
            phase=self._phase,
            elapsed_s=now - self._phase_started_at,
            seconds=self._seconds if self._phase == "running" else None,
            rows=[self._make_line_status(line, figures[line], now) for line in self._foundry.lines],
            processes=processes,
            cores=self._cores,
            memory_mb=self._usage.current_mb,
            deadline_s=min(deadlines, default=0.0),
            now=now,
            station=str(self._foundry.station or ""),
            warnings=self._journal.latest_warnings(_MAX_WARNINGS, _WARNING_SHOWN_S) if is_busy else (),
        )

    def _make_line_status(self, line: str, figures: LineFigures, now: float) -> LineStatus:
        sorter, gateway = self._supervisor.probe_result(sorter_name(line)), self._supervisor.probe_result("gateway")
        names = [name for name in self._supervisor.processes if name.startswith("inspector")]
        inspectors = [result for name in names if (result := self._supervisor.probe_result(name))]
        counted = int(sorter.value("castline_parts_counted_total", line=line)) if sorter else 0
        counts = LineCounts(
            castings=counted,
            pictures=int(gateway.value("castline_pictures_received_total", line=line)) if gateway else 0,
            verdicts=figures.verdicts,
            reports=figures.sorted,
            missed=figures.no_verdict + figures.late,
        )
        gate_states = sorter.labels("castline_gate_state", "state", line=line) if sorter else []
        return LineStatus(
            name=line,
            figures=figures,
            # `counted` comes from the sorter's metrics, which are read less often than the topics. So it can be smaller than the number of
            # verdicts.
            parts=max(counted, figures.verdicts, figures.sorted),
            queue=int(sum(inspector.value("castline_consumer_lag_records", line=line) for inspector in inspectors)),
            spooled=int(gateway.value("castline_spool_pictures", line=line)) if gateway else 0,
            state=self._line_states.compute(line, counts, gate_states, is_stop_planned=False, now=now),
        )
