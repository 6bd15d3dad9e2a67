"""One lane of a board as its line's sorter sees it: what is configured, told and heard there. The port belongs to GateLink."""

from __future__ import annotations

import concurrent.futures
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from agents.gate.clock import BoardClock
from agents.gate.commit import Call, commit
from agents.gate.events import GateState, Listener, Told
from agents.gate.reports import BoardReports
from agents.gate.window import Order, gate_error
from firmware.board.lane_settings import LaneSettings
from firmware.board.words import Fields
from streams import metrics

log = logging.getLogger(__name__)

_STATES = {"running": GateState.RUNNING, "safe": GateState.SAFE, "stopped": GateState.STOPPED}


class GateLane:
    """Call `tell`, `acknowledge` and `command` from any thread; `listener` is called from the link's own.

    Without `settings` the lane is left as it is. `grades` are the settings of the further gates on its belt, by their lanes.
    """

    def __init__(
        self,
        line: str,
        number: int,
        settings: LaneSettings | None,
        grades: Mapping[int, LaneSettings],
        clock: BoardClock,
        listener: Listener,
        ask: Callable[[Order], None],
    ) -> None:
        self.line = line
        self.number = number
        self.state = GateState.AWAY
        self.reports = BoardReports(line, number, clock, listener)
        self.configured = False
        self.next_try_s = 0.0
        self._settings = settings
        self._grades = dict(grades)
        self._ask = ask
        self._committed_in: dict[int, int] = {}  # lane -> run

    @property
    def run(self) -> int:
        """The board's present run, 0 before it has answered for the first time."""
        return self.reports.run

    @property
    def all_lanes(self) -> set[int]:
        return {self.number, *self._grades}

    def tell(
        self, run: int, part: int, verdict: str, deadline: datetime | None = None, gate: int | None = None
    ) -> concurrent.futures.Future[Told]:
        """Tells the board `keep` or `divert` for a part, at the lane's own gate or at a further `gate`; answered, or fails with GateError.

        Codes: 20 late, 21 unknown run, 22 unknown part, 23 conflict, 82 the deadline passed before it could be sent.
        """
        future: concurrent.futures.Future[Told] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        taker = (gate or self.number) if verdict == "divert" else 0
        fields = tuple(str(field) for field in (self.number, run, part, verdict, taker))

        def done(answer: Fields) -> None:
            future.set_result(Told(answer.word("told"), datetime.now(UTC), time.monotonic() - order.first_sent_s))

        order = Order("VERDICT", fields, done, future.set_exception, _monotonic(deadline), run, self.number)
        self._ask(order)
        return future

    def acknowledge(self, event: int, run: int) -> None:
        """The event is recorded for good; the board may forget it. Of a run that is over, nothing is said."""

        def over(_: object) -> None:
            self.reports.acknowledged(event, run)

        self._ask(Order("ACK", (str(event),), over, over, run=run, lane=self.number))

    def command(self, name: str, *fields: object) -> concurrent.futures.Future[Fields]:
        """Any other command of the protocol."""
        future: concurrent.futures.Future[Fields] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        self._ask(Order(name, tuple(str(field) for field in fields), future.set_result, future.set_exception, lane=self.number))
        return future

    # Below, in the link's thread.

    def configure(self, call: Call, grades_supported: bool) -> None:
        """Puts the lane's settings in force, then those of its further gates. Raises GateError: when the board refuses."""
        self.configured = False
        if self._grades and not grades_supported:
            raise gate_error("not-supported", f"{self.line}: further gates on one belt (grades)")
        if self._settings is not None:
            for number, settings in ((self.number, self._settings), *self._grades.items()):
                self._commit(number, settings, call)
        self.configured = True
        self.follow(call("STATUS", self.number, "line").word("state"))

    def _commit(self, number: int, settings: LaneSettings, call: Call) -> None:
        # Committed in this run already, before the link broke: asking for the digest is one command instead of 25, over a bad wire too.
        if self._committed_in.get(number) == self.run and call("COMMIT", number).word("digest") == settings.digest:
            return
        digest = commit(settings, number, call)
        self._committed_in[number] = self.run
        if digest != settings.digest:
            log.warning("%s: lane %d has digest %s, ours %s: it knows other settings", self.line, number, digest, settings.digest)

    def follow(self, board_state: str) -> None:
        """The state that the board tells of this lane, in its words."""
        self.set(_STATES.get(board_state, GateState.GREETING))

    def set(self, state: GateState) -> None:
        if state is not self.state:
            log.info("%s: gate %s", self.line, state)
        self.state = state
        for each in GateState:
            metrics.gate_state.labels(self.line, each.value).set(each is state)


def _monotonic(deadline: datetime | None) -> float | None:
    return None if deadline is None else time.monotonic() + deadline.timestamp() - time.time()
