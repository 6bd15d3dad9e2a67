"""The metrics that the code declares, as Prometheus knows them."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.metrics import MetricWrapperBase

from streams import metrics


@dataclass(frozen=True)
class Metric:
    """A metric as it is declared. `labels` in the order of the declaration."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def series(self) -> frozenset[str]:
        """The names that Prometheus has it by."""
        ends = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return frozenset(self.name + end for end in ends)


def declared() -> list[Metric]:
    """All metrics, in the order of the declaration."""
    return [_metric(one) for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]


def _metric(one: MetricWrapperBase) -> Metric:
    (described,) = one.describe()
    # The client takes the end `_total` off a counter's name and puts it on again when it is read.
    name = f"{described.name}_total" if described.type == "counter" else described.name
    return Metric(name, described.type, tuple(one._labelnames), described.documentation)
