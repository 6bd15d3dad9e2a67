"""The page of the metrics."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from docs.generator.tables import page, table
from streams import metrics

_INTRODUCTION = """Every process serves them at `/metrics`. Units are base units and stand at the end of the name: seconds,
bytes; `_total` counts up. A histogram has its `_bucket`, `_sum` and `_count`. All metrics are declared in `streams/metrics.py`."""


@dataclass(frozen=True)
class Metric:
    """A metric as it is declared. `labels` in the order of the declaration."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    section: str

    @property
    def series(self) -> set[str]:
        """The names that Prometheus has it by."""
        return {self.name, *(f"{self.name}{end}" for end in ("_bucket", "_sum", "_count"))} if self.kind == "histogram" else {self.name}


def declared() -> list[Metric]:
    """All metrics, in the order of the declaration."""
    return [
        _metric(one, section)
        for name, section in _sections().items()
        if isinstance(one := getattr(metrics, name), Counter | Gauge | Histogram)
    ]


def pages() -> dict[str, str]:
    sections: dict[str, list[Metric]] = defaultdict(list)
    for one in declared():
        sections[one.section].append(one)
    parts = [_INTRODUCTION]
    for section, found in sections.items():
        rows = ((f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.meaning) for one in found)
        parts += [f"## {section}", table(("metric", "type", "labels", "meaning"), rows)]
    return {"metrics.md": page("Metrics", *parts)}


def _metric(one: Counter | Gauge | Histogram, section: str) -> Metric:
    (described,) = one.describe()
    # The client takes the end `_total` off a counter's name and puts it on again when it is read.
    name = f"{described.name}_total" if described.type == "counter" else described.name
    return Metric(name, described.type, tuple(one._labelnames), described.documentation, section)


def _sections() -> dict[str, str]:
    """The role under whose comment each name of the module is declared."""
    found, section = {}, ""
    for line in inspect.getsource(metrics).splitlines():
        if heading := re.match(r"# (.+)", line):
            section = heading[1]
        elif name := re.match(r"(\w+) = (Counter|Gauge|Histogram)\(", line):
            found[name[1]] = section
    return found
