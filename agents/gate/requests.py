"""Commands that wait for a board's answer. Each command is repeated until it ends with an answer or an error.

    queued --fewer than `size` commands wait for answers--> sent --answer--> done
                                                             |--no answer in time--> sent again, with the same sequence number

Times are seconds of the monotonic clock, which the caller passes.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from queue import Empty, SimpleQueue

from agents.gate.port import Waker
from firmware.fault_table import code_of, error_codes
from firmware.protocol import COMMAND, Fields, Frame, read_answer, read_fields
from streams.backoff import Backoff
from streams.errors import GateError

# The first and the longest wait before a command is sent again, and the number of tries. See firmware/PROTOCOL.md, "Timing budget".
FIRST_RESEND_S = 0.25
LONGEST_RESEND_S = 1.0
MAX_TRIES = 5
# If a request was sent before its deadline, the host waits for the answer until 0.5 s after the deadline.
LATE_ANSWER_S = 0.5


def gate_error(name: str, subject: str) -> GateError:
    """Returns the error that firmware/error_codes.csv calls `name`. The message begins with `subject`."""
    row = error_codes()[code_of(name)]
    return GateError(f"{subject}: {row.meaning} ({row.code} {row.name})", row.code, row.retriable)


@dataclass(frozen=True)
class BoardResponse:
    """A board's positive answer (OK).

    - `answered_at`: the time at which the answer arrived, UTC.
    - `sent_s`: the time at which the command was first written to the serial port, on the monotonic clock.
    """

    fields: Fields
    answered_at: datetime
    sent_s: float


@dataclass(eq=False)
class BoardRequest:
    """A command to a board. The future `response` gets the board's answer, or fails with GateError.

    - `deadline_s`: after this time, the command is not sent.
    - `run`: the number of the run for which the command is meant, or None for any run. A run is the time between two resets of the
      board. If the board is in another run, the command fails.
    - `lane`: the number of the lane, or None if the command is for the whole board.
    """

    name: str
    fields: tuple[str, ...] = ()
    deadline_s: float | None = None
    run: int | None = None
    lane: int | None = None
    response: Future[BoardResponse] = field(default_factory=Future)
    seq: int | None = None
    sent_s: float = 0.0
    first_sent_s: float = 0.0
    resend_s: float = 0.0
    tries: int = 0
    backoff: Backoff = field(default_factory=lambda: Backoff(FIRST_RESEND_S, LONGEST_RESEND_S))

    def __post_init__(self) -> None:
        # A future that is marked as running cannot be cancelled. So the future can always store the board's answer.
        self.response.set_running_or_notify_cancel()

    @property
    def may_be_sent_again(self) -> bool:
        """True if the time of the next try is before the deadline, or if there is no deadline."""
        return self.deadline_s is None or self.resend_s <= self.deadline_s

    def __str__(self) -> str:
        return " ".join((self.name, *self.fields))


@dataclass
class RequestWindow:
    """Holds the requests that the board has not answered yet, and says which requests to send now.

    - `size`: the largest number of requests that wait for answers.
    - `held_lanes`: lanes whose requests stay in the queue.

    Any thread can call `submit`. Only the link's thread is allowed to call the other methods.
    """

    size: int = 1
    run: int | None = None
    waker: Waker | None = None
    queued: deque[BoardRequest] = field(default_factory=deque)
    sent: dict[int, BoardRequest] = field(default_factory=dict)
    held_lanes: set[int] = field(default_factory=set)
    _submitted: SimpleQueue[BoardRequest] = field(default_factory=SimpleQueue)
    _resends: Counter[int | None] = field(default_factory=Counter)
    _next_seq: int = 0

    def __len__(self) -> int:
        return len(self.queued) + len(self.sent) + self._submitted.qsize()

    def submit(self, request: BoardRequest) -> None:
        """Adds a request and wakes the link's thread, which sends it. Any thread can call this method."""
        self._submitted.put(request)
        if self.waker is not None:
            self.waker.wake()

    def add(self, requests: Iterable[BoardRequest]) -> None:
        """Puts requests at the end of the queue."""
        self.queued.extend(requests)

    def add_missing(self, requests: Iterable[BoardRequest]) -> None:
        """Puts requests at the end of the queue. Skips a request if the same request is queued already, or still has no answer.

        The board repeats its events, and the host answers each event with a request. If equal requests were not skipped, the queue would
        grow on a slow connection.
        """
        for request in requests:
            waiting = (*self.queued, *self.sent.values())
            if not any(other.name == request.name and other.fields == request.fields and other.run == request.run for other in waiting):
                self.queued.append(request)

    def take_due(self, now_s: float) -> list[Frame]:
        """Returns the frames to send now.

        Commands that must be sent again come first. Then come new commands, while fewer than `size` commands wait for answers.

        New commands with a deadline go before new commands without a deadline, because a verdict must reach the board before its part
        reaches the gate.

        Call `drop_expired` first. Raises GateError if a command without a deadline was sent five times without an answer.
        """
        frames = []
        for request in self.sent.values():
            if now_s >= request.resend_s and request.may_be_sent_again:
                if request.tries >= MAX_TRIES and request.deadline_s is None:
                    raise gate_error("no-answer", f"{request}, sent {request.tries} times")
                self._resends[request.lane] += 1
                frames.append(self._make_frame(request, now_s))
        while len(self.sent) < self.size and (new := self._next_queued()) is not None:
            self.queued.remove(new)
            new.seq, new.first_sent_s = self._take_free_seq(), now_s
            self.sent[new.seq] = new
            frames.append(self._make_frame(new, now_s))
        return frames

    def next_due_s(self) -> float | None:
        """Returns the time at which `take_due` will next return a frame, or None if no frame is planned."""
        if len(self.sent) < self.size and self._next_queued() is not None:
            return 0.0
        return min((request.resend_s for request in self.sent.values() if request.may_be_sent_again), default=None)

    def take_answered(self, answer: Frame, answered_at: datetime) -> BoardRequest | None:
        """Completes the request that `answer` belongs to, and returns it.

        Returns None for a second answer to a command that was sent twice.
        """
        request = self.sent.pop(answer.seq, None)
        if request is None:
            return None
        try:
            fields = _read_answer(request, answer)
        except ValueError as error:
            request.response.set_exception(GateError(f"{request}: {error}", code_of("wrong-fields"), retriable=False))
        except GateError as error:
            request.response.set_exception(error)
        else:
            request.response.set_result(BoardResponse(fields, answered_at, request.first_sent_s))
        return request

    def take_resends(self) -> Counter[int | None]:
        """Returns how many commands of each lane were sent again since the last call of this method."""
        resends, self._resends = self._resends, Counter()
        return resends

    def drop_expired(self, now_s: float, stopped_lanes: Collection[int] = ()) -> None:
        """Removes requests that are no longer useful. Their futures fail with GateError.

        - Code 21: the request is for another run of the board.
        - Code 82: the deadline has passed.

        The belts of `stopped_lanes` stand still. So requests for these lanes are kept even after their deadline.
        """

        def is_overdue(request: BoardRequest) -> bool:
            if request.deadline_s is None or request.lane in stopped_lanes:
                return False
            return now_s > request.deadline_s + (LATE_ANSWER_S if request.tries else 0)

        def is_of_other_run(request: BoardRequest) -> bool:
            return self.run is not None and request.run is not None and request.run != self.run

        self._queue_submitted()
        self._drop(is_of_other_run, "unknown-run")
        self._drop(is_overdue, "deadline")

    def drop_all(self, error_name: str) -> None:
        """Removes all requests. They fail with the error that firmware/error_codes.csv calls `error_name`."""
        self._queue_submitted()
        self._drop(lambda request: True, error_name)

    def requeue(self) -> None:
        """Moves the requests that the board has not answered back to the head of the queue.

        Call this method after the connection has failed or the board was reset. The method sets `run` to None, because the board's run
        number is unknown until the next greeting.
        """
        self.run = None
        for request in reversed(self.sent.values()):
            request.tries = 0
            request.backoff.succeeded()
            self.queued.appendleft(request)
        self.sent.clear()

    def _queue_submitted(self) -> None:
        with suppress(Empty):
            while True:
                self.queued.append(self._submitted.get_nowait())

    def _drop(self, is_dropped: Callable[[BoardRequest], bool], error_name: str) -> None:
        dropped = [request for request in (*self.sent.values(), *self.queued) if is_dropped(request)]
        self.sent = {seq: request for seq, request in self.sent.items() if not is_dropped(request)}
        self.queued = deque(request for request in self.queued if not is_dropped(request))
        for request in dropped:
            request.response.set_exception(gate_error(error_name, str(request)))

    def _next_queued(self) -> BoardRequest | None:
        ready = [request for request in self.queued if request.lane not in self.held_lanes]
        return next((request for request in ready if request.deadline_s is not None), ready[0] if ready else None)

    def _make_frame(self, request: BoardRequest, now_s: float) -> Frame:
        assert request.seq is not None
        request.sent_s = now_s
        request.resend_s = now_s + request.backoff.failed()
        request.tries += 1
        return Frame(COMMAND, request.seq, request.name, request.fields)

    def _take_free_seq(self) -> int:
        while self._next_seq in self.sent:
            self._next_seq = (self._next_seq + 1) % 256
        seq, self._next_seq = self._next_seq, (self._next_seq + 1) % 256
        return seq


def _read_answer(request: BoardRequest, answer: Frame) -> Fields:
    """Returns the fields of the answer OK. Raises GateError for the answer ERR, and ValueError if a field is malformed."""
    if answer.name == "ERR":
        code = read_fields(("code",), answer.fields).number("code")
        row = error_codes().get(code)
        if row is None:
            unknown = " ".join(answer.fields)
            raise GateError(f"{request}: the board sent an unknown error code ({code} {unknown})", code, retriable=False)
        raise GateError(f"{request}: {row.meaning} ({code} {row.name})", code, row.retriable)
    return read_answer(request.name, request.fields, answer.fields)
