"""Which runtime serves a version fastest on this machine: measured, checked against the golden set, and written beside the version."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from models.golden import compare_golden
from models.registry import Version
from models.runtimes.runtime import Runtime
from streams.errors import ModelError

FLOAT32, BFLOAT16 = "tensorflow", "tensorflow-bf16"
MEASURED_S = 2.0  # how long each batch size is computed over and over
ROUNDS = 3  # in turn with the others, so that a busy moment of the machine does not fall on one alone

Opener = Callable[[Version, str, Sequence[int]], Runtime]


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
    """The runtime recorded for this machine; where none is, bfloat16 if the processor computes it, else float32."""
    try:
        recorded = json.loads(record_path(version).read_text(encoding="utf-8"))[machine()]["chosen"]
    except (OSError, ValueError, KeyError, TypeError):
        return BFLOAT16 if has_bfloat16() else FLOAT32
    return str(recorded)


def optimise(version: Version, names: Sequence[str], batches: Sequence[int], opener: Opener) -> tuple[list[Measured], str]:
    """Measures every runtime and records the fastest (at the largest batch) of those that pass the golden set.

    Raises ModelError when none passes.
    """
    runtimes = {name: opener(version, name, batches) for name in names}
    found = []
    for runtime in runtimes.values():
        runtime.warm_up()
    agreements = {name: compare_golden(version, runtime) for name, runtime in runtimes.items()}
    for batch in batches:
        best = dict.fromkeys(names, 0.0)
        for _ in range(ROUNDS):
            for name, runtime in runtimes.items():
                best[name] = max(best[name], _per_s(runtime, batch, version.manifest.preprocessing.side_px))
        for name in names:
            agreement = agreements[name]
            found.append(Measured(name, batch, round(best[name], 1), agreement.same_labels, round(agreement.distance, 5)))
    tolerance = version.manifest.golden.tolerance
    fit = [each for each in found if each.same_labels and each.distance <= tolerance]
    if not fit:
        raise ModelError(f"{version.folder}: no runtime of {', '.join(names)} judges the golden set as recorded")
    fastest = max(fit, key=lambda each: each.speed).runtime
    _record(version, found, fastest)
    return found, fastest


def _per_s(runtime: Runtime, batch: int, side_px: int) -> float:
    pixels = np.random.default_rng(batch).integers(0, 256, (batch, side_px, side_px), dtype=np.uint8)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < MEASURED_S / ROUNDS:
        runtime.predict(pixels)
        done += batch
    return done / (time.perf_counter() - start)


def _record(version: Version, found: Sequence[Measured], fastest: str) -> None:
    path = record_path(version)
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known[machine()] = {"chosen": fastest, "measured": [asdict(each) for each in found]}
    staged = path.with_name(f".{path.name}.part")
    staged.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    staged.replace(path)


def _processor() -> str:
    lines = [line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return f"{lines[0] if lines else platform.processor()} x {len(lines)}"


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.exists() else ""
