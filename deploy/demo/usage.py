"""Processor time and memory of the processes that the supervisor started, with their children."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import psutil


@dataclass
class Usage:
    """Look every second or so: a process that has ended keeps the processor time last seen. Seconds and MiB."""

    peak_mb: float = 0.0
    now_mb: float = 0.0
    role_peak_mb: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _cpu_s: dict[tuple[int, float], tuple[str, float]] = field(default_factory=dict)
    _known: dict[int, psutil.Process] = field(default_factory=dict)

    def look(self, pids: Mapping[str, int]) -> None:
        """`pids`: role -> process id of the running ones."""
        total = 0.0
        for role, pid in pids.items():
            resident = sum(self._look_at(role, process) for process in self._family(pid)) / 2**20
            self.role_peak_mb[role] = max(self.role_peak_mb[role], resident)
            total += resident
        self.now_mb = total
        self.peak_mb = max(self.peak_mb, total)

    @property
    def cpu_s(self) -> float:
        """User and system time of all, so far."""
        return sum(seconds for _, seconds in self._cpu_s.values())

    def role_cpu_s(self) -> dict[str, float]:
        by_role: dict[str, float] = defaultdict(float)
        for role, seconds in self._cpu_s.values():
            by_role[role] += seconds
        return dict(by_role)

    def _family(self, pid: int) -> list[psutil.Process]:
        try:
            parent = self._known.setdefault(pid, psutil.Process(pid))
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            self._known.pop(pid, None)
            return []

    def _look_at(self, role: str, process: psutil.Process) -> float:
        try:
            with process.oneshot():
                times = process.cpu_times()
                self._cpu_s[process.pid, process.create_time()] = (role, times.user + times.system)
                return float(process.memory_info().rss)
        except psutil.NoSuchProcess:
            return 0.0
