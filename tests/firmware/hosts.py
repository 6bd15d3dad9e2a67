"""A host in the line's own time: greets, configures, tells verdicts when they are ready, acknowledges. No wall clock, no thread."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from firmware.board.frames import Deframer, Frame
from firmware.board.lane_settings import LaneSettings
from firmware.board.words import EVENTS, Fields, read_event
from firmware.simulator.line import AvrLine

AGAIN_US = 250_000
WINDOW = 4
STEP_US = 4000
Verdict = tuple[str, int]  # what is told, and how many us after the part was counted
Opinion = Callable[[int], Verdict | None]


@dataclass
class Sent:
    frame: Frame
    at_us: int
    tries: int = 1


@dataclass
class PacedHost:
    """`opinion` says what a part is worth and when that is known; None: never. Lost frames are sent again under their number."""

    line: AvrLine
    settings: LaneSettings
    opinion: Opinion = lambda part: None
    harm: Callable[[bytes], bytes] = lambda data: data  # what the wire does to bytes, both ways
    gates: dict[int, Fields] = field(default_factory=dict)  # by event number
    faults: dict[int, Fields] = field(default_factory=dict)
    answers: list[tuple[str, Frame]] = field(default_factory=list)  # each with the name of its command
    events_heard: list[Frame] = field(default_factory=list)  # repeats included
    told: dict[int, str] = field(default_factory=dict)  # part -> told, or the code of the refusal
    counted: list[int] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    beats: list[tuple[str, str]] = field(default_factory=list)  # state, lamp
    alive: bool = True
    acknowledges: bool = True
    grades: dict[int, LaneSettings] = field(default_factory=dict)  # of further gates, by lane
    gates_by_word: dict[str, int] = field(default_factory=dict)  # an opinion's word -> the further gate it means
    lane: int = 1
    numbers: range = range(256)  # its share of the sequence numbers
    window: int = WINDOW

    def __post_init__(self) -> None:
        self._deframer = Deframer("<!")
        self._seq = 0  # index into `numbers`
        self._queue: list[tuple[str, tuple[str, ...]]] = []
        self._sent: dict[int, Sent] = {}
        self._later: list[tuple[int, tuple[str, ...]]] = []
        self._heard_us = 0

    # What it does by itself

    def greet(self) -> None:
        """HELLO, all settings, COMMIT, and whatever was unanswered before is forgotten, as by a program just started."""
        self._sent.clear()
        self._queue.clear()
        self.ask("HELLO", 1)
        for lane, settings in ((self.lane, self.settings), *self.grades.items()):
            for key, value in settings.values.items():
                self.ask("CONFIGURE", lane, key, value)
            self.ask("COMMIT", lane)

    def ask(self, name: str, *fields: object) -> None:
        self._queue.append((name, tuple(str(each) for each in fields)))

    def run_until(self, to_us: int) -> None:
        """Lets time pass on the line and at the host."""
        while self.line.now_us < to_us:
            self.line.run_until(min(self.line.now_us + STEP_US, to_us))
            data = self.harm(self.line.transmit())
            if self.alive:
                self.step(data)

    def run_for(self, us: int) -> None:
        self.run_until(self.line.now_us + us)

    def step(self, data: bytes) -> None:
        now_us = self.line.now_us
        for frame in self._deframer.feed(data):
            if frame.start == "<":
                self._answered(frame)
            elif frame.name in EVENTS:
                self.events_heard.append(frame)
                self._heard(frame.name, read_event(frame.name, frame.fields), now_us)
        for at_us, fields in self._later:
            if at_us <= now_us:
                self.ask("VERDICT", *fields)
        self._later = [each for each in self._later if each[0] > now_us]
        if not self._queue and not self._sent and now_us - self._heard_us > 300_000:
            self._heard_us = now_us
            self.ask("PING", now_us // 1000)
        for sent in self._sent.values():
            if now_us - sent.at_us > AGAIN_US:
                sent.at_us, sent.tries = now_us, sent.tries + 1
                self.line.receive(self.harm(sent.frame.encode()))
        while self._queue and len(self._sent) < self.window:
            name, fields = self._queue.pop(0)
            while self.numbers[self._seq] in self._sent:
                self._seq = (self._seq + 1) % len(self.numbers)
            frame = Frame(">", self.numbers[self._seq], name, fields)
            self._seq = (self._seq + 1) % len(self.numbers)
            self._sent[frame.seq] = Sent(frame, now_us)
            self.line.receive(self.harm(frame.encode()))

    def _answered(self, answer: Frame) -> None:
        sent = self._sent.pop(answer.seq, None)
        if sent is None:
            return
        self.answers.append((sent.frame.name, answer))
        if sent.frame.name == "VERDICT":
            self.told[int(sent.frame.fields[2])] = answer.fields[0]
        if answer.name == "ERR" and answer.fields[0] in ("4", "5"):
            self.greet()

    def _heard(self, name: str, fields: Fields, now_us: int) -> None:
        if name == "BOOT":
            if not self.runs or self.runs[-1] != fields.number("run"):
                self.runs.append(fields.number("run"))
                # What was told of the old run is gone with it.
                for known in (self._later, self.gates, self.faults, self.told, self.counted):
                    known.clear()
                self.greet()
        elif name == "BEAT":
            self.beats.append((fields.word("state"), fields.word("lamp")))
        elif fields["lane"] not in (0, self.lane):
            return  # another host's
        elif name == "PART":
            part = fields.number("part")
            self.ask("SEEN", self.lane, fields["run"], part)
            if part not in self.counted:
                self.counted.append(part)
                if (verdict := self.opinion(part)) is not None:
                    word, delay_us = verdict
                    gate = self.gates_by_word.get(word, self.lane)
                    told = ("keep", "0") if word == "keep" else ("divert", str(gate))
                    self._later.append((now_us + delay_us, (str(self.lane), str(fields["run"]), str(part), *told)))
        elif self.acknowledges:
            kept = self.gates if name == "GATE" else self.faults
            event = fields.number("event")
            before = kept.setdefault(event, fields)
            assert before == fields, f"an event was told in two ways: {before}, {fields}"
            self.ask("ACK", event)

    # What tests look at

    def by_part(self) -> dict[int, Fields]:
        """The one GATE event of each counted part."""
        reports = [gate for gate in self.gates.values() if gate["part"]]
        parts = [gate.number("part") for gate in reports]
        assert len(parts) == len(set(parts)), "a part was reported twice"
        return dict(zip(parts, reports, strict=True))

    def fault_codes(self) -> list[tuple[int, int]]:
        """Code and raised, in the order they happened."""
        return [(fault.number("code"), fault.number("raised")) for _, fault in sorted(self.faults.items())]


class BoardHost:
    """The hosts of several lanes of one board, over one wire: they share its sequence numbers and its window."""

    def __init__(self, line: AvrLine, hosts: list[PacedHost]) -> None:
        self.line = line
        self.hosts = hosts
        share = 256 // len(hosts)
        for index, host in enumerate(hosts):
            host.numbers, host.window = range(share * index, share * (index + 1)), WINDOW // len(hosts)
        self._begun = 1

    def run_until(self, to_us: int) -> None:
        while self.line.now_us < to_us:
            self.line.run_until(min(self.line.now_us + STEP_US, to_us))
            data = self.line.transmit()
            for host in self.hosts[: self._begun]:
                host.step(data)
            # A board keeps the values of one lane aside at a time: the next one is configured when the last is in force.
            if self._begun < len(self.hosts) and "COMMIT" in [name for name, _ in self.hosts[self._begun - 1].answers]:
                self.hosts[self._begun].greet()
                self._begun += 1

    def run_for(self, us: int) -> None:
        self.run_until(self.line.now_us + us)


def mixed_opinion(seed: int, silent: float, least_us: int, most_us: int) -> Callable[[int], Verdict | None]:
    """A third is bad; a share of `silent` gets no verdict; the others come after a random time, so in random order."""

    def opinion(part: int) -> Verdict | None:
        chance = random.Random(seed * 1_000_003 + part)
        if chance.random() < silent:
            return None
        return ("divert" if chance.random() < 1 / 3 else "keep", chance.randrange(least_us, most_us))

    return opinion
