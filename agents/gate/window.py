"""Commands on their way to a board: how many at a time, when sent again, when given up. Pure; seconds are monotonic.

queued --room in the window--> sent --answer--> done
                                |--time-out--> sent again, under the same number
a verdict whose deadline has passed is taken out, sent or not; anything else after five tries breaks the link
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from firmware.board.frames import COMMAND, Frame
from firmware.board.words import COMMANDS, PAGES, Fields, read_fields
from firmware.fault_table import code_of, error_codes
from streams.errors import GateError

BACKOFF_S = (0.25, 0.5, 1.0)
TRIES = 5
# A verdict that was sent in time may still be answered after its deadline; so long its answer is waited for.
ANSWER_S = 0.5


def gate_error(name: str, about: str) -> GateError:
    """The error of that name in error_codes.csv, told of `about`."""
    code = error_codes()[code_of(name)]
    return GateError(f"{about}: {code.meaning} ({code.code} {code.name})", code.code, code.retriable)


@dataclass(eq=False)
class Order:
    """A command, and who waits for its answer. `deadline_s` None: it is worth sending at any time."""

    name: str
    fields: tuple[str, ...]
    done: Callable[[Fields], None] = lambda fields: None
    failed: Callable[[GateError], None] = lambda error: None
    deadline_s: float | None = None
    run: int | None = None
    lane: int | None = None
    seq: int | None = None
    sent_s: float = 0.0
    first_sent_s: float = 0.0
    tries: int = 0

    @property
    def resend_s(self) -> float:
        return self.sent_s + BACKOFF_S[min(self.tries, len(BACKOFF_S)) - 1]

    @property
    def may_go_again(self) -> bool:
        """Whether its next time still lies before its deadline."""
        return self.deadline_s is None or self.resend_s <= self.deadline_s

    def __str__(self) -> str:
        return " ".join((self.name, *self.fields))


@dataclass
class Window:
    """At most `size` commands are unanswered at a time; they are sent in the order given, those to `held` lanes not yet."""

    size: int = 1
    queued: deque[Order] = field(default_factory=deque)
    sent: dict[int, Order] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    _resends: Counter[int | None] = field(default_factory=Counter)
    _next: int = 0

    def __len__(self) -> int:
        return len(self.queued) + len(self.sent)

    def add(self, order: Order) -> None:
        self.queued.append(order)

    def due(self, now_s: float) -> list[Frame]:
        """What is to be sent now: again what was not answered, then new ones as far as there is room.

        Raises GateError: when a command that no deadline bounds has been tried five times in vain.
        """
        frames = []
        for order in self.sent.values():
            if now_s >= order.resend_s and order.may_go_again:
                if order.tries >= TRIES and order.deadline_s is None:
                    raise gate_error("no-answer", f"{order}, sent {order.tries} times")
                self._resends[order.lane] += 1
                frames.append(self._send(order, now_s))
        while len(self.sent) < self.size and (new := self._first()) is not None:
            self.queued.remove(new)
            new.seq, new.first_sent_s = self._free_number(), now_s
            self.sent[new.seq] = new
            frames.append(self._send(new, now_s))
        return frames

    def next_due_s(self) -> float | None:
        """When `due` will have something again, as far as is known now."""
        if len(self.sent) < self.size and self._first() is not None:
            return 0.0
        return min((order.resend_s for order in self.sent.values() if order.may_go_again), default=None)

    def answered(self, frame: Frame) -> Order | None:
        """The order that this answer ends, told of it; None for an answer that nobody waits for (a repeat)."""
        order = self.sent.pop(frame.seq, None)
        if order is None:
            return None
        try:
            self._tell(order, frame)
        except ValueError as error:
            order.failed(GateError(f"{order}: {error}", code_of("wrong-fields"), retriable=False))
        return order

    def _tell(self, order: Order, frame: Frame) -> None:
        if frame.name == "ERR":
            fields = read_fields(("code",), frame.fields)
            known = error_codes().get(fields.number("code"))
            name = known.name if known else " ".join(frame.fields)
            retriable = known.retriable if known else False
            meaning = known.meaning if known else "a code that this version does not know"
            order.failed(GateError(f"{order}: {meaning} ({fields.number('code')} {name})", fields.number("code"), retriable))
            return
        names = COMMANDS[order.name][1]
        if order.name == "STATUS":
            names = ("page", *PAGES[order.fields[1]])
        order.done(read_fields(names, frame.fields))

    def take_resends(self) -> Counter[int | None]:
        """How often commands were sent again since the last call, by lane."""
        resends, self._resends = self._resends, Counter()
        return resends

    def take_overdue(self, now_s: float, standing: Collection[int] = ()) -> list[Order]:
        """Orders whose deadline has passed, taken out, told `deadline`. An answer that still comes is ignored.

        While a belt stands no part comes to its gate: orders to `standing` lanes have time.
        """

        def overdue(order: Order) -> bool:
            return (
                order.lane not in standing and order.deadline_s is not None and now_s > order.deadline_s + (ANSWER_S if order.tries else 0)
            )

        return self._take(overdue, "deadline")

    def take_of_other_runs(self, run: int) -> list[Order]:
        """Orders of a run that is over, taken out, told `unknown-run`."""
        return self._take(lambda order: order.run is not None and order.run != run, "unknown-run")

    def take_all(self, name: str) -> list[Order]:
        """All orders, told the error called `name`."""
        return self._take(lambda order: True, name)

    def requeue(self) -> None:
        """The link broke: what was sent and not answered is sent anew, first and in its order, when there is a link again."""
        for order in reversed(self.sent.values()):
            order.tries = 0
            self.queued.appendleft(order)
        self.sent.clear()

    def _take(self, chosen: Callable[[Order], bool], name: str) -> list[Order]:
        taken = [order for order in (*self.sent.values(), *self.queued) if chosen(order)]
        self.sent = {seq: order for seq, order in self.sent.items() if not chosen(order)}
        self.queued = deque(order for order in self.queued if not chosen(order))
        for order in taken:
            order.failed(gate_error(name, str(order)))
        return taken

    def _first(self) -> Order | None:
        return next((order for order in self.queued if order.lane not in self.held), None)

    def _send(self, order: Order, now_s: float) -> Frame:
        assert order.seq is not None
        order.sent_s = now_s
        order.tries += 1
        return Frame(COMMAND, order.seq, order.name, order.fields)

    def _free_number(self) -> int:
        while self._next in self.sent:
            self._next = (self._next + 1) % 256
        number_, self._next = self._next, (self._next + 1) % 256
        return number_
