"""Compares the runtimes of this machine with `model.predict` of Keras: their speeds, and whether they give the same labels."""

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

BATCH_SIZES = (1, 8, 32)
MAX_PICTURES = 512
_PREDICT = "predict"
_FULL_SIZE = "full"


@dataclass(frozen=True, slots=True)
class RuntimeSpeed:
    """The speed of one runtime at one batch size, in pictures a second.

    `other_labels` is the number of pictures whose label differs from that of TensorFlow in float32.
    """

    runtime: str
    batch: int
    per_s: float
    same_labels: bool
    other_labels: int


@dataclass(frozen=True)
class RuntimeComparison:
    """The result of a comparison of runtimes.

    - `refused`: maps each refused runtime to the reason.
    - `left_out`: maps each runtime that cannot run on this machine to the reason.
    - `labelled`: number of pictures whose labels were compared.
    - `chosen`: the fastest runtime that changes no label.
    - `ratio_to_predict`: speed of the chosen runtime, divided by the speed of `model.predict`.
    """

    model: str
    rows: list[RuntimeSpeed]
    refused: dict[str, str]
    left_out: dict[str, str]
    labelled: int
    chosen: str
    ratio_to_predict: float

    def as_json(self) -> dict[str, Any]:
        """Returns the result as values that JSON can hold."""
        return asdict(self)


class PlainPredict:
    """Calls Keras' `model.predict` for each network. The time for scaling and resampling the pictures is not measured."""

    def __init__(self, version: Version) -> None:
        self._networks = load_networks(version)
        self._last_pixels: npt.NDArray[np.uint8] | None = None
        self._inputs: list[npt.NDArray[np.float32]] = []

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        # This function is called many times with the same pictures. Only the first call scales and resamples these pictures.
        if pixels is not self._last_pixels:
            self._last_pixels, self._inputs = pixels, self._prepare(pixels)
        pairs = zip(self._networks, self._inputs, strict=True)
        return np.stack([network.predict(each, batch_size=len(pixels), verbose=0) for network, each in pairs], axis=1)

    def _prepare(self, pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        from models.networks.preprocessing import resample, scale_pixels

        return [np.asarray(resample(scale_pixels(pixels), network)) for network in self._networks]


@contextmanager
def find_version(model: str) -> Iterator[Version]:
    """Yields the version that `model` names.

    The name `full` means an untrained version with AlexNet and LeNet as large as in the papers that introduced them. The untrained
    version is deleted when the `with` block ends.
    """
    if model != _FULL_SIZE:
        yield locate_version(model)
        return
    from bench.full_size import write_full_size_version

    with TemporaryDirectory(prefix="castline-full-") as folder:
        yield open_registry(folder).open_version(write_full_size_version(Path(folder)))


def compare_runtimes(
    version: Version,
    data: Sequence[Path] = (),
    measured_s: float = MEASURED_S,
    report_progress: Callable[[str], object] = lambda _: None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    max_pictures: int = MAX_PICTURES,
) -> RuntimeComparison:
    """Measures every installed runtime for `measured_s` seconds at each batch size.

    Labels are compared on at most `max_pictures` pictures in the folders `data`, or on the golden set if `data` is empty.
    """
    left_out = {name: reason for name in RUNTIMES if (reason := find_obstacle(name))}
    installed = [name for name in RUNTIMES if name not in left_out]
    runtimes, refused = _open_runtimes(version, installed, batch_sizes, report_progress)
    pixels = _read_pictures(version, data, max_pictures)
    predict = PlainPredict(version)
    report_progress(f"comparing labels on {len(pixels)} pictures")
    labels_by_name = {name: label_pictures(version, runtime.predict, pixels, max(batch_sizes)) for name, runtime in runtimes.items()}
    labels_by_name[_PREDICT] = label_pictures(version, predict, pixels, max(batch_sizes))
    reference = labels_by_name[FLOAT32]
    differing = {name: sum(a != b for a, b in zip(found, reference, strict=True)) for name, found in labels_by_name.items()}
    report_progress("measuring in turns")
    functions: dict[str, PredictFunction] = {_PREDICT: predict, **{name: runtime.predict for name, runtime in runtimes.items()}}
    speeds = measure_speeds(functions, batch_sizes, version.manifest.preprocessing.side_px, measured_s)
    rows = [RuntimeSpeed(name, size, round(per_s, 1), differing[name] == 0, differing[name]) for (name, size), per_s in speeds.items()]
    largest = max(batch_sizes)
    eligible = [name for name in runtimes if name not in refused and not differing[name]]
    chosen = max(eligible, key=lambda name: speeds[name, largest])
    ratio = round(speeds[chosen, largest] / speeds[_PREDICT, largest], 2)
    return RuntimeComparison(version.name, rows, refused, left_out, len(pixels), chosen, ratio)


def _open_runtimes(
    version: Version, names: Sequence[str], batch_sizes: Sequence[int], report_progress: Callable[[str], object]
) -> tuple[dict[str, Runtime], dict[str, str]]:
    """Opens the runtimes `names`. Returns the opened runtimes, and a reason for each refused runtime.

    A runtime is refused if it cannot be opened, or if its probabilities for the golden set are wrong.
    """
    runtimes: dict[str, Runtime] = {}
    refused = {}
    for name in names:
        report_progress(f"{name}: converting and warming up")
        try:
            runtime = open_runtime(version, name, batch_sizes)
            runtime.warm_up()
        except ModelError as error:
            refused[name] = str(error)
            continue
        runtimes[name] = runtime
        agreement = compare_golden_set(version, runtime)
        if not (agreement.same_labels and agreement.distance <= version.manifest.golden.tolerance):
            refused[name] = f"golden set: labels {'same' if agreement.same_labels else 'differ'}, distance {agreement.distance:.4f}"
    return runtimes, refused


def _read_pictures(version: Version, data: Sequence[Path], max_pictures: int) -> npt.NDArray[np.uint8]:
    if not data:
        return load_golden_set(version).pixels
    entries = find_pictures(data)
    chosen = np.sort(np.random.default_rng(1).permutation(len(entries))[:max_pictures])
    preprocessing = version.manifest.preprocessing
    return read_pictures([entries[index] for index in chosen], preprocessing.side_px, depth_bits=preprocessing.depth_bits).pixels
