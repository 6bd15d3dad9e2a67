"""What computes the networks: one small interface, several ways behind it."""

from __future__ import annotations

from collections.abc import Sequence

from models.registry import Version
from models.runtimes.runtime import BATCH_SIZES, Runtime
from streams.errors import ModelError

__all__ = ["BATCH_SIZES", "RUNTIMES", "Runtime", "open_runtime"]

RUNTIMES = ("tensorflow", "tensorflow-bf16")
AUTO = "auto"


def open_runtime(version: Version, name: str = AUTO, batch_sizes: Sequence[int] = BATCH_SIZES, threads: int = 0) -> Runtime:
    """The runtime `name` with the networks of `version`, not yet warm; `auto` is the fastest known for this machine.

    `threads` 0 leaves their number to the runtime. Raises ModelError when the name is unknown or the networks cannot be built.
    """
    if name == AUTO:
        from models.runtimes.choice import chosen

        name = chosen(version)
    if name not in RUNTIMES:
        raise ModelError(f"expected one of the runtimes {AUTO}, {', '.join(RUNTIMES)}, found {name!r}")
    from models.runtimes.tensorflow import TensorFlow  # takes seconds to import

    return TensorFlow(version, name, batch_sizes, threads)
