"""What computes the networks: one small interface, several ways behind it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from models.inference.runtimes.runtime import BATCH_SIZES, Runtime
from models.registry.versions import Version
from streams.errors import ModelError

__all__ = ["BATCH_SIZES", "RUNTIMES", "Runtime", "hindrance", "open_runtime"]

AUTO = "auto"

# Name in the settings: module and class here, the library it needs, the extra of Castline that brings it.
_WAYS = {
    "tensorflow": ("tensorflow", "TensorFlow", "tensorflow", ""),
    "openvino": ("openvino", "OpenVino", "openvino", "openvino"),
    "litert": ("litert", "LiteRT", "ai_edge_litert", "litert"),
}
RUNTIMES = ("tensorflow", "tensorflow-bf16", "openvino", "openvino-bf16", "openvino-int8", "litert", "litert-int8")


def hindrance(name: str, find: Callable[[str], object] = find_spec) -> str:
    """Why the runtime `name` is of no use on this machine; empty when nothing speaks against it. `find` looks for a library."""
    from models.inference.runtimes.choice import has_bfloat16

    _, _, library, extra = _WAYS[name.partition("-")[0]]
    if find(library) is None:
        return f"{library} is not installed; install Castline with the extra {extra}: pip install 'castline[{extra}]'"
    if name.endswith("-bf16") and not has_bfloat16():
        return "the processor has no bfloat16 units"
    return ""


def open_runtime(
    version: Version, name: str = AUTO, batch_sizes: Sequence[int] = BATCH_SIZES, threads: int = 0, at_once: int = 1
) -> Runtime:
    """The runtime `name` with the networks of `version`, not yet warm; `auto` is the fastest known for this machine.

    `threads` 0 leaves their number to the runtime; `at_once` calls made side by side share them. bfloat16 without units
    for it is slow, not refused. Raises ModelError when the name is unknown, its library is not installed, or the networks cannot be built.
    """
    if name == AUTO:
        from models.inference.runtimes.choice import chosen

        name = chosen(version)
    if name not in RUNTIMES:
        raise ModelError(f"expected one of the runtimes {AUTO}, {', '.join(RUNTIMES)}, found {name!r}")
    module, kind, library, _ = _WAYS[name.partition("-")[0]]
    if find_spec(library) is None:
        raise ModelError(f"runtime {name}: {hindrance(name)}")
    opened: Runtime = getattr(importlib.import_module(f"models.inference.runtimes.{module}"), kind)(
        version, name, batch_sizes, threads, at_once
    )
    return opened
