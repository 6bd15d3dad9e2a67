"""One conversation with a board for a person at the command line: greet, ask, end."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agents.gate.link import GateLink, LinkSettings
from firmware.board.lane_settings import LaneSettings
from firmware.board.words import Fields
from streams.errors import GateError

# A Mega is deaf for up to 3 s after its port is opened; then it is greeted and, where asked for, configured.
ANSWER_S = 15.0


class Talk:
    """Asks commands of the protocol; answers come as fields, refusals as GateError."""

    def __init__(self, link: GateLink) -> None:
        self._link = link

    def ask(self, name: str, *fields: object) -> Fields:
        """Raises GateError: when the board refuses, or does not answer within 15 s."""
        try:
            return self._link.send_command(name, *fields).result(ANSWER_S).fields
        except concurrent.futures.TimeoutError:
            port, state = self._link.settings.port, self._link.lanes[0].state
            raise GateError(
                f"expected an answer to {name} from the board at {port} within {ANSWER_S:.0f} s, found none; the link is {state}. "
                "Is the port right, and held by no sorter?"
            ) from None


@contextmanager
def talk(
    port: str, baud: int, lane: int, settings: LaneSettings | None = None, grades: Mapping[int, LaneSettings] | None = None
) -> Iterator[Talk]:
    """A conversation with the board at `port`; on a Mega, opening the port resets it.

    Raises GateError: when there is no such port.
    """
    if not Path(port).exists():
        raise GateError(f"expected a serial port at {port}, found none", 83)
    link = GateLink(LinkSettings(port, baud))
    link.add_lane("board", lambda event: None, settings, lane, grades)
    link.start()
    try:
        yield Talk(link)
    finally:
        link.stop()
