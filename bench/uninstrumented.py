"""`castline` with every metric silenced: what a measurement of the instrumentation's cost is compared with. Nobody runs it in a plant.

python -m bench.uninstrumented inspector
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import prometheus_client
from prometheus_client.metrics import MetricWrapperBase

from deploy.cli.main import main


def silence() -> None:
    """From now on no metric counts, in this process; what declares and serves them stays as it is."""

    def nothing(*_: Any, **__: Any) -> None:
        return None

    def itself(metric: MetricWrapperBase, *_: Any, **__: Any) -> MetricWrapperBase:
        return metric

    def untimed(*_: Any, **__: Any) -> nullcontext[None]:
        return nullcontext()

    for kind in (prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram):
        for name in ("inc", "dec", "set", "observe", "set_to_current_time", "remove", "clear"):
            if hasattr(kind, name):
                setattr(kind, name, nothing)
        for name in ("time", "track_inprogress"):
            if hasattr(kind, name):
                setattr(kind, name, untimed)
    MetricWrapperBase.labels = itself  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    silence()
    main()
