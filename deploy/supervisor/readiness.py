"""When a process counts as ready: it printed a line, made a path, or its /readyz says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.supervisor.probes import Prober
from deploy.supervisor.process import Running


class Gate(Protocol):
    """Asked ten times a second while a process starts; must not block."""

    def is_open(self, process: Running, prober: Prober) -> bool: ...


@dataclass(frozen=True)
class LinePrinted:
    """Ready once the process has printed a line that begins with `start`."""

    start: str

    def is_open(self, process: Running, prober: Prober) -> bool:
        return process.has_printed(self.start)


@dataclass(frozen=True)
class PathThere:
    """Ready once `path` exists: a simulated board's serial port."""

    path: Path

    def is_open(self, process: Running, prober: Prober) -> bool:
        return self.path.exists()


@dataclass(frozen=True)
class PageReady:
    """Ready once /readyz answers 200; the address is in the file that the process leaves in `run_dir`/targets."""

    run_dir: Path

    def is_open(self, process: Running, prober: Prober) -> bool:
        sight = prober.sight(process.pid)
        if sight is None:
            if address := find_target(self.run_dir, process.pid):
                prober.watch(process.pid, address)
            return False
        return sight.ready


def find_target(run_dir: Path, pid: int) -> str | None:
    """The address that process `pid` serves its pages on; None until it has said so."""
    for file in (run_dir / "targets").glob("*.json"):
        try:
            (target,) = json.loads(file.read_text())
            if target["labels"]["pid"] == str(pid):
                return str(target["targets"][0])
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            continue  # being replaced, or not ours
    return None
