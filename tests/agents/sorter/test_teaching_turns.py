"""Commands of a teaching session that come at the same time. The board of these tests accepts settings at moments that a test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from agents.gate.lane import BoardClock, GateLane, GateState
from agents.gate.requests import RequestWindow
from agents.sorter import teaching
from agents.sorter.board_questions import BoardQuestions
from agents.sorter.decisions import lane_settings
from agents.sorter.teaching import Teaching
from firmware.protocol import Fields
from streams.errors import GateError
from streams.records import CommandAnswer, make_command
from streams.settings import GateSettings

LINE = "line-1"
GATE = GateSettings(port="/dev/null", travel_mm=720)
EDGES = ("edges", "edge_ms", "edge_steps", "length_ms", "length_steps")


class PatientBoard(BoardQuestions):
    """A board whose lane runs with `tracked` castings on its belt. It accepts settings only when a test says so."""

    def __init__(self) -> None:
        super().__init__(LINE, GateLane(LINE, 1, lane_settings(GATE), {}, BoardClock(), RequestWindow(), lambda event: None), GATE.port)
        self.tracked = 0
        self.accept()

    async def ask(self, deadline_s: float, name: str, *fields: object) -> Fields:
        await asyncio.sleep(0)
        return Fields()

    async def read_page(self, deadline_s: float, number: int, page: str) -> dict[str, int | str]:
        await asyncio.sleep(0)
        return {"state": "running", "code": 0, "tracked": self.tracked, **dict.fromkeys(EDGES, 0)}

    async def read_settings(self, deadline_s: float, number: int) -> dict[str, int | str]:
        await asyncio.sleep(0)
        return {}

    def accept(self) -> None:
        self.lane.is_configured = True

    def number(self, key: str) -> int:
        """Returns a setting that the board has accepted, or that it gets as soon as it can."""
        return self.lane.settings_by_lane[1].number(key)


class Session:
    """A teaching session, and the settings of the gate that the sorter got from it."""

    def __init__(self) -> None:
        self.board = PatientBoard()
        self.teaching = Teaching(self.board, GATE)
        self.gates: list[GateSettings] = []
        self.teaching.on_gate_changed = self.gates.append
        self.id = ""

    async def ask(self, teach: str, **fields: object) -> CommandAnswer:
        command = make_command(LINE, "teach", "anna@line-pc", 15, teach=teach, **({"session": self.id} if self.id else {}), **fields)
        return await self.teaching.execute(command, asyncio.get_running_loop().time() + 15)

    async def begin(self) -> None:
        beginning = asyncio.create_task(self.ask("begin"))
        await until(lambda: self.board.number("lost_limit") == 50)
        self.board.accept()
        self.id = str((await beginning).values["board"]["session"])


async def until(is_true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the awaited state did not come")


@pytest.mark.asyncio
async def test_a_session_that_ends_while_new_settings_wait_for_an_empty_belt_gives_the_lane_its_former_settings() -> None:
    session = Session()
    await session.begin()
    applying = asyncio.create_task(session.ask("apply", settings={"travel_mm": 650}))
    await until(lambda: session.board.number("eye_gap_mm") == 650)
    await session.ask("end")
    assert session.board.number("eye_gap_mm") == 720
    session.board.accept()
    with pytest.raises(GateError, match="ended before the board had accepted"):
        await applying
    assert (session.board.number("eye_gap_mm"), session.gates) == (720, []), "the sorter must not use settings that the board does not have"


@pytest.mark.asyncio
async def test_of_two_persons_who_begin_at_the_same_moment_one_is_told_to_wait() -> None:
    session = Session()
    first, second = (asyncio.create_task(session.ask("begin")) for _ in range(2))
    await until(lambda: session.board.number("lost_limit") == 50)
    session.board.accept()
    answer, refusal = await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(answer, CommandAnswer)
    assert isinstance(refusal, GateError), f"two sessions began: {answer} and {refusal}"
    assert "has been teaching line-1 since" in str(refusal)


@pytest.mark.asyncio
async def test_a_begin_that_fails_leaves_the_line_to_the_next_person() -> None:
    session = Session()
    session.board.tracked = 1
    with pytest.raises(GateError, match="A casting is on the belt"):
        await session.ask("begin")
    session.board.tracked = 0
    await session.begin()
    assert session.id


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (GateState.REFUSED, "The board refuses the new settings"),
        (GateState.AWAY, "has no connection to the board"),
        (GateState.RUNNING, "A casting is on the belt"),
    ],
)
async def test_the_reason_why_settings_are_not_used_is_the_true_one(
    state: GateState, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teaching, "_MAX_BUSY_S", 0.1)
    session = Session()
    await session.begin()
    session.board.lane.set_state(state)
    session.board.lane.problem = "Connect the board."
    with pytest.raises(GateError, match=sentence):
        await session.ask("apply", settings={"travel_mm": 650})
    assert session.board.number("eye_gap_mm") == 720


def test_the_temporary_settings_of_a_session_are_not_the_lasting_ones() -> None:
    async def run() -> None:
        session = Session()
        await session.begin()
        assert session.board.lane.settings_by_lane != session.teaching.lasting_settings
        await session.teaching.end()
        assert session.board.lane.settings_by_lane == session.teaching.lasting_settings == {1: lane_settings(GATE)}

    asyncio.run(run())
