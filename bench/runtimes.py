"""Every runtime of this machine against plain `model.predict`: pictures a second in turns of one run, and whether labels are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from models.inference.golden_set import PredictFunction, compare_golden_set, label_pictures, load_golden_set
from models.inference.runtimes.runtime import FLOAT32, RUNTIMES, Runtime, find_obstacle, open_runtime
from models.inference.runtimes.selection import MEASURED_S, measure_speeds
from models.networks.factory import load_networks
from models.registry import Version, locate_version, open_registry
from models.training.labelled_pictures import find_pictures, read_pictures
from streams.errors import ModelError

BATCHES = (1, 8, 32)
PREDICT = "predict"
MOST_PICTURES = 512
FULL = "full"


@dataclass(frozen=True, slots=True)
class Row:
    """One runtime at one batch size; `same_labels` against TensorFlow in float32."""

    runtime: str
    batch: int
    per_s: float
    same_labels: bool
    other_labels: int  # pictures whose label differs


@dataclass(frozen=True)
class Comparison:
    """All rows of one run; `chosen` is the fastest at the largest batch that passes the golden set and turns no label."""

    model: str
    rows: list[Row]
    refused: dict[str, str]
    left_out: dict[str, str]
    labelled: int  # pictures whose labels were compared
    chosen: str
    ratio_to_predict: float  # at the largest batch

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Predict:
    """What a notebook does: `model.predict` of each network on pictures scaled and resampled beforehand."""

    def __init__(self, version: Version) -> None:
        self._networks = load_networks(version)
        self._last: npt.NDArray[np.uint8] | None = None
        self._prepared: list[npt.NDArray[np.float32]] = []

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if pixels is not self._last:  # a measurement gives the same pictures again: only `predict` is measured
            self._last, self._prepared = pixels, self._inputs(pixels)
        pairs = zip(self._networks, self._prepared, strict=True)
        return np.stack([network.predict(each, batch_size=len(pixels), verbose=0) for network, each in pairs], axis=1)

    def _inputs(self, pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        from models.networks.preprocessing import resample, scale_pixels

        return [np.asarray(resample(scale_pixels(pixels), network)) for network in self._networks]


@contextmanager
def opened_model(model: str) -> Iterator[Version]:
    """The version that `model` names; `full` is one of the papers' size, made for the occasion and gone afterwards."""
    if model != FULL:
        yield locate_version(model)
        return
    from bench.full_size import make

    with TemporaryDirectory(prefix="castline-full-") as folder:
        yield open_registry(folder).open_version(make(Path(folder)))


def compare_runtimes(
    version: Version,
    data: Sequence[Path] = (),
    measured_s: float = MEASURED_S,
    tell: Callable[[str], object] = lambda _: None,
    batches: Sequence[int] = BATCHES,
    most: int = MOST_PICTURES,
) -> Comparison:
    """Measures every runtime that is installed. Labels are compared on at most `most` pictures of `data`, else on the golden set."""
    left_out = {name: why for name in RUNTIMES if (why := find_obstacle(name))}
    runtimes: dict[str, Runtime] = {}
    refused = {}
    for name in RUNTIMES:
        if name in left_out:
            continue
        tell(f"{name}: converting and warming up")
        try:
            runtime = open_runtime(version, name, batches)
            runtime.warm_up()
        except ModelError as error:
            refused[name] = str(error)
            continue
        runtimes[name] = runtime
        agreement = compare_golden_set(version, runtime)
        if not (agreement.same_labels and agreement.distance <= version.manifest.golden.tolerance):
            refused[name] = f"golden set: labels {'same' if agreement.same_labels else 'differ'}, distance {agreement.distance:.4f}"
    pixels = _pictures(version, data, most)
    predict = Predict(version)
    tell(f"comparing labels on {len(pixels)} pictures")
    found = {name: label_pictures(version, runtime.predict, pixels, max(batches)) for name, runtime in runtimes.items()}
    found[PREDICT] = label_pictures(version, predict, pixels, max(batches))
    others = {name: sum(a != b for a, b in zip(each, found[FLOAT32], strict=True)) for name, each in found.items()}
    tell("measuring in turns")
    ways: dict[str, PredictFunction] = {PREDICT: predict, **{name: runtime.predict for name, runtime in runtimes.items()}}
    speeds = measure_speeds(ways, batches, version.manifest.preprocessing.side_px, measured_s)
    rows = [Row(name, batch, round(per_s, 1), others[name] == 0, others[name]) for (name, batch), per_s in speeds.items()]
    largest = max(batches)
    chosen = max((name for name in runtimes if name not in refused and not others[name]), key=lambda name: speeds[name, largest])
    ratio = round(speeds[chosen, largest] / speeds[PREDICT, largest], 2)
    return Comparison(version.name, rows, refused, left_out, len(pixels), chosen, ratio)


def _pictures(version: Version, data: Sequence[Path], most: int) -> npt.NDArray[np.uint8]:
    if not data:
        return load_golden_set(version).pixels
    entries = find_pictures(data)
    drawn = np.sort(np.random.default_rng(1).permutation(len(entries))[:most])
    return read_pictures([entries[index] for index in drawn], version.manifest.preprocessing.side_px).pixels
