"""The local Unix socket of a sorter. The command line sends its commands to the sorter through this socket.

A command and its answer are each one line of JSON (`castline.command.v1`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from agents.sorter.line_commands import LineCommands
from streams.errors import GateError, RecordError, SettingsError
from streams.record_reader import read_record
from streams.records import Command, make_answer

log = logging.getLogger(__name__)

_MAX_LINE_BYTES = 2**18
_READ_S = 5.0
# After an error, such as too many open files, the sorter waits this long before it accepts the next client.
_ACCEPT_AGAIN_S = 1.0
# Each command has a time at which it expires. The program that sent the command waits this many seconds longer for the answer.
_ANSWER_MARGIN_S = 3.0


def socket_name(line: str) -> str:
    """Returns the name of the socket of the sorter of `line` in the folder `service.run_dir`."""
    return f"sorter-{line}.sock"


@contextmanager
def _short_address(folder: Path, name: str) -> Iterator[str]:
    """Yields an address of the socket `name` in `folder`.

    Linux allows at most 107 bytes for the address of a socket, so the address contains a short path instead of the path of `folder`.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def _connect(client: socket.socket, path: Path) -> bool:
    """Connects to the socket of a sorter. Returns False if no sorter listens. Raises GateError if the socket cannot be opened."""
    try:
        with _short_address(path.parent, path.name) as address:
            client.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError as error:
        raise GateError(f"Cannot open the sorter's socket {path}: {error}. Run the command as the user of the sorter.") from error
    return True


def is_sorter_running(folder: Path, line: str) -> bool:
    """Returns whether a sorter of `line` takes commands in `folder` (`service.run_dir`) on this machine.

    Raises GateError if the socket cannot be opened.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        return _connect(client, folder / socket_name(line))


def ask_sorter(folder: Path, command: Command) -> Command | None:
    """Sends a command to the sorter that serves the line of the command, and returns the record with the answer.

    Returns None if no sorter listens in `folder` (`service.run_dir`). Raises GateError if the sorter does not answer.
    """
    path = folder / socket_name(command.line)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout((command.valid_until - command.asked_at).total_seconds() + _ANSWER_MARGIN_S)
        if not _connect(client, path):
            return None
        try:
            client.sendall(command.encode() + b"\n")
            with client.makefile("rb") as file:
                return Command.decode(file.readline(_MAX_LINE_BYTES))
        except (OSError, ValueError) as error:
            raise GateError(
                f"The sorter of {command.line} did not answer the command {command.action}. Read the log of the sorter. The command may "
                "have been executed."
            ) from error


class CommandSocket:
    """Listens on the socket of one line while the `async with` block runs. Only the user of the sorter can open the socket."""

    def __init__(self, folder: Path, commands: LineCommands) -> None:
        self._folder = folder
        self._commands = commands
        self._path = folder / socket_name(commands.line)
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        try:
            with _short_address(self._folder, self._path.name) as address:
                _remove_stale(self._path, address, self._commands.line)
                listener.bind(address)
            # Change the mode before `listen`, so that no other user can connect.
            self._path.chmod(0o600)
            listener.setblocking(False)
            listener.listen()
        except OSError as error:
            listener.close()
            raise SettingsError(f"Cannot make the sorter's socket {self._path}: {error}. Check the setting service.run_dir.") from error
        self._listening = asyncio.create_task(self._accept_clients(listener))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._listening is not None
        self._path.unlink(missing_ok=True)
        self._listening.cancel()
        with suppress(asyncio.CancelledError):
            await self._listening

    async def _accept_clients(self, listener: socket.socket) -> None:
        # `asyncio.start_unix_server` is not used, because it has an error in Python 3.11: if it accepts a client just before the server is
        # closed, the connection to this client stays open.
        with listener:
            async with asyncio.TaskGroup() as clients:
                while True:
                    try:
                        client, _ = await asyncio.get_running_loop().sock_accept(listener)
                    except OSError as error:
                        log.warning("A client of the socket %s is not accepted: %s", self._path, error)
                        await asyncio.sleep(_ACCEPT_AGAIN_S)
                        continue
                    clients.create_task(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                line = await _read_line(client)
                # If a client only checks whether the sorter runs, it connects and sends nothing.
                if line:
                    answer = await self._answer(line)
                    await asyncio.get_running_loop().sock_sendall(client, answer.encode() + b"\n")
            except (OSError, ValueError) as error:
                log.warning("A command on the socket %s is ignored: %s", self._path, error)
            except Exception:
                # A command that fails must not end the task group, because the task group serves all other clients.
                log.exception("A command on the socket %s failed because of a fault of Castline. The socket stays open.", self._path)

    async def _answer(self, line: bytes) -> Command:
        try:
            command = read_record(Command, line)
        except RecordError as error:
            raise ValueError(f"The received text is not a command: {error}") from error
        if command.line != self._commands.line:
            answer = make_answer("refused", f"This socket belongs to {self._commands.line}. Send the command to the line's own socket.")
        else:
            answer = await self._commands.execute(command)
        return command.model_copy(update={"answer": answer})


async def _read_line(client: socket.socket) -> bytes:
    """Reads until the end of the line or of the connection. Raises ValueError if the line is too long or does not end in time."""
    received = b""
    try:
        async with asyncio.timeout(_READ_S):
            while b"\n" not in received:
                data = await asyncio.get_running_loop().sock_recv(client, _MAX_LINE_BYTES)
                if not data:
                    break
                received += data
                if len(received) > _MAX_LINE_BYTES:
                    raise ValueError(f"The line is longer than {_MAX_LINE_BYTES} bytes.")
    except TimeoutError as error:
        raise ValueError(f"The client sent no end of line within {_READ_S:g} s.") from error
    return received


def _remove_stale(path: Path, address: str, line: str) -> None:
    """Removes the socket of a sorter that was killed. Raises SettingsError if another sorter still listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
            return
    raise SettingsError(f"Another sorter of {line} runs on this machine and listens on {path}. Stop that sorter first.")
