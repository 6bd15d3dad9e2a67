"""One demonstration from the first process to the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from deploy.demo.evidence import read_evidence
from deploy.demo.foundry import Foundry
from deploy.demo.physical import read_falls
from deploy.demo.report import Report, report_on
from deploy.demo.usage import Usage
from deploy.demo.view import Row, Snapshot, Standing
from deploy.demo.watch import LineNumbers, Watch
from deploy.supervisor import Journal, State, StopRequests, Supervisor
from deploy.supervisor.plant_roles import BROKER_STOP, INSPECTORS_STOP, sorter_name
from deploy.supervisor.supervisor import TICK_S
from streams.errors import CastlineError
from streams.kafka import make_client_arguments
from streams.topics import TopicNames

_SHOW_EVERY_S = 0.5
_USAGE_EVERY_S = 1.0
_BACKLOG_STILL_S = 15.0  # the inspectors' backlog is given up when no verdict came for so long
_NEWS = 3
_NEWS_FOR_S = 20.0


class Screen(Protocol):
    """Whatever shows a snapshot."""

    def show(self, snapshot: Snapshot) -> None: ...


class Interrupted(CastlineError):
    """The caller insisted on an end at once: nothing was audited."""


class Session:
    """Runs `foundry` once. Call `run` from the main thread."""

    def __init__(self, foundry: Foundry, seconds: float | None, screen: Screen, requests: StopRequests, journal: Journal) -> None:
        self._foundry = foundry
        self._seconds = seconds
        self._screen = screen
        self._requests = requests
        self._journal = journal
        self._supervisor = Supervisor(foundry.roles, journal)
        self._watch = Watch(foundry.plant)
        self._usage = Usage()
        self._began = time.monotonic()
        self._phase = "starting"
        self._phase_at = self._began
        self._running_s = 0.0
        self._first_verdict_s: float | None = None
        self._shown_at = self._looked_at = 0.0
        self._cpu: tuple[float, float] = (self._began, 0.0)
        self._cores = 0.0

    def run(self) -> Report:
        """Starts everything, runs for the time given or until asked to stop, drains, audits, stops.

        Raises CastlineError: when a process cannot run. Interrupted: when it was insisted on. Nothing runs afterwards.
        """
        try:
            self._start()
            self._carry_on()
            self._drain()
            report = self._audit()
            self._enter("stopping")
            self._supervisor.stop(self._requests.is_kill_requested, meanwhile=self._look)
            return report
        finally:
            self._watch.close()
            self._supervisor.kill_all()

    def _start(self) -> None:
        self._tick_until(lambda: self._supervisor.processes["topics"].state is State.ENDED)
        self._stamp_verdicts_on_append()
        self._watch.start()
        self._tick_until(lambda: self._supervisor.all_ready)

    def _carry_on(self) -> None:
        self._enter("running")
        end = time.monotonic() + self._seconds if self._seconds else None
        began = time.monotonic()
        self._tick_until(lambda: self._requests.is_stop_requested() or (end is not None and time.monotonic() >= end), heed_requests=False)
        self._running_s = time.monotonic() - began

    def _drain(self) -> None:
        """Belts run empty, the last pictures are sent and judged, then the workers stop; the broker stays for the audit."""
        self._enter("draining")
        self._supervisor.stop(self._requests.is_kill_requested, before=INSPECTORS_STOP, meanwhile=self._look)
        self._wait_for_backlog()
        self._supervisor.stop(self._requests.is_kill_requested, before=BROKER_STOP, meanwhile=self._look)
        self._refuse_haste()

    def _wait_for_backlog(self) -> None:
        pictures = self._pictures()
        judged, moved_at = -1, time.monotonic()
        while not self._requests.is_kill_requested():
            self._look()
            now, count = time.monotonic(), sum(numbers.verdicts for numbers in self._watch.numbers().values())
            if count != judged:
                judged, moved_at = count, now
            if judged >= pictures:
                return
            if now - moved_at > _BACKLOG_STILL_S:
                self._journal.warn(f"{pictures - judged} of {pictures} pictures have no verdict and none came for {_BACKLOG_STILL_S:.0f} s")
                return
            time.sleep(TICK_S)

    def _pictures(self) -> int:
        names = TopicNames(self._foundry.settings.topics.prefix)
        consumer = KafkaConsumer(**make_client_arguments(self._foundry.settings, "demo"), group_id=None)
        try:
            topics = [names.images(line) for line in self._foundry.lines]
            partitions = [TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic) or ()]
            return sum(consumer.end_offsets(partitions).values())
        finally:
            consumer.close()

    def _audit(self) -> Report:
        self._enter("auditing")
        evidence = read_evidence(self._foundry.plant)
        self._look(force=True)
        falls = {line: read_falls(self._foundry.board_log(line), line) for line in self._foundry.lines}
        return report_on(evidence, falls, (self._usage.cpu_s, self._usage.peak_mb), self._extra())

    def _extra(self) -> dict[str, Any]:
        settings = self._foundry.plant
        return {
            "seconds": round(self._running_s, 1),
            "first_verdict_s": self._first_verdict_s and round(self._first_verdict_s, 1),
            "restarts": {name: post.starts - 1 for name, post in self._supervisor.processes.items() if post.starts > 1},
            "cpu_s_by_role": {role: round(seconds, 2) for role, seconds in self._usage.role_cpu_s().items()},
            "rss_mb_by_role": {role: round(peak, 1) for role, peak in self._usage.role_peak_mb.items()},
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
        # By default a record's time is the producer's; the age that is promised ends when the broker has the verdict.
        names = TopicNames(self._foundry.settings.topics.prefix)
        admin = KafkaAdminClient(**make_client_arguments(self._foundry.settings, "demo"))
        try:
            change = {"message.timestamp.type": "LogAppendTime"}
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, names.verdicts(line), change) for line in self._foundry.lines])
        finally:
            admin.close()

    def _tick_until(self, done: Callable[[], bool], heed_requests: bool = True) -> None:
        while not done():
            self._supervisor.tick()
            if self._supervisor.failure:
                raise CastlineError(self._supervisor.failure)
            if heed_requests and self._requests.is_stop_requested():
                raise Interrupted("stopped before the lines ran")
            self._look()
            time.sleep(TICK_S)

    def _refuse_haste(self) -> None:
        if self._requests.is_kill_requested():
            raise Interrupted("stopped at once: what the topics say of this run was not audited")

    def _enter(self, phase: str) -> None:
        self._phase, self._phase_at = phase, time.monotonic()
        self._look(force=True)

    def _look(self, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._looked_at >= _USAGE_EVERY_S:
            self._looked_at = now
            self._usage.look({name: post.pid for name, post in self._supervisor.processes.items() if post.is_running})
            before, cpu_s = self._cpu
            if now - before >= 2:
                self._cores, self._cpu = (self._usage.cpu_s - cpu_s) / (now - before), (now, self._usage.cpu_s)
        if force or now - self._shown_at >= _SHOW_EVERY_S:
            self._shown_at = now
            self._screen.show(self._snapshot(now))

    def _snapshot(self, now: float) -> Snapshot:
        numbers = self._watch.numbers()
        if self._first_verdict_s is None and any(line.verdicts for line in numbers.values()):
            self._first_verdict_s = now - self._began
        standings = [
            Standing(name, post.state, now - post.started_at if post.is_running else 0.0)
            for name, post in self._supervisor.processes.items()
        ]
        useful = [useful_s for line in self._foundry.settings.lines if (useful_s := line.verdict_deadline_s) is not None]
        return Snapshot(
            phase=self._phase,
            elapsed_s=now - self._phase_at,
            seconds=self._seconds if self._phase == "running" else None,
            rows=[self._row(line, numbers[line]) for line in self._foundry.lines],
            processes=standings,
            cores=self._cores,
            memory_mb=self._usage.now_mb,
            useful_s=min(useful, default=0.0),
            now=now,
            pages=str(self._foundry.pages or ""),
            news=self._journal.latest_warnings(_NEWS, _NEWS_FOR_S) if self._phase in ("starting", "running") else (),
        )

    def _row(self, line: str, numbers: LineNumbers) -> Row:
        sorter, gateway = self._supervisor.probe_result(sorter_name(line)), self._supervisor.probe_result("gateway")
        inspectors = [
            sight for name in self._supervisor.processes if name.startswith("inspector") and (sight := self._supervisor.probe_result(name))
        ]
        states = sorter.labels("castline_gate_state", "state", line=line) if sorter else []
        return Row(
            name=line,
            numbers=numbers,
            # Metrics are read less often than topics: the view must not show more verdicts than parts.
            parts=max(int(sorter.value("castline_parts_counted_total", line=line)) if sorter else 0, numbers.verdicts, numbers.sorted),
            queue=int(sum(sight.value("castline_consumer_lag_records", line=line) for sight in inspectors)),
            spooled=int(gateway.value("castline_spool_pictures", line=line)) if gateway else 0,
            gate=", ".join(states),
        )
