"""Shows the progress of a training run on a terminal: bars with the remaining time, and one line for each epoch."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    # These imports are only for the type checker. When the program runs, they would also load TensorFlow, which a training with --good-only
    # does not need.
    from models.training.labelled_pictures import LabelledPictures
    from models.training.trainer import EpochResult


class ProgressBars:
    """The TrainingCallback of the command line. Draws progress bars on standard error, and handles Ctrl-C. Use it as a context manager.

    The first Ctrl-C raises KeyboardInterrupt when the current batch is finished. During a batch, TensorFlow would lose the exception. The
    second Ctrl-C stops the program at once.
    """

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._console = Console(stderr=True)
        self._progress = Progress(*columns, console=self._console)
        self._tasks: dict[str, TaskID] = {}
        self._is_interrupted = False
        self._previous_handler: Any = signal.SIG_DFL

    def __enter__(self) -> Self:
        self._previous_handler = signal.signal(signal.SIGINT, self._request_stop)
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()
        signal.signal(signal.SIGINT, self._previous_handler)

    def on_casting_rendered(self, done: int, total: int) -> None:
        """Shows how many castings have been rendered."""
        self._advance("rendering", done, total)

    def on_picture_read(self, done: int, total: int) -> None:
        """Shows how many picture files have been read."""
        self._advance("reading", done, total)

    def on_pictures_left_out(self, reason: str, names: Sequence[str]) -> None:
        """Prints the names of pictures that are left out, and the reason."""
        for name in names:
            self._console.print(f"left out: {name}: {reason}", style="yellow", markup=False)

    def on_scorer_learned(self, done: int, total: int) -> None:
        """Shows how many scorers have been learned."""
        self._advance("learning", done, total)

    def on_pictures_split(self, pictures: LabelledPictures, groups: int, contradicting: int, validation: int) -> None:
        """Prints the numbers of pictures and of groups of near-duplicates, and the files that could not be read.

        Prints warnings if there are few pictures, or if a group holds pictures of several classes.
        """
        counts = ", ".join(f"{number} {name}" for name, number in pictures.class_counts.items())
        self._console.print(f"{counts}; {groups} groups of near-duplicates; {validation} validation pictures")
        for shortage in pictures.describe_shortage():
            self._console.print(shortage, style="yellow")
        if contradicting:
            warning = f"{contradicting} groups of near-duplicates hold pictures of more than one class. Look at them in cleaning.json."
            self._console.print(warning, style="yellow")
        for file in pictures.unreadable:
            self._console.print(f"left out: {file.path}: {file.message}", style="yellow", markup=False)

    def on_training_step(self, network: str, done: int, total: int, epoch: EpochResult | None) -> None:
        """Shows how many batches of the training of `network` are finished, and prints a line after each epoch."""
        self._advance(network, done, total)
        if epoch:
            self._console.print(
                f"{network} epoch {epoch.number}: loss {epoch.loss:.4f}, accuracy {epoch.accuracy:.4f}; "
                f"validation loss {epoch.validation_loss:.4f}, accuracy {epoch.validation_accuracy:.4f}"
            )

    def on_cell_progress(self, cell: str, done: float, total: int) -> None:
        """Shows the progress of an experiment, which trains many networks one after the other.

        When the training named `cell` is finished, its own progress bar is removed.
        """
        self._advance("all cells", done, total)
        if done == int(done) and cell in self._tasks:
            self._progress.remove_task(self._tasks.pop(cell))

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self._is_interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._console.print("stopping after this batch")

    def _advance(self, name: str, done: float, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done)
        if self._is_interrupted:
            self._is_interrupted = False
            raise KeyboardInterrupt
