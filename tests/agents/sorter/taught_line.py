"""A line with a simulated board, its gate link and the socket of its sorter, without Kafka. `castline board` works with this line."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from click.testing import CliRunner, Result

from agents.gate.lane import GateLane
from agents.gate.link import GateLink, LinkSettings
from agents.sorter.command_socket import CommandSocket
from agents.sorter.decisions import lane_settings
from agents.sorter.line_commands import LineCommands
from deploy.cli.main import castline
from firmware import toolchain
from firmware.board.board import Board
from firmware.board.line import BoardLine, PseudoTerminal, SimulatedLine, run_in_real_time
from firmware.board.memory import BoardMemory
from firmware.board.plant import Belt, CastingFeed, Plant
from firmware.simulator.avr import start_mega
from firmware.simulator.avr_line import AvrLine
from streams.settings import GateSettings, load_settings
from tests.wired_line import wait_until

LINE = "line-1"
SETTINGS = """# settings of the foundry
[service]
run_dir = "{folder}/run"

[[lines]]
name = "line-1"  # the first line

[lines.gate]
port = "{folder}/board"
travel_mm = {travel_mm}  # measured with a ruler
belt_mm_per_s = 1000
board = {board}
"""


@dataclass
class TaughtLine:
    """The running line. `line` is the simulated board with its belt, and `gates` the settings that the sorter got."""

    file: Path
    line: BoardLine
    lane: GateLane
    commands: LineCommands
    plant: Plant
    gates: list[GateSettings] = field(default_factory=list)
    # Pulls the board's cable.
    unplug: Callable[[], None] = lambda: None

    def call(self, *arguments: str, keys: str | IO[bytes] = "") -> Result:
        """Runs `castline board` with the settings file, and types `keys`. A stream is read one line at a time."""
        environment: dict[str, str | None] = dict.fromkeys(name for name in os.environ if name.startswith("CASTLINE_"))
        runner = CliRunner(env=environment)
        return runner.invoke(castline, ["--settings", str(self.file), "board", *arguments], input=keys, standalone_mode=False)

    def teach(self, *arguments: str, keys: str | IO[bytes] = "", rate_per_s: float = 1.2, feed: Callable[[], None] | None = None) -> Result:
        """Runs `castline board teach` for the line. When the measurement has begun, 14 castings come, or `feed` is called.

        The command needs ten castings. On a busy machine, some castings are not measured, because the sorter reads the photo-eyes too late.
        """

        def begin(stopping: threading.Event) -> None:
            while not stopping.wait(0.02):
                if self.commands.teaching.is_measuring:
                    if feed is not None:
                        feed()
                    else:
                        self.plant.feed = CastingFeed(rate_per_s=rate_per_s, jitter=0.1, parts=14)
                    return

        with in_thread(begin):
            return self._teach(*arguments, keys=keys)

    def _teach(self, *arguments: str, keys: str | IO[bytes] = "") -> Result:
        return self.call("teach", "--line", LINE, "--page", str(self.file.with_name("page.html")), *arguments, keys=keys)


def write_settings(folder: Path, travel_mm: int, board: str = "{}") -> Path:
    """Writes the settings file of the line, and returns its path."""
    file = folder / "castline.toml"
    file.write_text(SETTINGS.format(folder=folder, travel_mm=travel_mm, board=board))
    return file


@contextmanager
def taught_line(
    folder: Path,
    travel_mm: int = 720,
    avr: bool = False,
    board: str = "{}",
    belt: Belt | None = None,
    make_board: Callable[[], Board] = lambda: Board(BoardMemory()),
) -> Iterator[TaughtLine]:
    """Runs a line whose photo-eyes are 600 mm apart, at a belt with 1000 mm/s. `travel_mm` and `board` are its settings."""
    file = write_settings(folder, travel_mm, board)
    plant = Plant(belt or Belt(speed_mm_s=1000, eye_gap_mm=600), CastingFeed(parts=0))
    with ExitStack() as stack:
        line: BoardLine
        if avr:
            line = AvrLine(stack.enter_context(start_mega(toolchain.build_firmware(), folder / "eeprom")), plant)
            line.boot()
        else:
            line = SimulatedLine(make_board(), plant)
        cable = stack.enter_context(ExitStack())
        terminal = cable.enter_context(PseudoTerminal(folder / "board"))
        cable.enter_context(in_thread(lambda stopping: run_in_real_time(line, terminal, stopping)))
        taught = stack.enter_context(run_sorter(file, line, plant))
        taught.unplug = cable.close
        wait_until(lambda: taught.lane.is_configured)
        yield taught


@contextmanager
def run_sorter(file: Path, line: BoardLine, plant: Plant) -> Iterator[TaughtLine]:
    """Runs the link and the socket of a sorter with this settings file. The board may be absent."""
    settings = load_settings(file, {})
    gate = settings.find_line(LINE).gate
    assert gate is not None
    link = GateLink(LinkSettings(gate.port))
    lane = link.add_lane(LINE, lambda event: None, lane_settings(gate), 1)
    taught = TaughtLine(file, line, lane, LineCommands(LINE, lane, gate, file.with_name("paused")), plant)
    taught.commands.teaching.on_gate_changed = taught.gates.append
    stack = ExitStack()
    stack.callback(link.stop)
    link.start()

    async def serve(stopping: threading.Event) -> None:
        async with CommandSocket(settings.service.run_dir, taught.commands):
            await asyncio.to_thread(stopping.wait)
            await taught.commands.teaching.end()

    with stack, in_thread(lambda stopping: asyncio.run(serve(stopping))):
        yield taught


@contextmanager
def in_thread(run: Callable[[threading.Event], None]) -> Iterator[None]:
    """Calls `run` in a thread, and sets its event at the end of the `with` block."""
    stopping = threading.Event()
    thread = threading.Thread(target=run, args=(stopping,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(10)
