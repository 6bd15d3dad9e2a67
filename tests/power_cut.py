"""What a power cut leaves of a process's files, replayed from the system calls that strace has recorded.

A write is safe after a later fsync or fdatasync of its file. A new or deleted name is safe after a later fsync of its folder. A power cut
drops all other writes, or keeps any of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TRACED = "openat,pwrite64,write,sendto,sendmsg,fsync,fdatasync,ftruncate,unlink"
_BLOCK = 4096
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
# strace writes each byte of a path or a string as \\x and two digits.
_FILE = re.compile(r"^\d+<((?:\\x[0-9a-f]{2})*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_RESULT = re.compile(r"= (-?\d+)(?:<((?:\\x[0-9a-f]{2})*)>)?")


def strace_options(output: Path) -> list[str]:
    """Returns the options with which strace records the system calls of a process and its threads in `output`."""
    return ["-f", "--seccomp-bpf", "-y", "-xx", "-s", "1000000", "-e", f"trace={TRACED}", "-e", "signal=none", "-o", str(output)]


@dataclass
class _Write:
    """A write of `content` at `offset`, or a truncation to the size `offset` if `content` is None."""

    offset: int
    content: bytes | None


@dataclass
class _File:
    """The content of a file on the disk, and the later writes that only the operating system's cache holds."""

    safe: bytearray = field(default_factory=bytearray)
    unsafe: list[_Write] = field(default_factory=list)

    def save(self, count: int) -> None:
        for write in self.unsafe[:count]:
            _apply(self.safe, write)
        del self.unsafe[:count]


def _apply(content: bytearray, write: _Write) -> None:
    if write.content is None:
        del content[write.offset :]
        content.extend(bytes(write.offset - len(content)))
        return
    content.extend(bytes(max(0, write.offset - len(content))))
    content[write.offset : write.offset + len(write.content)] = write.content


class ReplayedDisk:
    """The files below `folder`, as far as the recorded system calls have been replayed."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._files: dict[str, _File] = {}
        # The names that the disk and the cache have for the files.
        self._safe_names: dict[str, _File] = {}
        self._begun: dict[tuple[str, str], tuple[str, int]] = {}

    def replay(self, trace: Path) -> Iterator[bytes]:
        """Replays the calls in their order. Yields the bytes of each message to a socket or pipe at the time at which it was sent."""
        with trace.open() as lines:
            for line in lines:
                if match := _RESUMED.match(line):
                    begun, count = self._begun.pop((match[1], match[2]))
                    yield from self._end(match[2], begun + match[3], count)
                elif match := _CALL.match(line):
                    text = match[3].partition(" <unfinished ...>")[0]
                    file = self._files.get(self._path(text))
                    # A flush covers the writes that had ended when the flush began.
                    count = len(file.unsafe) if file else 0
                    if "<unfinished ...>" in line:
                        self._begun[match[1], match[2]] = (text, count)
                    else:
                        yield from self._end(match[2], text, count)

    def leave(self, target: Path, keep: random.Random | None = None) -> None:
        """Writes what a power cut leaves now to `target`. With `keep`, each block that is not safe is kept or dropped at random."""
        names = dict(self._safe_names)
        if keep is not None:
            names |= {name: file for name, file in self._files.items() if keep.random() < 0.5}
        for name, file in names.items():
            content = bytearray(file.safe)
            for write in file.unsafe if keep is not None else ():
                for part in _split(write):
                    if keep is not None and keep.random() < 0.5:
                        _apply(content, part)
            path = target / Path(name).relative_to(self._folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _path(self, text: str) -> str:
        match = _FILE.match(text)
        path = _decode(match[1]).decode() if match else ""
        return path if path.startswith(self._folder) else ""

    def _end(self, call: str, text: str, count: int) -> Iterator[bytes]:
        result = _RESULT.search(text.rpartition(")")[2])
        if result is None or int(result[1]) < 0:
            return
        path = self._path(text)
        strings = [_decode(found) for found in _STRING.findall(text)]
        opened = _decode(result[2] or "").decode()
        if call in ("write", "sendto", "sendmsg"):
            if not path:
                yield b"".join(strings)
        elif call == "openat" and "O_CREAT" in text and opened.startswith(self._folder):
            self._files.setdefault(opened, _File())
        elif call == "unlink" and strings[0].decode().startswith(self._folder):
            self._files.pop(strings[0].decode(), None)
        elif path:
            self._change(call, path, text, strings, count)

    def _change(self, call: str, path: str, text: str, strings: list[bytes], count: int) -> None:
        if call in ("fsync", "fdatasync") and path in self._files:
            self._files[path].save(count)
        elif call in ("fsync", "fdatasync"):
            inside = {name: file for name, file in self._files.items() if str(Path(name).parent) == path}
            self._safe_names = {name: file for name, file in self._safe_names.items() if str(Path(name).parent) != path} | inside
        elif call == "pwrite64":
            offset = int(text.rpartition(")")[0].rpartition(",")[2])
            self._files[path].unsafe.append(_Write(offset, strings[0]))
        elif call == "ftruncate":
            self._files[path].unsafe.append(_Write(int(text.rpartition(")")[0].rpartition(",")[2]), None))


def _decode(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _split(write: _Write) -> Iterator[_Write]:
    """Yields the parts of a write that the disk stores independently of each other."""
    if write.content is None:
        yield write
        return
    at = 0
    while at < len(write.content):
        end = at + _BLOCK - (write.offset + at) % _BLOCK
        yield _Write(write.offset + at, write.content[at:end])
        at = end
