"""The progress of a training on a terminal: bars with the time left, one line for each epoch."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from models.training.checkpoint import Epoch
from models.training.collection import Collection


class Bars:
    """A listener that draws on standard error, and raises KeyboardInterrupt between two batches after Ctrl-C (SIGINT).

    Not within a batch: there TensorFlow may be calling Python, and an exception raised in such a call is lost. A second Ctrl-C
    stops at once.
    """

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._console = Console(stderr=True)
        self._progress = Progress(*columns, console=self._console)
        self._tasks: dict[str, TaskID] = {}
        self._stopping = False
        self._before: Any = signal.SIG_DFL

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._stop)
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()
        signal.signal(signal.SIGINT, self._before)

    def drawing(self, done: int, total: int) -> None:
        """Advances the bar of the renderer."""
        self._advance("drawing", done, total)

    def reading(self, done: int, total: int) -> None:
        """Advances the first bar."""
        self._advance("reading", done, total)

    def collected(self, pictures: Collection, groups: int, contradicting: int, validates: int) -> None:
        """Says what was found and names every file that could not be read."""
        counts = ", ".join(f"{number} {name}" for name, number in pictures.counts.items())
        self._console.print(f"{counts}; {groups} groups without near-duplicates; {validates} validate")
        if contradicting:
            told = f"{contradicting} groups of near-duplicates hold pictures of more than one class: look at them (cleaning.json)"
            self._console.print(told, style="yellow")
        for bad in pictures.unreadable:
            self._console.print(f"left out: {bad.path}: {bad.message}", style="yellow", markup=False)

    def learning(self, voter: str, done: int, total: int, epoch: Epoch | None) -> None:
        """Advances the voter's bar, and writes a line when an epoch is over."""
        self._advance(voter, done, total)
        if epoch:
            self._console.print(
                f"{voter} epoch {epoch.number}: loss {epoch.loss:.4f}, accuracy {epoch.accuracy:.4f}; "
                f"validation loss {epoch.validation_loss:.4f}, accuracy {epoch.validation_accuracy:.4f}"
            )

    def cell(self, name: str, done: float, total: int) -> None:
        """Advances the bar over all cells of an experiment, and takes away that of a finished one."""
        self._advance("all cells", done, total)
        if done == int(done) and name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._console.print("stopping after this batch")

    def _advance(self, name: str, done: float, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done)
        if self._stopping:
            self._stopping = False
            raise KeyboardInterrupt
