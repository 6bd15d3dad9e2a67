"""Where snapshots go: a live view on a terminal, or a line every few seconds elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from deploy.demo.view import Snapshot, plain, render

_LINE_EVERY_S = 5.0


class LiveScreen:
    """Redraws in place; the last picture stays."""

    def __init__(self, console: Console) -> None:
        # Drawn when there is something new, from the caller's thread: no thread of rich's own redraws the same.
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        self._live.update(render(snapshot), refresh=True)


class PlainScreen:
    """Prints a line at each change of phase and every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._printed_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing is left open."""

    def show(self, snapshot: Snapshot) -> None:
        if snapshot.phase == self._phase and snapshot.now - self._printed_at < _LINE_EVERY_S:
            return
        if snapshot.pages and snapshot.phase == "running" != self._phase:
            self._console.print(f"        station: {snapshot.pages}", soft_wrap=True)
        self._phase, self._printed_at = snapshot.phase, snapshot.now
        self._console.print(plain(snapshot), soft_wrap=True)
        for sentence in snapshot.news:
            self._console.print(f"        {sentence}", soft_wrap=True)
