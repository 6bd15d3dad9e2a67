"""The serial link to one board, in a thread of its own.

    away     --port is open, and the board has sent a frame or 2.5 s have passed--> greeting
    greeting --the board has answered HELLO, SYNC, CONFIGURE and COMMIT-----------> running
    running  --the answer to STATUS names the state safe or stopped---------------> safe or stopped
    safe or stopped --BEAT or the answer to STATUS names the state running--------> running
    any      --the board was reset------------------------------------------------> greeting
    any      --the port fails, 3 s of silence, or five tries without an answer----> away

See firmware/PROTOCOL.md.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event

from agents.gate.lane import BoardClock, GateEvent, GateLane, GateState
from agents.gate.port import PORT_ERRORS, SERIAL_PORTS, BoardPort, SerialPorts, Waker, describe_port_error
from agents.gate.requests import BoardRequest, BoardResponse, RequestWindow, gate_error
from firmware.fault_table import code_of
from firmware.lane_settings import TABLE, LaneSettings
from firmware.protocol import EVENT, EVENTS, HELLO_FIELDS, VERSION, Fields, Frame
from streams import metrics
from streams.backoff import Backoff
from streams.errors import GateError
from streams.operating_system import SYSTEM, OperatingSystem
from streams.supervision import SupervisedThread

log = logging.getLogger(__name__)

# Shortest and longest wait before the port is opened again after a failure.
FIRST_REOPEN_S, LONGEST_REOPEN_S = 0.2, 5.0
# After the host has opened the port, it waits for a frame from the board, for at most this many seconds. The host sends nothing in the
# meantime, because opening the port can reset a Mega. The Mega then stays in its boot loader for 0.84 s. A byte from the host would keep
# it there for 5 s more.
MAX_LISTENING_S = 2.5
MAX_GREETING_S = 8.0
HELLO_INTERVAL_S = 1.0
# If the board sends nothing for this long, the link treats it as gone and opens the port again.
MAX_SILENCE_S = 3.0
# If the board sends nothing for this long, it can be in its boot loader. The host then makes the boot loader start the firmware.
CAUGHT_SILENCE_S = 1.5
PING_INTERVAL_S = 0.4
SYNC_INTERVAL_S = 10.0
FIRST_SYNCS = 8
# Delay before the host sends refused settings again. The delay is long, because a person must correct the settings first.
REFUSED_RETRY_S = 30.0
# While parts are on the belt, the board cannot accept changed settings. The host sends these settings again after this many seconds.
BUSY_RETRY_S = 1.0
_U32 = 2**32
# An answer with one of these codes shows that the board was reset and that its BOOT event was lost.
_CODES_AFTER_RESET = tuple((str(code_of(name)),) for name in ("not-greeted", "not-committed"))


@dataclass(frozen=True)
class LinkSettings:
    """The serial port of one board.

    `window` is the largest number of commands that wait for an answer at the same time. If the board allows fewer, its limit applies.
    """

    port: str
    baud: int = 115200
    window: int = 8


class GateLink:
    """Keeps a connection to one board.

    Call `add_lane` for each line, then `start`. After that, any thread can use the lanes that `add_lane` returned.

    `acknowledges_unserved`: True if the host also acknowledges the events of lanes that were not added. The board deletes an event
    after its acknowledgement. So pass False if another process must still record the events of the other lanes.
    """

    def __init__(
        self,
        settings: LinkSettings,
        acknowledges_unserved: bool = True,
        system: OperatingSystem = SYSTEM,
        ports: SerialPorts = SERIAL_PORTS,
    ) -> None:
        self.settings = settings
        self._system = system
        self._ports = ports
        self._acknowledges_unserved = acknowledges_unserved
        self.lanes: list[GateLane] = []
        self._waker = ports.make_waker()
        self._requests = RequestWindow(waker=self._waker)
        self._clock = BoardClock()
        self._stopping = system.make_event()
        self._session: BoardSession | None = None
        name = f"gate-{settings.port.rsplit('/', 1)[-1]}"
        self._thread = SupervisedThread(name, self._run, self._stopping, self._pause, system)

    def add_lane(
        self,
        line: str,
        on_event: Callable[[GateEvent], None],
        settings: LaneSettings | None = None,
        lane: int = 1,
        grades: Mapping[int, LaneSettings] | None = None,
    ) -> GateLane:
        """Adds the lane that `line` is wired to. Must be called before `start`.

        - `on_event`: called with each event of the lane, in the link's thread.
        - `settings`: the settings of the lane. If they are None, the host sends no settings to the board.
        - `grades`: the settings of each additional gate at the belt. The key is the lane number of the gate.
        """
        added = GateLane(line, lane, settings, grades or {}, self._clock, self._requests, on_event)
        self.lanes.append(added)
        return added

    def start(self) -> None:
        """Starts the thread that opens the port and keeps it open. A second call does nothing."""
        if self._thread.is_started:
            return
        self._set_states(GateState.AWAY)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """False if the link's thread has ended. The thread ends only after `stop`, or because of a programming error."""
        return not self._thread.is_started or self._thread.is_alive()

    def stop(self) -> None:
        """Closes the port. Requests that the board has not answered fail with code 84 (`stopping`)."""
        self._stopping.set()
        self._waker.wake()
        self._thread.join(5)
        if not self._thread.is_alive():
            self._requests.drop_all("stopping")
            self._waker.close()

    def send_command(self, name: str, *fields: object) -> Future[BoardResponse]:
        """Sends a command of the protocol to the board through the first lane. The command line uses this method."""
        return self.lanes[0].send_command(name, *fields)

    # The methods below run in the link's thread.

    def _run(self) -> None:
        backoff = Backoff(FIRST_REOPEN_S, LONGEST_REOPEN_S)
        while not self._stopping.is_set():
            state = GateState.AWAY
            try:
                self._serve()
                continue
            except PORT_ERRORS as error:
                wait_s = backoff.failed()
                problem = describe_port_error(self.settings.port, error)
                log.warning("%s The port is opened again in %.1f s.", problem, wait_s)
            except GateError as error:
                if self._session is not None and self._session.is_greeted:
                    backoff.succeeded()
                wait_s = backoff.failed()
                problem = f"board at {self.settings.port}: {error}"
                log.log(logging.WARNING if error.retriable else logging.ERROR, problem)
                if not error.retriable:
                    wait_s, state = REFUSED_RETRY_S, GateState.REFUSED
            except Exception:
                self._begin_again(GateState.AWAY)
                raise
            for lane in self.lanes:
                # If the board has refused the settings of a lane, `lane.problem` already gives the exact reason. The text in `problem` is
                # less exact, so it does not replace this reason.
                if not lane.state is state is GateState.REFUSED:
                    lane.problem = problem
            self._begin_again(state)
            self._pause(wait_s)
        self._set_states(GateState.AWAY)
        self._requests.requeue()
        self._requests.drop_all("stopping")

    def _serve(self) -> None:
        """Opens the port and talks to the board until the link stops.

        If the connection fails, raises GateError or one of PORT_ERRORS.
        """
        port = self._ports.open(self.settings.port, self.settings.baud)
        try:
            self._session = session = BoardSession(
                port, self._waker, self.lanes, self._requests, self._clock, self._stopping, self._acknowledges_unserved, self._system
            )
            while not self._stopping.is_set():
                try:
                    session.begin(self.settings.window)
                    while not self._stopping.is_set():
                        session.run_cycle()
                except BoardReset:
                    log.warning("the board at %s was reset", self.settings.port)
                    self._requests.requeue()
        finally:
            port.close()

    def _begin_again(self, state: GateState) -> None:
        """Ends the session with the board. Requests that the board has not answered wait for the next session."""
        self._session = None
        self._set_states(state)
        self._requests.requeue()

    def _set_states(self, state: GateState) -> None:
        for lane in self.lanes:
            lane.set_state(state)

    def _pause(self, wait_s: float) -> None:
        """Waits before the next attempt to open the port. During the wait, requests fail when their deadline passes."""
        end_s = time.monotonic() + wait_s
        while not self._stopping.is_set() and (now_s := time.monotonic()) < end_s:
            self._requests.drop_expired(now_s)
            self._stopping.wait(min(0.1, end_s - now_s))


