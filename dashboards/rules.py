"""Defines alerting rules with runbooks, recording rules, and rules that let one alert silence others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Runbook:
    """Instructions for the person who is called by an alert.

    `meaning` says what happened, `impact` what that means for the castings, `first_look` where to look first, and `fix` how to end it.
    """

    meaning: str
    impact: str
    first_look: str
    fix: str

    def to_markdown(self) -> str:
        """Returns the four parts as paragraphs, without a heading."""
        parts = (("Meaning", self.meaning), ("Impact", self.impact), ("First look", self.first_look), ("Fix", self.fix))
        return "\n\n".join(f"**{title}.** {text}" for title, text in parts)


@dataclass(frozen=True)
class Alert:
    """An alerting rule together with its runbook, so that no alert can be written without one.

    `expression` must hold for `for_duration` before the alert fires. `critical` calls a person at once, `warning` waits for the start of
    the next shift. `summary` is a template that Prometheus and Grafana both understand. `dashboard_uid` and `panel_title` name the panel
    that shows the problem.
    """

    name: str
    expression: str
    for_duration: str
    severity: Severity
    summary: str
    dashboard_uid: str
    panel_title: str
    runbook: Runbook

    @property
    def uid(self) -> str:
        """Fixed identifier of the rule in Grafana, at most 40 characters."""
        return f"castline-{self.slug}"[:40]

    @property
    def slug(self) -> str:
        """Heading of the alert in the runbook, for instance `gate-not-answering`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.name).lower()

    @property
    def labels(self) -> dict[str, str]:
        """Labels that the firing alert gets."""
        return {"severity": self.severity, "service": "castline"}

    def annotations(self, panel_link: str, runbook_link: str) -> dict[str, str]:
        """Returns the texts of the firing alert. The links are paths below Grafana's address."""
        book = self.runbook
        description = f"{book.meaning} {book.impact} First look: {book.first_look}"
        return {"summary": self.summary, "description": description, "dashboard": panel_link, "runbook": runbook_link}


@dataclass(frozen=True)
class Inhibition:
    """While the alert `source` fires, the alerts `targets` with the same labels `equal` call nobody, because they are its consequences."""

    source: str
    targets: tuple[str, ...]
    equal: tuple[str, ...]


@dataclass(frozen=True)
class RecordingRule:
    """Defines a series that Prometheus computes from an expression and stores under a name."""

    name: str
    expression: str


# The service level objective: the share of parts that reach the gate with a verdict, over 30 days.
OBJECTIVE = 0.9995
BUDGET = round(1 - OBJECTIVE, 6)
WINDOWS = ("5m", "30m", "1h", "6h", "30d")

_WITHOUT_VERDICT = 'reason=~"no-verdict|late-verdict"'
# Parts that a fault decided about, that were taken off the belt or that were never counted say nothing about verdicts.
_COUNTED = 'reason=~"verdict|no-verdict|late-verdict"'


def _share(window: str, part: str, whole: str) -> str:
    """Returns the share `part` / `whole` by line. There is no value while nothing moves, because 0 / 0 is neither good nor bad."""
    return f"sum by (plant, line) (rate({part}[{window}])) / (sum by (plant, line) (rate({whole}[{window}])) > 0)"


def _unseen_parts(window: str) -> RecordingRule:
    part, whole = f"castline_parts_sorted_total{{{_WITHOUT_VERDICT}}}", f"castline_parts_sorted_total{{{_COUNTED}}}"
    return RecordingRule(f"line:castline_unseen_parts:ratio_rate{window}", _share(window, part, whole))


def _share_of_label(label: str, window: str) -> RecordingRule:
    # A line that has had no verdict with this label yet has the share 0. Without the `or` the line would have no value.
    all_verdicts = f"sum by (plant, line) (rate(castline_verdicts_total[{window}]))"
    part = f'sum by (plant, line) (rate(castline_verdicts_total{{label="{label}"}}[{window}]))'
    return RecordingRule(f"line:castline_{label}_verdicts:ratio_rate{window}", f"({part} or 0 * {all_verdicts}) / ({all_verdicts} > 0)")


# Series that several panels and alerts read, or that take too long to compute each time.
RECORDING_RULES: tuple[RecordingRule, ...] = (
    *(_unseen_parts(window) for window in WINDOWS),
    _share_of_label("defect", "1h"),
    _share_of_label("defect", "1d"),
    _share_of_label("review", "1h"),
    RecordingRule(
        "line:castline_vote_disagreements:ratio_rate1h",
        _share("1h", "castline_vote_disagreements_total", "castline_verdicts_total"),
    ),
    RecordingRule(
        "line:castline_verdict_age_seconds:p99_5m",
        "histogram_quantile(0.99, sum by (plant, line, le) (rate(castline_verdict_age_seconds_bucket[5m])))",
    ),
    RecordingRule("line:castline_consumer_lag_records:sum", 'sum by (plant, line) (castline_consumer_lag_records{role="inspector"})'),
)
