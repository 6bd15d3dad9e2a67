"""Defines the interface of all runtimes, and opens a runtime by its name.

The module of a runtime is imported only when this runtime is opened, because the library that it needs may not be installed or may load
slowly.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.registry import Version
from streams.errors import ModelError

AUTO = "auto"
FLOAT32 = "tensorflow"
RUNTIMES = ("tensorflow", "tensorflow-bf16", "openvino", "openvino-bf16", "openvino-int8", "litert", "litert-int8")
BATCH_SIZES = (1, 2, 4, 8, 16, 32)

# For each runtime: its module, its class, its library, and the pip extra that installs the library.
_CLASSES = {
    "tensorflow": ("tensorflow", "TensorFlowRuntime", "tensorflow", ""),
    "openvino": ("openvino", "OpenVinoRuntime", "openvino", "openvino"),
    "litert": ("litert", "LiteRtRuntime", "ai_edge_litert", "litert"),
}

log = logging.getLogger(__name__)


class Runtime(Protocol):
    """Computes the networks of a version, which give each picture a probability for each class.

    Several threads may call `predict` at the same time, but a call may wait for another call to end. The event loop's thread must not call
    it, because a call takes long.
    """

    @property
    def name(self) -> str:
        """The name of the runtime, as it is written in the settings."""

    @property
    def max_batch(self) -> int:
        """The largest number of pictures in one call of `predict`."""

    def warm_up(self) -> None:
        """Judges one batch of each batch size, because the first batch of a size takes longer than the later ones."""

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns the class probabilities from each network (voter), shape (n, voters, classes).

        The probabilities of all classes sum to 1.

        Input shape: (n, side_px, side_px), grey level 0..255, 1 <= n <= max_batch.
        """


class FlatbufferNetwork(Protocol):
    """A network that is computed from a flatbuffer file. Several threads are allowed to call `predict` at the same time."""

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns the output of the network for `pixels`, shape (n, side_px, side_px). The first dimension of the output is n."""


class EmptyRuntime:
    """The runtime of a version without networks. Such a version judges pictures only by scorers, which compute with NumPy.

    A scorer learns from good parts alone, and gives each picture a score.
    """

    name = "numpy"

    def __init__(self, classes: int, batch_sizes: Sequence[int]) -> None:
        self._classes = classes
        self.max_batch = max(batch_sizes)

    def warm_up(self) -> None:
        """Does nothing, because this runtime has no networks to load."""

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns an empty array, shape (n, 0, classes), because there are 0 networks. `pixels` has shape (n, side_px, side_px)."""
        return np.zeros((len(pixels), 0, self._classes), np.float32)


def open_runtime(
    version: Version, name: str = AUTO, batch_sizes: Sequence[int] = BATCH_SIZES, threads: int = 0, at_once: int = 1
) -> Runtime:
    """Returns the runtime `name` with the networks of `version`, not warmed up yet.

    - `name`: see `resolve_runtime`.
    - `at_once`: how many threads will call `predict` at the same time.
    - `threads`: how many threads the runtime uses for all these calls together. 0 lets the runtime choose.

    Raises ModelError if the runtime cannot be opened.
    """
    if not version.manifest.voters:
        return EmptyRuntime(len(version.manifest.classes), batch_sizes)
    name = resolve_runtime(version, name)
    if name not in RUNTIMES:
        raise ModelError(f"There is no runtime {name!r}. Choose {AUTO}, {', '.join(RUNTIMES[:-1])} or {RUNTIMES[-1]}.")
    module_name, class_name, library, _ = _CLASSES[name.partition("-")[0]]
    if find_spec(library) is None:
        raise ModelError(f"The runtime {name} cannot be used: {find_obstacle(name)}.")
    module = importlib.import_module(f"models.inference.runtimes.{module_name}")
    runtime: Runtime = getattr(module, class_name)(version, name, batch_sizes, threads, at_once)
    return runtime


def import_runtime(version: Version, name: str) -> None:
    """Imports the library with which the runtime `name`, which may be `auto`, computes the networks of `version`.

    Does nothing if the library is missing, because `open_runtime` reports this.
    """
    module_name, _, library, _ = _CLASSES[resolve_runtime(version, name).partition("-")[0]]
    if version.manifest.voters and find_spec(library) is not None:
        importlib.import_module(f"models.inference.runtimes.{module_name}")


