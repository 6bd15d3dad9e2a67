"""Builds PromQL expressions for panels, and lists the metrics that expressions may read.

In the expressions, `$plant` and `$line` are variables of our dashboards, and `$__rate_interval` and `$__range` are Grafana's own variables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from prometheus_client.metrics import MetricWrapperBase

from streams import metrics

PLANT = 'plant=~"$plant"'
LINE = 'plant=~"$plant",line=~"$line"'

# Metrics that Castline does not declare itself. Prometheus or its client library provides them.
FOREIGN_METRICS = (
    "up",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "scrape_duration_seconds",
    "ALERTS",
)
_NAME = re.compile(r"(?<![\w$\"=~.:-])([a-z_][a-z0-9_]*:)?(castline_\w+(?::\w+)?|" + "|".join(FOREIGN_METRICS) + r")(?![\w:]*\()")


def select(metric: str, where: str = "", scope: str = LINE) -> str:
    """Returns the name of the metric with label matchers in braces.

    By default, the matchers select the plants and lines that the dashboard shows. `where` adds further matchers, for example
    `role="inspector"`.
    """
    return f"{metric}{{{','.join(part for part in (scope, where) if part)}}}"


def rate(metric: str, by: str = "line", where: str = "", scope: str = LINE) -> str:
    """Returns an expression for the growth of a counter per second. It adds up the series that have the same values of the labels `by`."""
    return f"sum by ({by}) (rate({select(metric, where, scope)}[$__rate_interval]))"


def increase(metric: str, by: str = "line", where: str = "", scope: str = LINE) -> str:
    """Returns an expression for the growth of a counter over the time range of the dashboard."""
    return f"sum by ({by}) (increase({select(metric, where, scope)}[$__range]))"


def quantile(share: float, metric: str, by: str = "line", where: str = "", scope: str = LINE) -> str:
    """Returns an expression for the quantile `share` (0..1) of a histogram."""
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({select(f'{metric}_bucket', where, scope)}[$__rate_interval])))"


def p99(metric: str, by: str = "line", where: str = "", scope: str = LINE) -> str:
    """Returns an expression for the 99th percentile of a histogram."""
    return quantile(0.99, metric, by, where, scope)


def p50(metric: str, by: str = "line", where: str = "", scope: str = LINE) -> str:
    """Returns an expression for the median of a histogram."""
    return quantile(0.5, metric, by, where, scope)


def find_metric_names(expression: str) -> set[str]:
    """Returns the names of the metrics and recorded series that an expression reads."""
    return {(match[1] or "") + match[2] for match in _NAME.finditer(re.sub(r'"[^"]*"', '""', expression))}


@dataclass(frozen=True)
class DeclaredMetric:
    """A metric that the module streams.metrics declares, with its name in Prometheus. `labels` are in the order of the declaration."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def series(self) -> frozenset[str]:
        """The names under which Prometheus stores the metric. A histogram has three names, every other metric has one."""
        suffixes = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return frozenset(self.name + suffix for suffix in suffixes)


def list_declared_metrics() -> list[DeclaredMetric]:
    """Returns all metrics of the module streams.metrics, in the order of their declaration."""
    return [_describe(value) for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]


def _describe(metric: MetricWrapperBase) -> DeclaredMetric:
    (family,) = metric.describe()
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return DeclaredMetric(name, family.type, tuple(metric._labelnames), family.documentation)
