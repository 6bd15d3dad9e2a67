"""The socket of a sorter survives clients that send nothing, too much or no command, and closes all clients at its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.gate.link import GateLink, LinkSettings
from agents.sorter import command_socket
from agents.sorter.command_socket import CommandSocket, ask_sorter, is_sorter_running, socket_name
from agents.sorter.line_commands import LineCommands
from streams.errors import GateError
from streams.records import Command, CommandAnswer, make_command
from streams.settings import GateSettings
from tests.log_lines import castline_records

LINE = "line-1"


@pytest.fixture
def commands(tmp_path: Path) -> LineCommands:
    gate = GateSettings(port=str(tmp_path / "board"), travel_mm=600, belt_mm_per_s=1000)
    lane = GateLink(LinkSettings(gate.port)).add_lane(LINE, lambda event: None)
    return LineCommands(LINE, lane, gate, tmp_path / "paused")


def send(folder: Path, data: bytes) -> bytes:
    """Sends `data` to the socket and returns what the sorter answers before it closes the connection."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(folder / socket_name(LINE)))
        try:
            client.sendall(data)
            return client.recv(2**16)
        except (BrokenPipeError, ConnectionResetError):
            return b""


def with_socket(folder: Path, commands: LineCommands, do: Callable[[], object]) -> None:
    """Calls `do` in a thread while the socket is open."""

    async def run() -> None:
        async with CommandSocket(folder, commands):
            await asyncio.to_thread(do)

    asyncio.run(run())


def test_a_client_that_was_accepted_just_before_the_end_is_closed(
    tmp_path: Path, commands: LineCommands, caplog: pytest.LogCaptureFixture
) -> None:
    # Asyncio's own servers left the transport of such a client open, and logged a traceback.
    for _ in range(30):
        with_socket(tmp_path, commands, lambda: is_sorter_running(tmp_path, LINE))
        gc.collect()
    assert not is_sorter_running(tmp_path, LINE)
    assert not castline_records(caplog)


def test_a_look_at_the_socket_is_not_logged_as_a_command(tmp_path: Path, commands: LineCommands, caplog: pytest.LogCaptureFixture) -> None:
    found: list[bool] = []

    def look_and_ask() -> None:
        found.append(is_sorter_running(tmp_path, LINE))
        # The answer shows that the socket has finished with the client before it.
        assert ask_sorter(tmp_path, make_command(LINE, "monitor", "anna", 10)) is not None

    with_socket(tmp_path, commands, look_and_ask)
    assert found == [True]
    assert not castline_records(caplog)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"{\n", "The received text is not a command"),
        (b"\n\n", "The received text is not a command"),
        (b"\xff" * (command_socket._MAX_LINE_BYTES + 1), "The line is longer than 262144 bytes"),
    ],
)
def test_what_is_no_command_is_named_in_the_log_and_the_next_command_is_answered(
    tmp_path: Path, commands: LineCommands, caplog: pytest.LogCaptureFixture, data: bytes, sentence: str
) -> None:
    def send_and_ask() -> None:
        assert send(tmp_path, data) == b""
        answered = ask_sorter(tmp_path, make_command(LINE, "monitor", "anna", 10))
        assert answered is not None
        assert answered.answer is not None

    with caplog.at_level(logging.WARNING):
        with_socket(tmp_path, commands, send_and_ask)
    (record,) = castline_records(caplog)
    assert sentence in record.getMessage()


def test_a_command_that_fails_ends_neither_the_socket_nor_other_commands(
    tmp_path: Path, commands: LineCommands, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = commands.execute

    async def fail_once(command: Command) -> CommandAnswer:
        if command.asked_by == "anna":
            raise KeyError("bord")
        return await execute(command)

    monkeypatch.setattr(commands, "execute", fail_once)

    def ask_twice() -> None:
        with pytest.raises(GateError, match="did not answer"):
            ask_sorter(tmp_path, make_command(LINE, "monitor", "anna", 10))
        assert ask_sorter(tmp_path, make_command(LINE, "monitor", "ben", 10)) is not None

    with_socket(tmp_path, commands, ask_twice)
    (record,) = castline_records(caplog)
    assert "because of a fault of Castline" in record.getMessage()


def test_a_slow_client_is_closed_and_delays_no_other(
    tmp_path: Path, commands: LineCommands, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_socket, "_READ_S", 0.5)

    def wait_and_ask() -> None:
        with socket.socket(socket.AF_UNIX) as slow:
            slow.settimeout(10)
            slow.connect(str(tmp_path / socket_name(LINE)))
            slow.sendall(b'{"schema"')
            assert ask_sorter(tmp_path, make_command(LINE, "monitor", "anna", 10)) is not None
            assert slow.recv(1) == b""

    with_socket(tmp_path, commands, wait_and_ask)
    (record,) = castline_records(caplog)
    assert "sent no end of line within 0.5 s" in record.getMessage()