class BoardReset(Exception):
    """Raised if a message of the board shows that the board was reset during the session."""


class BoardSession:
    """The exchange of messages with a board, from the opening of its serial port until the port fails.

        listening --frame--> greeting --HELLO, SYNC--> each lane: CONFIGURE, COMMIT --> again and again: requests, heartbeat, events

    If a lane cannot be configured, the session configures it later. The other lanes work in the meantime.
    """

    def __init__(
        self,
        port: BoardPort,
        waker: Waker,
        lanes: Sequence[GateLane],
        requests: RequestWindow,
        clock: BoardClock,
        stopping: Event,
        acknowledges_unserved: bool,
        system: OperatingSystem = SYSTEM,
    ) -> None:
        self.run = 0
        self.is_greeted = False
        self._port = port
        self._waker = waker
        self._lanes = lanes
        self._requests = requests
        # The queue from which commands are sent now. Usually this queue is `requests`, which holds the commands of the sorters. During the
        # greeting, a separate queue holds the commands of the greeting, and the commands of the sorters wait.
        self._window = requests
        self._clock = clock
        self._stopping = stopping
        self._system = system
        self._acknowledges_unserved = acknowledges_unserved
        self._supports_grades = False
        self._is_board_heard = False
        self._left_boot_loader_s = 0.0
        self._received_s = self._sent_s = self._next_sync_s = 0.0

    def begin(self, max_unanswered: int) -> None:
        """Greets the board and configures all lanes. In the meantime, requests of the sorters wait.

        Raises GateError if the board does not answer, or if it refuses the settings of all lanes.
        """
        for lane in self._lanes:
            lane.begin_greeting()
        self.is_greeted = False
        self._window = RequestWindow()
        try:
            greeting = self._greet()
            self.is_greeted = True
            self._begin_run(greeting)
            for _ in range(FIRST_SYNCS):
                self._sync_clock()
            if not self._clock.is_set:
                raise gate_error("stopping" if self._stopping.is_set() else "link-away", "SYNC")
            # Perhaps the board was reset after its answer to HELLO. Some of the clock samples would then come from before the reset, and
            # some from after it. A board that was reset refuses SHOW. So an answer to SHOW proves that there was no reset.
            self._ask("SHOW", self._lanes[0].number, TABLE[0].key)
            for lane in self._lanes:
                self._requests.add_missing(lane.read_early_events(time.monotonic(), self._system.now()))
            refusals = [refusal for lane in self._lanes if (refusal := self._configure(lane)) is not None]
            if len(refusals) == len(self._lanes):
                raise refusals[0]
        finally:
            self._window = self._requests
        self._requests.size = min(max_unanswered, greeting.number("window"))

    def run_cycle(self) -> None:
        """Queues PING and SYNC if they are due, configures waiting lanes, then sends and receives once.

        Raises GateError if the board has sent nothing for 3 s.
        """
        now_s = time.monotonic()
        if now_s - self._received_s > MAX_SILENCE_S:
            raise gate_error("link-away", f"silent for {MAX_SILENCE_S:.0f} s")
        if now_s - max(self._received_s, self._left_boot_loader_s) > CAUGHT_SILENCE_S:
            self._left_boot_loader_s = now_s
            self._port.leave_boot_loader()
        if now_s - self._sent_s > PING_INTERVAL_S and not len(self._window):
            self._window.add([BoardRequest("PING", (str(int(now_s * 1000) % _U32),))])
        if now_s >= self._next_sync_s and not len(self._window):
            self._next_sync_s = now_s + SYNC_INTERVAL_S
            self._window.add([BoardRequest("SYNC")])
        for lane in self._lanes:
            if not lane.is_configured and now_s >= lane.next_configuring_s:
                self._configure(lane)
        self._send_and_receive(0.1)

    # Greeting and configuration

    def _greet(self) -> Fields:
        self._listen()
        self._received_s = time.monotonic()
        end_s = self._received_s + MAX_GREETING_S
        while time.monotonic() < end_s and not self._stopping.is_set():
            try:
                if (answer := self._try_once("HELLO", *HELLO_FIELDS)) is not None:
                    return answer
            except GateError as error:
                if error.code != code_of("version"):
                    raise
                raise _other_version_error() from error
            self._port.leave_boot_loader()
        if self._stopping.is_set():
            raise gate_error("stopping", "HELLO")
        raise _no_board_error(self._port.received)

    def _listen(self) -> None:
        """Waits up to MAX_LISTENING_S for a frame from the board.

        Sends nothing, because a boot loader starts the firmware only if no bytes come.
        """
        end_s = time.monotonic() + MAX_LISTENING_S
        while not self._is_board_heard and time.monotonic() < end_s and not self._stopping.is_set():
            self._send_and_receive(0.05)

    def _begin_run(self, greeting: Fields) -> None:
        highest = max(number for lane in self._lanes for number in lane.lane_numbers)
        if greeting.number("lanes") < highest:
            raise gate_error("unknown-lane", f"lane {highest}, but the board has {greeting.number('lanes')} lanes")
        self.run, cause = self._choose_run(greeting.number("run")), greeting.word("cause")
        self._requests.run = self.run
        self._supports_grades = bool(greeting.number("grades"))
        lines = ", ".join(lane.line for lane in self._lanes)
        log.info("%s: the board answers. Its run number is %d, and the cause of its last reset was %s.", lines, self.run, cause)
        # A new board can have the same run number as the board that it replaced. So an unchanged run number does not prove that the board
        # is the same. The time on the board's clock is checked, too.
        has_restarted = self._has_restarted()
        self._clock.reset()
        for lane in self._lanes:
            lane.begin_run(self.run, cause, has_restarted)

    def _has_restarted(self) -> bool:
        """Returns whether the board has restarted, or was exchanged, since the last samples of its clock.

        Raises GateError if the board answers none of several SYNC commands. The clock then keeps its samples, so that the next greeting can
        check again.
        """
        for _ in range(FIRST_SYNCS):
            if (answer := self._try_once("SYNC")) is not None:
                return self._clock.shows_restart(answer.number("board_ms"), self._received_s)
        raise gate_error("stopping" if self._stopping.is_set() else "link-away", "SYNC")

    def _choose_run(self, run: int) -> int:
        """Chooses the run number of the board and returns it.

        A part is known by its run number and its part number. If the board has replaced another board, its run number can already be in
        use for old parts. In this case, the board gets a new run number.
        """
        counted = {lane.number: self._ask("STATUS", lane.number, "count").number("parts") for lane in self._lanes}
        unused = max(lane.choose_run(run, counted[lane.number]) for lane in self._lanes)
        if unused == run:
            return run
        lines = ", ".join(lane.line for lane in self._lanes)
        try:
            raised = self._ask("RAISE", unused).number("run")
        except GateError as error:
            log.error(
                "%s: the board must change its run number from %d to %d, but refuses the change (%s). New parts can get the numbers of "
                "old parts. Load newer firmware with castline board flash.",
                lines,
                run,
                unused,
                error,
            )
            return run
        message = "%s: the board was exchanged or has lost its memory. So its run number was changed from %d to %d."
        log.warning(message, lines, run, raised)
        return raised

    def _sync_clock(self) -> None:
        sent_s = time.monotonic()
        if (answer := self._try_once("SYNC")) is not None:
            self._clock.add_sample(sent_s, self._received_s, answer.number("board_ms"), answer.number("board_us"))
        self._next_sync_s = time.monotonic() + SYNC_INTERVAL_S

    def _configure(self, lane: GateLane) -> GateError | None:
        """Sends the settings of a lane to the board. Returns the error if the board refuses them, otherwise None."""
        try:
            self._commit_lane(lane)
        except GateError as error:
            is_busy = error.code == code_of("busy")
            if error.retriable and not is_busy:
                raise
            # While castings are on the belt, the board is busy and accepts no settings. It sorts these castings with the settings that it
            # accepted earlier in this run. So the host still sends the verdicts of these castings.
            if is_busy and lane.accepted_run == self.run:
                self._requests.held_lanes.discard(lane.number)
            else:
                self._requests.held_lanes.add(lane.number)
            lane.next_configuring_s = time.monotonic() + (BUSY_RETRY_S if is_busy else REFUSED_RETRY_S)
            if is_busy:
                lane.problem = "A casting is on the belt, so the board accepts no other settings. Let the belt run empty."
                return None
            log.error("%s: the board refuses the settings: %s. They are sent again in %.0f s.", lane.line, error, REFUSED_RETRY_S)
            # The reason is set before the state, because other threads read the reason as soon as they see the new state.
            lane.problem = f"The board refuses the settings: {error}."
            lane.set_state(GateState.REFUSED)
            return error
        self._requests.held_lanes.discard(lane.number)
        lane.problem = ""
        return None

    def _commit_lane(self, lane: GateLane) -> None:
        """Makes the board use new settings for all gates on one belt: the gate of `lane` and the additional gates.

        Settings that the board already uses are not sent again. Raises GateError if the board refuses the settings.
        """
        lane.is_configured, settings_by_lane = False, lane.settings_by_lane
        if lane.has_grades and not self._supports_grades:
            raise gate_error("not-supported", f"{lane.line}: additional gates on one belt (grades)")
        for number, settings in settings_by_lane.items():
            # COMMIT returns the digest of the settings that the board has. If this digest equals `settings.digest`, the board already has
            # these settings, and the host does not send them again.
            was_committed = lane.committed_run.get(number) == self.run
            if was_committed and self._ask("COMMIT", number).word("digest") == settings.digest:
                continue
            digest = self._commit(number, settings)
            lane.committed_run[number] = self.run
            if digest != settings.digest:
                log.warning(
                    "%s: for the settings of lane %d, the board returned the digest %s instead of %s. The firmware of the board and "
                    "this program know different settings. Load the firmware of this release with: castline board flash",
                    lane.line,
                    number,
                    digest,
                    settings.digest,
                )
        # Perhaps another thread has changed the settings in the meantime. In this case, `is_configured` stays False, and the next cycle
        # sends the newer settings.
        lane.is_configured, lane.accepted_run = lane.settings_by_lane is settings_by_lane, self.run
        lane.on_accepted(settings_by_lane)
        line = self._ask("STATUS", lane.number, "line")
        lane.set_state_from_board(line.word("state"), line.number("code"))

    def _commit(self, lane_number: int, settings: LaneSettings) -> str:
        """Sends all settings of a lane, then the command COMMIT. Returns the digest of the settings that the board now uses.

        Raises GateError if the board refuses a setting, for example while parts are on the belt.
        """
        for setting in TABLE:
            value = settings.values[setting.key]
            try:
                self._ask("CONFIGURE", lane_number, setting.key, value)
            except GateError as error:
                if error.code != code_of("unknown-setting"):
                    raise
                if value != setting.default:
                    raise GateError(
                        f"The firmware of the board does not know the setting {setting.key}, because the firmware is older than this "
                        f"release. Lane {lane_number} needs {setting.key} = {value}. Write the firmware of this release with castline "
                        f"board flash, or remove {setting.key} from the settings file",
                        error.code,
                        retriable=False,
                    ) from error
        answer = self._ask("COMMIT", lane_number)
        if answer.get("warning") == "gate-far":
            log.warning(
                "lane %d: gate_mm is %d, which is many times spacing_mm. If too many castings are between photo-eye 2 and the gate, the "
                "board stops sorting (fault 47). Move the gate nearer to photo-eye 2, or raise spacing_mm.",
                lane_number,
                settings.number("gate_mm"),
            )
        return answer.word("digest")

    # One request and its answer

    def _try_once(self, name: str, *fields: object) -> Fields | None:
        """Sends a command and returns the fields of its answer, or None if no answer arrives within a second.

        Raises GateError if the answer is ERR.
        """
        request = BoardRequest(name, tuple(str(field) for field in fields))
        window, end_s = self._window, time.monotonic() + HELLO_INTERVAL_S
        window.add([request])
        while not request.response.done() and time.monotonic() < end_s and not self._stopping.is_set():
            self._send_and_receive(0.05)
        if not request.response.done():
            window.drop_all("no-answer")
            return None
        return request.response.result().fields

    def _ask(self, name: str, *fields: object) -> Fields:
        """Sends a command until it is answered. Raises GateError if the answer is ERR, or if no answer arrives after all tries."""
        request = BoardRequest(name, tuple(str(field) for field in fields))
        self._window.add([request])
        while not request.response.done():
            if self._stopping.is_set():
                raise gate_error("stopping", name)
            self._send_and_receive(0.05)
        return request.response.result().fields

    # Sending and receiving

    def _send_and_receive(self, max_wait_s: float) -> None:
        """Sends the frames whose time has come. Then waits for new frames or requests, and reads the frames that have arrived.

        The wait lasts at most `max_wait_s` seconds.
        """
        now_s = time.monotonic()
        self._requests.drop_expired(now_s, [lane.number for lane in self._lanes if lane.state is GateState.STOPPED])
        if due := self._window.take_due(now_s):
            self._port.write(due)
            self._sent_s = now_s
        for lane_number, count in self._window.take_resends().items():
            metrics.gate_resends.labels(self._line_of(lane_number)).inc(count)
        due_s = self._window.next_due_s()
        wait_s = max_wait_s if due_s is None else min(max_wait_s, max(0.0, due_s - time.monotonic()))
        for frame in self._port.wait_for_frames(self._waker, wait_s):
            self._handle_frame(frame)

    def _handle_frame(self, frame: Frame) -> None:
        self._received_s = time.monotonic()
        self._is_board_heard = True
        if frame.start == EVENT:
            self._handle_event(frame)
        elif frame.name == "ERR" and self._shows_reset(frame.fields[:1]):
            raise BoardReset
        elif (request := self._window.take_answered(frame, self._system.now())) is not None:
            if request.tries == 1:
                metrics.gate_round_trip_seconds.labels(self._line_of(request.lane)).observe(self._received_s - request.sent_s)
            self._handle_answer(request)

    def _shows_reset(self, code: tuple[str, ...]) -> bool:
        """Returns whether an error code shows that the board was reset during or after the greeting.

        `code` comes from the board's answer to a refused command.
        """
        return code in _CODES_AFTER_RESET if self._window is self._requests else self.is_greeted and code == _CODES_AFTER_RESET[0]

    def _handle_answer(self, request: BoardRequest) -> None:
        """Uses the answer to a command: deletes an acknowledged event, adds a clock sample, or sets the state of a lane."""
        if request.name == "ACK":
            for lane in self._lanes:
                if lane.number == request.lane:
                    lane.forget_event(int(request.fields[0]), request.run)
        if request.response.exception() is not None:
            return
        answer = request.response.result().fields
        # If SYNC was sent twice, the host does not know which SYNC the board has answered. So this answer gives no clock sample.
        if request.name == "SYNC" and request.tries == 1 and self._window is self._requests:
            self._clock.add_sample(request.sent_s, self._received_s, answer.number("board_ms"), answer.number("board_us"))
        if request.name == "STATUS" and answer.word("page") == "line":
            for lane in self._lanes:
                if str(lane.number) == request.fields[0] and lane.is_configured:
                    lane.set_state_from_board(answer.word("state"), answer.number("code"))

    def _handle_event(self, frame: Frame) -> None:
        if frame.name == "BOOT":
            if self.is_greeted:
                raise BoardReset
        elif frame.name == "BEAT":
            if len(frame.fields) > 1:
                self._handle_heartbeat(frame.fields[1])
        # Events with unknown names are ignored. A board with newer firmware than this program can send them.
        elif frame.name in EVENTS:
            now = self._system.now()
            for lane in self._lanes:
                self._window.add_missing(lane.read_event(frame, self._received_s, now))
            if self._acknowledges_unserved and self._is_of_unserved_lane(frame):
                self._window.add_missing([BoardRequest("ACK", (frame.fields[0],))])

    def _is_of_unserved_lane(self, frame: Frame) -> bool:
        """Returns whether an event belongs to a lane that was not added to the link.

        A sorter acknowledges such an event, because unacknowledged events would fill the board's memory.
        """
        served = {"0", *(str(lane.number) for lane in self._lanes)}
        return frame.name in ("GATE", "FAULT") and len(frame.fields) > 1 and frame.fields[1] not in served

    def _handle_heartbeat(self, worst_state: str) -> None:
        """Updates the states of the lanes. If a lane is not `running`, asks the board for the state of each lane."""
        for lane in self._lanes:
            if not lane.is_configured or (worst_state == "running" and lane.state is GateState.RUNNING):
                continue
            if worst_state == "running":
                lane.set_state_from_board(worst_state, 0)
            else:
                self._window.add_missing([BoardRequest("STATUS", (str(lane.number), "line"), lane=lane.number)])

    def _line_of(self, lane_number: int | None) -> str:
        """Returns the line of a lane, for a metric label. If `lane_number` is None, returns the first line of the board."""
        return next((lane.line for lane in self._lanes if lane.number == lane_number), self._lanes[0].line)


def _other_version_error() -> GateError:
    return GateError(
        f"The board's firmware does not support version {VERSION} of the gate protocol, which this release of Castline uses. Write the "
        "firmware of this release with castline board flash, or install the release of Castline to which the board's firmware belongs",
        code_of("version"),
        retriable=False,
    )


def _no_board_error(received_bytes: int) -> GateError:
    """Returns the error for a device that does not answer HELLO. The message depends on whether the device has sent any bytes."""
    code = code_of("no-answer")
    found = "sends bytes that are no frames of the gate protocol" if received_bytes else "sends nothing"
    advice = 'Check the port, and write the firmware to the board with "castline board flash"'
    return GateError(f"HELLO: no board answered ({code} no-answer), and the device at this port {found}. {advice}", code, retriable=True)
