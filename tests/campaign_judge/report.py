"""Writes what the judge has found as Markdown: the report of one run, and the page about several runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tests.campaign_judge.findings import Kind
from tests.campaign_judge.judge import Judgement
from tests.campaign_judge.memory import FLAT_MIB_PER_HOUR, MemorySlope
from tests.campaign_judge.silence import SilenceRow

_MAX_EXAMPLES = 20
_MAX_CHARACTERS = 600


def write_report(judgement: Judgement) -> str:
    """Returns the report of one run, with all findings."""
    plan = judgement.recording.plan
    lines = [
        "# Report of a campaign",
        "",
        f"Seed {plan.seed}, {plan.minutes} minutes, lines {', '.join(plan.lines)}, machines {', '.join(map(str, plan.machines))}, "
        f"runtime {plan.runtime}, Castline {plan.version}.",
        "",
        "**Nothing is wrong.**" if judgement.is_right else "**Something is wrong.**",
        "",
        *_faults_table([judgement]),
    ]
    for kind, sentences in judgement.findings.faults.items():
        lines += ["", f"## {kind[0].upper()}{kind[1:]}", ""]
        lines += [f"- {sentence[:_MAX_CHARACTERS]}" for sentence in sentences[:_MAX_EXAMPLES]]
        if len(sentences) > _MAX_EXAMPLES:
            lines.append(f"- and {len(sentences) - _MAX_EXAMPLES} more")
    lines += ["", "## What ran", "", *_injected_table([judgement])]
    lines += ["", "## Counts", "", *_counts_table([judgement])]
    lines += ["", "## Silences", "", *_silence_table(judgement.silences)]
    lines += ["", "## Memory", "", *_memory_table(judgement.memory)]
    return "\n".join(lines) + "\n"


def write_page(judgements: Sequence[Judgement]) -> str:
    """Returns the page for people about all runs."""
    runs = [judgement.recording.plan for judgement in judgements]
    lines = [
        "# The campaign",
        "",
        "<!-- Written by `python -m tests.campaign_judge --publish`; changes made here are lost. -->",
        "",
        "The campaign runs a plant with two machines, and injects faults, first one at a time and then two at once. A judge that shares no",
        "code with Castline then compares what the cameras sent and what happened on the belts with the records in Kafka.",
        "",
        "## Which runs are these?",
        "",
        "| seed | minutes | faults | runtime | Castline | judgement |",
        "| ---: | ---: | ---: | --- | --- | --- |",
    ]
    for plan, judgement in zip(runs, judgements, strict=True):
        result = "nothing is wrong" if judgement.is_right else "something is wrong"
        faults = len(judgement.recording.faults)
        lines.append(f"| {plan.seed} | {plan.minutes} | {faults} | {plan.runtime} | {plan.version} | {result} |")
    lines += ["", "## What went wrong?", "", *_faults_table(judgements)]
    lines += ["", "## Which faults were injected?", "", *_injected_table(judgements)]
    lines += ["", "## How long did the verdicts stay away?", ""]
    lines += ["The silence of a line is the longest time without a verdict while pictures came.", ""]
    lines += _silence_table([row for judgement in judgements for row in judgement.silences])
    lines += ["", "## Does the memory grow?", ""]
    lines += [f"The memory of a role is flat if the upper end of the 95 % interval is below {FLAT_MIB_PER_HOUR:g} MiB an hour.", ""]
    lines += _memory_table([slope for judgement in judgements for slope in judgement.memory])
    lines += ["", "## How much was judged?", "", *_counts_table(judgements)]
    return "\n".join(lines) + "\n"


def _faults_table(judgements: Sequence[Judgement]) -> Iterator[str]:
    yield from ("| what could go wrong | how often |", "| --- | ---: |")
    for kind in Kind:
        yield f"| {kind} | {sum(len(judgement.findings.faults.get(kind, ())) for judgement in judgements)} |"


def _injected_table(judgements: Sequence[Judgement]) -> Iterator[str]:
    faults = [fault for judgement in judgements for fault in judgement.recording.faults]
    alone, paired = Counter(fault.kind for fault in faults if fault.alone), Counter(fault.kind for fault in faults if not fault.alone)
    yield from ("| fault | alone | two at once |", "| --- | ---: | ---: |")
    yield from (f"| {kind} | {alone[kind]} | {paired[kind]} |" for kind in sorted({*alone, *paired}))
    yield f"| all | {alone.total()} | {paired.total()} |"


def _counts_table(judgements: Sequence[Judgement]) -> Iterator[str]:
    counts: Counter[str] = Counter()
    for judgement in judgements:
        counts.update(judgement.findings.counts)
    yield from ("| what | how many |", "| --- | ---: |")
    yield from (f"| {name} | {count} |" for name, count in counts.items())


def _silence_table(rows: Sequence[SilenceRow]) -> Iterator[str]:
    longest: dict[str, SilenceRow] = {}
    faults: Counter[str] = Counter()
    for row in rows:
        faults[row.cause] += row.faults
        if row.cause not in longest or row.longest_s > longest[row.cause].longest_s:
            longest[row.cause] = row
    yield from ("| fault | times | longest silence | limit |", "| --- | ---: | ---: | --- |")
    for cause, row in sorted(longest.items()):
        limit = "stated" if row.limit is None else f"{row.limit.seconds:g} s{' after its end' if row.limit.is_after_end else ''}"
        yield f"| {cause} | {faults[cause] or ''} | {row.longest_s:.1f} s | {limit} |"


def _memory_table(slopes: Sequence[MemorySlope]) -> Iterator[str]:
    if not slopes:
        yield "No process lived long enough to measure its memory."
        return
    yield from ("| role | minutes | size | MiB an hour | 95 % interval | result |", "| --- | ---: | ---: | ---: | --- | --- |")
    for slope in slopes:
        interval = f"{slope.low:+.2f} to {slope.high:+.2f}"
        yield f"| {slope.role} | {slope.minutes:.0f} | {slope.size_mib:.0f} MiB | {slope.slope:+.2f} | {interval} | {slope.outcome} |"
