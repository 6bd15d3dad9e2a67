"""Which runtime serves a version fastest on this machine: measured, checked against the golden set, and written beside the version."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.inference.golden_set import Agreement, check_golden, labels
from models.inference.runtimes.runtime import Runtime
from models.registry.versions import Version
from streams.errors import ModelError

FLOAT32 = "tensorflow"
MEASURED_S = 2.0  # how long each batch size of each runtime is computed, over and over
ROUNDS = 3

Opener = Callable[[Version, str, Sequence[int]], Runtime]
Predict = Callable[[npt.NDArray[np.uint8]], object]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Measured:
    """One runtime at one batch size."""

    runtime: str
    batch: int
    per_s: float  # pictures a second, the best round
    same_labels: bool
    distance: float  # largest, of a golden defect probability

    @property
    def speed(self) -> tuple[int, float]:
        """For choosing: by the largest batch."""
        return self.batch, self.per_s


@dataclass(frozen=True, slots=True)
class Trial:
    """All runtimes tried on one version: what was measured, what was refused and why, and the fastest that passed."""

    measured: list[Measured]
    refused: dict[str, str]
    chosen: str


def machine() -> str:
    """What a measurement holds for: the processor, as far as it is told apart."""
    return f"{platform.machine()} {'bfloat16' if has_bfloat16() else 'no bfloat16'} {_processor()}"


def has_bfloat16() -> bool:
    """Whether the processor computes bfloat16 by itself (AVX512_BF16 or AMX); told by Linux only."""
    return any(flag in _cpuinfo() for flag in ("avx512_bf16", "amx_bf16"))


def record_path(version: Version) -> Path:
    """Beside the version, which is never changed once written."""
    return version.folder.with_name(f"{version.folder.name}.runtimes.json")


def chosen(version: Version) -> str:
    """The runtime recorded for this machine; where none is, or it is gone, TensorFlow in float32, whatever else the processor computes:
    nobody has compared the labels of another one yet."""
    try:
        recorded = str(json.loads(record_path(version).read_text(encoding="utf-8"))[machine()]["chosen"])
    except (OSError, ValueError, KeyError, TypeError):
        log.info("no runtime was measured for %s here, %s serves; castline models optimise looks for a faster one", version.name, FLOAT32)
        return FLOAT32
    from models.inference.runtimes import hindrance

    if why := hindrance(recorded):
        log.warning("%s was measured as the fastest for %s here, but %s; %s serves", recorded, version.name, why, FLOAT32)
        return FLOAT32
    return recorded


def optimise(
    version: Version,
    names: Sequence[str],
    batches: Sequence[int],
    opener: Opener,
    measured_s: float = MEASURED_S,
    pixels: npt.NDArray[np.uint8] | None = None,
) -> Trial:
    """Tries every runtime, measures those that pass the golden set, and records the fastest of them (at the largest batch).

    With `pixels`, shape (n, side_px, side_px), one that labels any of them otherwise than TensorFlow in float32 is refused, too.
    Raises ModelError when none passes.
    """
    expected = [] if pixels is None else labels(version, opener(version, FLOAT32, batches).predict, pixels, max(batches))
    runtimes: dict[str, Runtime] = {}
    agreements: dict[str, Agreement] = {}
    refused: dict[str, str] = {}
    for name in names:
        try:
            runtime = opener(version, name, batches)
            runtime.warm_up()
            agreements[name] = check_golden(version, runtime)
            if pixels is not None:
                _check_labels(expected, labels(version, runtime.predict, pixels, max(batches)), name)
            runtimes[name] = runtime
        except ModelError as error:
            refused[name] = str(error)
    if not runtimes:
        told = "; ".join(refused.values())
        raise ModelError(f"{version.folder}: no runtime of {', '.join(names)} judges the golden set as recorded: {told}")
    speeds = rates(
        {name: runtime.predict for name, runtime in runtimes.items()}, batches, version.manifest.preprocessing.side_px, measured_s
    )
    found = [
        Measured(name, batch, round(per_s, 1), agreements[name].same_labels, round(agreements[name].distance, 5))
        for (name, batch), per_s in speeds.items()
    ]
    fastest = max(found, key=lambda each: each.speed).runtime
    _record(version, found, refused, fastest)
    return Trial(found, refused, fastest)


def _check_labels(expected: Sequence[str], found: Sequence[str], name: str) -> None:
    other = sum(a != b for a, b in zip(expected, found, strict=True))
    if other:
        raise ModelError(f"{name} labels {other} of {len(expected)} pictures otherwise than {FLOAT32}")


def rates(ways: Mapping[str, Predict], batches: Sequence[int], side_px: int, measured_s: float) -> dict[tuple[str, int], float]:
    """Pictures a second of each way at each batch size: the best of rounds in which all take turns, so that a busy moment of the
    machine falls on none alone.
    """
    best = {(name, batch): 0.0 for batch in batches for name in ways}
    for batch in batches:
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, side_px, side_px), dtype=np.uint8)
        for _ in range(ROUNDS):
            for name, predict in ways.items():
                best[name, batch] = max(best[name, batch], _per_s(predict, pixels, measured_s / ROUNDS))
    return best


def _per_s(predict: Predict, pixels: npt.NDArray[np.uint8], long_s: float) -> float:
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < long_s:
        predict(pixels)
        done += len(pixels)
    return done / (time.perf_counter() - start)


def _record(version: Version, found: Sequence[Measured], refused: Mapping[str, str], fastest: str) -> None:
    path = record_path(version)
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known[machine()] = {"chosen": fastest, "measured": [asdict(each) for each in found], "refused": dict(refused)}
    staged = path.with_name(f".{path.name}.part")
    staged.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    staged.replace(path)


def _processor() -> str:
    lines = [line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return f"{lines[0] if lines else platform.processor()} x {len(lines)}"


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.exists() else ""
