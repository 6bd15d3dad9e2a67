"""Judges a run: puts together what the other modules find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign_judge.castings import judge_castings
from tests.campaign_judge.findings import Findings, Kind
from tests.campaign_judge.memory import LEAST_SERIES_S, LEAST_WARM_UP_S, MemorySlope, find_slopes, judge_memory
from tests.campaign_judge.pictures import judge_pictures
from tests.campaign_judge.recording import InjectedFault, Recording
from tests.campaign_judge.silence import SilenceRow, find_silences, judge_silences
from tests.campaign_judge.topic_records import Topics, read_topics


@dataclass
class Judgement:
    """What the judge says about one run."""

    recording: Recording
    findings: Findings
    silences: Sequence[SilenceRow] = field(default_factory=list)
    memory: Sequence[MemorySlope] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        return not self.findings.faults


def judge_folder(folder: Path, bootstrap: str = "") -> Judgement:
    """Judges the run in `folder`. Reads the topics from Kafka if the folder has no dump of them."""
    recording = Recording.read(folder)
    return judge(recording, read_topics(folder, recording.plan, set(recording.injected_records), bootstrap))


def judge(recording: Recording, topics: Topics) -> Judgement:
    """Judges a run by what it has recorded and by the records of the topics."""
    findings = Findings()
    _judge_faults(recording, findings)
    judge_pictures(recording, topics, findings)
    judge_castings(recording, topics, findings)
    silences = judge_silences(recording, find_silences(recording, topics), findings)
    slopes = find_slopes(recording.memory)
    is_memory_run = not recording.planned_faults and (recording.plan.minutes or 0) * 60 >= LEAST_WARM_UP_S + LEAST_SERIES_S
    judge_memory(slopes, is_memory_run, findings)
    return Judgement(recording, findings, silences, slopes)


def _judge_faults(recording: Recording, findings: Findings) -> None:
    numbers = [fault.number for fault in recording.planned_faults]
    if sorted(numbers) != list(range(min(numbers, default=1), min(numbers, default=1) + len(numbers))):
        findings.add(Kind.LOG, f"the numbers of the faults have gaps or repetitions: {sorted(numbers)}")
    findings.counts["records that the campaign has injected"] += len(recording.injected_records)
    findings.counts["alarms that began or ended"] += len(recording.alarms)
    findings.counts["faults"] += len(recording.faults)
    findings.counts["faults, two at once"] += sum(not fault.alone for fault in recording.faults)
    for fault in recording.planned_faults:
        if fault.error:
            findings.add(Kind.NOT_INJECTED, f"{fault.name}: {fault.error}")
        elif "full" in fault.kind and "disk" in fault.kind:
            _judge_alarm(fault, recording, findings)


def _judge_alarm(fault: InjectedFault, recording: Recording, findings: Findings) -> None:
    """Checks that an alarm about the disk began during the fault, before the space came back."""
    for alarm in recording.alarms:
        is_about_disk = "disk" in f"{alarm.get('source')} {alarm.get('name')} {alarm.get('state')}".lower()
        if is_about_disk and fault.began_at - 1 <= float(alarm["at"]) <= fault.ended_at:
            findings.counts["full disks with an alarm"] += 1
            return
    findings.add(Kind.NO_ALARM, fault.name)
