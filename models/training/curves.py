"""Curves of a training as a picture: loss and accuracy, learned and validated, over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from models.training.checkpoint import Epoch


def draw_curves(path: Path, title: str, history: Sequence[Epoch]) -> None:
    """Writes a PNG; drawn again after each epoch."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    numbers = [epoch.number for epoch in history]
    left, right = figure.subplots(1, 2)
    left.plot(numbers, [epoch.loss for epoch in history], label="learned")
    left.plot(numbers, [epoch.validation_loss for epoch in history], label="validated")
    left.set(title=f"{title}: loss", xlabel="epoch", ylabel="nats", yscale="log")
    right.plot(numbers, [epoch.accuracy for epoch in history], label="learned")
    right.plot(numbers, [epoch.validation_accuracy for epoch in history], label="validated")
    right.set(title=f"{title}: accuracy", xlabel="epoch")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)
