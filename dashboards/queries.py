"""PromQL as the panels need it. `$plant` and `$line` are the dashboard's variables, `$__rate_interval` is Grafana's."""

from __future__ import annotations

import re

PLANT = 'plant=~"$plant"'
LINE = 'plant=~"$plant",line=~"$line"'

# Names that Prometheus and the client library bring: they are no metric of ours and are not declared.
FOREIGN = ("up", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "scrape_duration_seconds", "ALERTS")
_NAME = re.compile(r"(?<![\w$\"=~.:-])([a-z_][a-z0-9_]*:)?(castline_\w+(?::\w+)?|" + "|".join(FOREIGN) + r")(?![\w:]*\()")


def selected(metric: str, where: str = "", scope: str = LINE) -> str:
    """`metric` of the plants and lines chosen, where `where` holds."""
    return f"{metric}{{{','.join(part for part in (scope, where) if part)}}}"


def rate(metric: str, by: str = "line", where: str = "", scope: str = LINE) -> str:
    """How much a counter grows a second, summed by the labels `by`."""
    return f"sum by ({by}) (rate({selected(metric, where, scope)}[$__rate_interval]))"


def grown(metric: str, by: str = "line", where: str = "", scope: str = LINE) -> str:
    """How much a counter grew in the time shown."""
    return f"sum by ({by}) (increase({selected(metric, where, scope)}[$__range]))"


def quantile(share: float, metric: str, by: str = "line", where: str = "", scope: str = LINE) -> str:
    """The quantile of a histogram."""
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({selected(f'{metric}_bucket', where, scope)}[$__rate_interval])))"


def p99(metric: str, by: str = "line", where: str = "", scope: str = LINE) -> str:
    return quantile(0.99, metric, by, where, scope)


def p50(metric: str, by: str = "line", where: str = "", scope: str = LINE) -> str:
    return quantile(0.5, metric, by, where, scope)


def names_in(expression: str) -> set[str]:
    """The metrics and recorded series that an expression reads."""
    return {(match[1] or "") + match[2] for match in _NAME.finditer(re.sub(r'"[^"]*"', '""', expression))}
