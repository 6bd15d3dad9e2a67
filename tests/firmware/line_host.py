"""A host in the simulated line's own time: it greets, configures, sends verdicts after a delay, and acknowledges events."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from firmware.lane_settings import LaneSettings
from firmware.protocol import EVENTS, HELLO_FIELDS, Deframer, Fields, Frame, read_event
from firmware.simulator.avr_line import AvrLine

RESEND_US = 250_000
PING_US = 300_000
WINDOW = 4
STEP_US = 4000
# A verdict, and the microseconds between the counting of its part and the sending of the verdict.
DelayedVerdict = tuple[str, int]
# Returns the verdict of a part, or None for a part without verdict.
VerdictRule = Callable[[int], DelayedVerdict | None]


@dataclass
class SentCommand:
    frame: Frame
    at_us: int


@dataclass
class LineHost:
    """Serves one lane of a simulated line. Lost frames are sent again under their number.

    `damage` is what the wire does to bytes in both directions. `further_gates` maps a verdict's word to the additional gate that it means.
    """

    line: AvrLine
    settings: LaneSettings
    verdict_of: VerdictRule = lambda part: None
    damage: Callable[[bytes], bytes] = lambda data: data
    is_alive: bool = True
    acknowledges: bool = True
    grades: dict[int, LaneSettings] = field(default_factory=dict)
    further_gates: dict[str, int] = field(default_factory=dict)
    lane: int = 1
    # The sequence numbers and the window of this host, which several hosts of one board share.
    seq_numbers: range = range(256)
    window: int = WINDOW

    def __post_init__(self) -> None:
        # Events by their number, and the answers with the names of their commands.
        self.gates: dict[int, Fields] = {}
        self.faults: dict[int, Fields] = {}
        self.answers: list[tuple[str, Frame]] = []
        # All events with repetitions.
        self.received: list[Frame] = []
        # What the board has answered to the verdict of each part: the field `told`, or the code of ERR.
        self.verdict_answers: dict[int, str] = {}
        self.counted: list[int] = []
        self.runs: list[int] = []
        self.heartbeats: list[tuple[str, str]] = []
        self._deframer = Deframer("<!")
        self._next_seq = 0
        self._queue: list[tuple[str, tuple[str, ...]]] = []
        self._sent: dict[int, SentCommand] = {}
        self._delayed: list[tuple[int, tuple[str, ...]]] = []
        self._pinged_us = 0

    # Time and commands

    def greet(self) -> None:
        """Forgets unanswered commands like a program that was just started, and sends HELLO, all settings and COMMIT."""
        self._sent.clear()
        self._queue.clear()
        self.ask("HELLO", *HELLO_FIELDS)
        for lane, settings in ((self.lane, self.settings), *self.grades.items()):
            for key, value in settings.values.items():
                self.ask("CONFIGURE", lane, key, value)
            self.ask("COMMIT", lane)

    def ask(self, name: str, *fields: object) -> None:
        """Puts a command into the queue."""
        self._queue.append((name, tuple(str(field) for field in fields)))

    def run_until(self, to_us: int) -> None:
        """Lets time pass at the line and at the host."""
        while self.line.now_us < to_us:
            self.line.run_until(min(self.line.now_us + STEP_US, to_us))
            data = self.damage(self.line.transmit())
            if self.is_alive:
                self.step(data)

    def run_for(self, us: int) -> None:
        """Lets `us` microseconds pass."""
        self.run_until(self.line.now_us + us)

    def step(self, data: bytes) -> None:
        """Handles the bytes from the board and sends what is due."""
        now_us = self.line.now_us
        for frame in self._deframer.feed(data):
            if frame.start == "<":
                self._handle_answer(frame)
            elif frame.name in EVENTS:
                self.received.append(frame)
                self._handle_event(frame.name, read_event(frame.name, frame.fields), now_us)
        self._queue_due(now_us)
        self._resend(now_us)
        self._send_new(now_us)

    def _queue_due(self, now_us: int) -> None:
        for at_us, fields in self._delayed:
            if at_us <= now_us:
                self.ask("VERDICT", *fields)
        self._delayed = [delayed for delayed in self._delayed if delayed[0] > now_us]
        if not self._queue and not self._sent and now_us - self._pinged_us > PING_US:
            self._pinged_us = now_us
            self.ask("PING", now_us // 1000)

    def _resend(self, now_us: int) -> None:
        for sent in self._sent.values():
            if now_us - sent.at_us > RESEND_US:
                sent.at_us = now_us
                self.line.receive(self.damage(sent.frame.encode()))

    def _send_new(self, now_us: int) -> None:
        while self._queue and len(self._sent) < self.window:
            name, fields = self._queue.pop(0)
            frame = Frame(">", self._take_seq(), name, fields)
            self._sent[frame.seq] = SentCommand(frame, now_us)
            self.line.receive(self.damage(frame.encode()))

    def _take_seq(self) -> int:
        while self.seq_numbers[self._next_seq] in self._sent:
            self._next_seq = (self._next_seq + 1) % len(self.seq_numbers)
        seq = self.seq_numbers[self._next_seq]
        self._next_seq = (self._next_seq + 1) % len(self.seq_numbers)
        return seq

    # Answers and events

    def _handle_answer(self, answer: Frame) -> None:
        sent = self._sent.pop(answer.seq, None)
        if sent is None:
            return
        self.answers.append((sent.frame.name, answer))
        if sent.frame.name == "VERDICT":
            self.verdict_answers[int(sent.frame.fields[2])] = answer.fields[0]
        if answer.name == "ERR" and answer.fields[0] in ("4", "5"):
            self.greet()

    def _handle_event(self, name: str, fields: Fields, now_us: int) -> None:
        if name == "BOOT":
            self._handle_boot(fields.number("run"))
        elif name == "BEAT":
            self.heartbeats.append((fields.word("state"), fields.word("lamp")))
        elif fields["lane"] not in (0, self.lane):
            # The event belongs to another host.
            return
        elif name == "PART":
            self._handle_part(fields, now_us)
        elif self.acknowledges:
            events = self.gates if name == "GATE" else self.faults
            before = events.setdefault(fields.number("event"), fields)
            assert before == fields, f"an event was sent with two contents: {before}, {fields}"
            self.ask("ACK", fields["event"])

    def _handle_boot(self, run: int) -> None:
        if not self.runs or self.runs[-1] != run:
            self.runs.append(run)
            for of_old_run in (self._delayed, self.gates, self.faults, self.verdict_answers, self.counted):
                of_old_run.clear()
            self.greet()

    def _handle_part(self, fields: Fields, now_us: int) -> None:
        part = fields.number("part")
        self.ask("SEEN", self.lane, fields["run"], part)
        if part in self.counted:
            return
        self.counted.append(part)
        if (verdict := self.verdict_of(part)) is not None:
            word, delay_us = verdict
            gate = self.further_gates.get(word, self.lane)
            sent = ("keep", "0") if word == "keep" else ("divert", str(gate))
            self._delayed.append((now_us + delay_us, (str(self.lane), str(fields["run"]), str(part), *sent)))

    # For assertions

    def gates_by_part(self) -> dict[int, Fields]:
        """Returns the GATE event of each counted part, and checks that each part has only one."""
        reports = [gate for gate in self.gates.values() if gate["part"]]
        parts = [gate.number("part") for gate in reports]
        assert len(parts) == len(set(parts)), "a part was reported twice"
        return dict(zip(parts, reports, strict=True))

    def fault_codes(self) -> list[tuple[int, int]]:
        """Returns code and `raised` of the faults, in the order in which they happened."""
        return [(fault.number("code"), fault.number("raised")) for _, fault in sorted(self.faults.items())]


class SharedWireHost:
    """The hosts of several lanes of one board. They share the wire, its sequence numbers and its window."""

    def __init__(self, line: AvrLine, hosts: list[LineHost]) -> None:
        self.line = line
        self.hosts = hosts
        share = 256 // len(hosts)
        for index, host in enumerate(hosts):
            host.seq_numbers, host.window = range(share * index, share * (index + 1)), WINDOW // len(hosts)
        self._started = 1

    def run_until(self, to_us: int) -> None:
        """Lets time pass at the line and at all hosts."""
        while self.line.now_us < to_us:
            self.line.run_until(min(self.line.now_us + STEP_US, to_us))
            data = self.line.transmit()
            for host in self.hosts[: self._started]:
                host.step(data)
            # A board stores the uncommitted settings of one lane only, so a lane is configured after the one before was committed.
            if self._started < len(self.hosts) and "COMMIT" in [name for name, _ in self.hosts[self._started - 1].answers]:
                self.hosts[self._started].greet()
                self._started += 1

    def run_for(self, us: int) -> None:
        """Lets `us` microseconds pass."""
        self.run_until(self.line.now_us + us)


def random_verdicts(seed: int, silent_share: float, least_us: int, most_us: int) -> VerdictRule:
    """Returns a rule that diverts a third of the parts, gives a share of them no verdict, and delays all verdicts at random."""

    def verdict_of(part: int) -> DelayedVerdict | None:
        chance = random.Random(seed * 1_000_003 + part)
        if chance.random() < silent_share:
            return None
        return ("divert" if chance.random() < 1 / 3 else "keep", chance.randrange(least_us, most_us))

    return verdict_of
