"""Finds the fastest runtime for a version on this machine. A runtime is measured only if it gives the recorded results.

The recorded results are the labels and probabilities of the golden set.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.inference.golden_set import GoldenSetComparison, check_golden_set, label_pictures
from models.inference.runtimes.runtime import FLOAT32, Runtime, describe_processor, runtime_record_path
from models.registry import Version
from models.registry.version_report import RUNTIMES_FILE, RuntimeReport
from streams.atomic_file import write_atomically
from streams.errors import ModelError

MEASURED_S = 2.0
ROUNDS = 3

OpenRuntime = Callable[[Version, str, Sequence[int]], Runtime]
PredictAny = Callable[[npt.NDArray[np.uint8]], object]


@dataclass(frozen=True, slots=True)
class RuntimeMeasurement:
    """The speed of one runtime at one batch size, and its result on the golden set.

    - `per_s`: pictures a second in the fastest round.
    - `same_labels`: all labels are as recorded.
    - `distance`: largest difference from a recorded defect probability.
    """

    runtime: str
    batch: int
    per_s: float
    same_labels: bool
    distance: float


@dataclass(frozen=True, slots=True)
class RuntimeSelection:
    """All measurements of runtimes, the reason for each refused runtime, and the name of the fastest runtime (`chosen`)."""

    measured: list[RuntimeMeasurement]
    refused: dict[str, str]
    chosen: str


def select_runtime(
    version: Version,
    names: Sequence[str],
    batch_sizes: Sequence[int],
    open_runtime: OpenRuntime,
    measured_s: float = MEASURED_S,
    pixels: npt.NDArray[np.uint8] | None = None,
) -> RuntimeSelection:
    """Measures the runtimes `names`, and records which of them is the fastest at the largest batch size.

    A runtime is refused if it changes a label of the golden set or of `pixels`, shape (n, side_px, side_px). Raises ModelError if all are
    refused.
    """
    largest = max(batch_sizes)
    expected = [] if pixels is None else label_pictures(version, open_runtime(version, FLOAT32, batch_sizes).predict, pixels, largest)
    runtimes: dict[str, Runtime] = {}
    comparisons: dict[str, GoldenSetComparison] = {}
    refused: dict[str, str] = {}
    for name in names:
        try:
            runtime = open_runtime(version, name, batch_sizes)
            runtime.warm_up()
            comparisons[name] = check_golden_set(version, runtime)
            if pixels is not None:
                _check_labels(expected, label_pictures(version, runtime.predict, pixels, largest), name)
            runtimes[name] = runtime
        except ModelError as error:
            refused[name] = str(error)
    if not runtimes:
        reasons = "; ".join(refused.values())
        raise ModelError(f"None of the runtimes {', '.join(names)} can be used for {version.folder}: {reasons}")
    functions = {name: runtime.predict for name, runtime in runtimes.items()}
    speeds = measure_speeds(functions, batch_sizes, version.manifest.preprocessing.side_px, measured_s)
    measurements = [
        RuntimeMeasurement(name, batch, round(per_s, 1), comparisons[name].same_labels, round(comparisons[name].distance, 5))
        for (name, batch), per_s in speeds.items()
    ]
    fastest = max(measurements, key=lambda each: (each.batch, each.per_s)).runtime
    selection = RuntimeSelection(measurements, refused, fastest)
    _record(version, selection)
    return selection


def write_runtime_report(folder: Path, version: Version, selection: RuntimeSelection, pictures: int) -> None:
    """Writes `selection` into `folder` as runtimes.json, which the Models page shows.

    `pictures` is the number of pictures, besides the golden set, whose labels were compared.
    """
    values = {"version": version.name, "processor": describe_processor(), "pictures": pictures, **asdict(selection)}
    report = RuntimeReport.model_validate(values)
    write_atomically(folder / RUNTIMES_FILE, report.model_dump_json(indent=2) + "\n")


def measure_speeds(
    functions: Mapping[str, PredictAny], batch_sizes: Sequence[int], side_px: int, measured_s: float
) -> dict[tuple[str, int], float]:
    """Returns the speed of each function at each batch size: the pictures a second in the best of several rounds.

    The functions take turns in each round, so that a busy moment does not slow down only one function.
    """
    best = {(name, batch): 0.0 for batch in batch_sizes for name in functions}
    for batch in batch_sizes:
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, side_px, side_px), dtype=np.uint8)
        for _ in range(ROUNDS):
            for name, predict in functions.items():
                best[name, batch] = max(best[name, batch], _measure_speed(predict, pixels, measured_s / ROUNDS))
    return best


def _measure_speed(predict: PredictAny, pixels: npt.NDArray[np.uint8], duration_s: float) -> float:
    start, pictures = time.perf_counter(), 0
    while time.perf_counter() - start < duration_s:
        predict(pixels)
        pictures += len(pixels)
    return pictures / (time.perf_counter() - start)


def _check_labels(expected: Sequence[str], found: Sequence[str], name: str) -> None:
    differing = sum(a != b for a, b in zip(expected, found, strict=True))
    if differing:
        raise ModelError(f"The runtime {name} labels {differing} of {len(expected)} pictures differently from {FLOAT32}.")


def _record(version: Version, selection: RuntimeSelection) -> None:
    path = runtime_record_path(version)
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        records = {}
    records[describe_processor()] = {
        "chosen": selection.chosen,
        "measured": [asdict(each) for each in selection.measured],
        "refused": selection.refused,
    }
    write_atomically(path, json.dumps(records, indent=2) + "\n")