def open_flatbuffer(path: Path, name: str, batch_sizes: Sequence[int], side_px: int, threads: int = 0) -> FlatbufferNetwork:
    """Opens the flatbuffer `path` with the library of the runtime `name`, and returns the network, which computes in float32.

    The network is not warmed up yet. Raises ModelError if the library cannot compute the network.
    """
    module = importlib.import_module(f"models.inference.runtimes.{_CLASSES[name.partition('-')[0]][0]}")
    network: FlatbufferNetwork = module.open_flatbuffer_network(path, batch_sizes, side_px, threads)
    return network


def find_obstacle(name: str, find_library: Callable[[str], object] = find_spec) -> str:
    """Returns the reason why the runtime `name` is slow or cannot be used on this machine, or "" if it works well."""
    _, _, library, extra = _CLASSES[name.partition("-")[0]]
    if find_library(library) is None:
        return f"{library} is not installed; install Castline with the extra {extra}: pip install 'castline[{extra}]'"
    if name.endswith("-bf16") and not has_bfloat16():
        return "the processor has no bfloat16 units"
    return ""


def resolve_runtime(version: Version, name: str) -> str:
    """Returns `name`. If `name` is `auto`, returns the name of the best runtime for `version`.

    `auto` means the runtime that `castline models optimise` recorded for this version and type of processor. Without a usable record,
    `auto` means TensorFlow in float32.
    """
    if name != AUTO:
        return name
    try:
        recorded = str(json.loads(runtime_record_path(version).read_text(encoding="utf-8"))[describe_processor()]["chosen"])
    except (OSError, ValueError, KeyError, TypeError):
        log.info(
            "For version %s, no fastest runtime is recorded on this machine, so %s is used. "
            "To find the fastest one, run castline models optimise.",
            version.name,
            FLOAT32,
        )
        return FLOAT32
    if obstacle := find_obstacle(recorded):
        log.warning(
            "Version %s is computed with %s, because its recorded runtime %s has a problem: %s", version.name, FLOAT32, recorded, obstacle
        )
        return FLOAT32
    return recorded


def runtime_record_path(version: Version) -> Path:
    """Returns the path of the file that records the fastest runtimes of a version.

    The file lies beside the folder of the version and not in it, because the files in that folder never change.
    """
    return version.folder.with_name(f"{version.folder.name}.runtimes.json")


def describe_processor() -> str:
    """Returns a text that names this machine's processors. The fastest runtime is recorded under this text.

    The text consists of the architecture, "bfloat16" or "no bfloat16", the model of the processors, and their number.
    """
    models = [line.partition(":")[2].strip() for line in _read_cpuinfo().splitlines() if line.startswith("model name")]
    bfloat16 = "bfloat16" if has_bfloat16() else "no bfloat16"
    return f"{platform.machine()} {bfloat16} {models[0] if models else platform.processor()} x {len(models)}"


def has_bfloat16() -> bool:
    """Tells whether the processor has bfloat16 units (AVX512_BF16 or AMX). On systems other than Linux the answer is always False."""
    return any(flag in _read_cpuinfo() for flag in ("avx512_bf16", "amx_bf16"))


def count_threads(threads: int) -> int:
    """Returns `threads`, or the number of processors that this process may use if `threads` is 0."""
    return threads or len(os.sched_getaffinity(0))


def choose_concurrent_calls(threads: int) -> int:
    """Returns how many concurrent calls of `predict` are fastest: two, or one if there is only one thread.

    Two calls keep every processor busy. If `threads` is 0, every processor is used.
    """
    return min(2, count_threads(threads))


def pad_batch(pixels: npt.NDArray[np.uint8], batch_sizes: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Appends black pictures to `pixels`, shape (n, side, side), so that the batch gets one of the sizes in `batch_sizes` (sorted).

    Raises ValueError if `pixels` is empty or larger than every batch size.
    """
    missing = find_batch_size(len(pixels), batch_sizes) - len(pixels)
    if not missing:
        return pixels
    return np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)])


def find_batch_size(count: int, batch_sizes: Sequence[int]) -> int:
    """Returns the smallest of the sorted `batch_sizes` that holds `count` pictures. Raises ValueError if none does."""
    if count < 1:
        raise ValueError("expected at least one picture, received none")
    for size in batch_sizes:
        if count <= size:
            return size
    raise ValueError(f"expected at most {batch_sizes[-1]} pictures in a batch, received {count}")


def split_batches(pixels: npt.NDArray[np.uint8], max_batch: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields `pixels` in batches of at most `max_batch` pictures, in order."""
    for start in range(0, len(pixels), max_batch):
        yield pixels[start : start + max_batch]


def _read_cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.exists() else ""
