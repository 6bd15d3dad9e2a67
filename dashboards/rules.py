"""Defines alerting rules with their runbooks, recording rules, and inhibitions, by which one alert silences others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Runbook:
    """Instructions for the person whom an alert calls.

    - `meaning`: what happened.
    - `impact`: the consequences for the castings.
    - `first_look`: the pages, logs and commands that show the cause.
    - `fix`: the steps that end the problem.
    """

    meaning: str
    impact: str
    first_look: str
    fix: str

    def to_markdown(self) -> str:
        """Returns meaning, impact, first look and fix as four paragraphs of Markdown, without a heading."""
        parts = (("Meaning", self.meaning), ("Impact", self.impact), ("First look", self.first_look), ("Fix", self.fix))
        return "\n\n".join(f"**{title}.** {text}" for title, text in parts)


@dataclass(frozen=True)
class Alert:
    """An alerting rule with its runbook. The rule fires when `expression` has been true for `for_duration`.

    A `critical` alert calls a person at once. A `warning` waits for the next shift.
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
        """The fixed identifier of the rule in Grafana, at most 40 characters."""
        return f"castline-{self.slug}"[:40]

    @property
    def slug(self) -> str:
        """The alert's name in lower case with hyphens, for instance `gate-not-answering`. `uid` contains this text."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.name).lower()

    @property
    def labels(self) -> dict[str, str]:
        """The labels that the alert has when it fires: its severity, and `castline` as the service."""
        return {"severity": self.severity, "service": "castline"}

    def annotations(self, panel_link: str, runbook_link: str) -> dict[str, str]:
        """Returns the texts that are sent with the firing alert. The links are paths below Grafana's address."""
        book = self.runbook
        description = f"{book.meaning} {book.impact} First look: {book.first_look}"
        return {"summary": self.summary, "description": description, "dashboard": panel_link, "runbook": runbook_link}


@dataclass(frozen=True)
class Inhibition:
    """A rule that silences the alerts `targets` while the alert `source` fires, because they are consequences of the same problem.

    The rule applies only if the labels named in `equal`, such as `line`, have the same values in both alerts.
    """

    source: str
    targets: tuple[str, ...]
    equal: tuple[str, ...]


@dataclass(frozen=True)
class RecordingRule:
    """A rule by which Prometheus computes a series from an expression and stores it under a name."""

    name: str
    expression: str


# The service level objective: over 30 days, at least this share of the parts must have a verdict when they reach the gate.
OBJECTIVE = 0.9995
BUDGET = round(1 - OBJECTIVE, 6)
WINDOWS = ("5m", "30m", "1h", "6h", "30d")

_WITHOUT_VERDICT = 'reason=~"no-verdict|late-verdict"'
# For each part, the board reports the reason why its gate moved or stayed. Only the reasons `verdict`, `no-verdict` and `late-verdict` show
# whether the part had its verdict in time. So the service level objective does not count parts with another reason, such as a fault.
_COUNTED = 'reason=~"verdict|no-verdict|late-verdict"'


def _share(window: str, part: str, whole: str) -> str:
    """Returns a PromQL expression: for each line, the increase of the counter `part` divided by the increase of the counter `whole`.

    Both increases are those of the last `window`, such as "1h". A line is left out if `whole` did not increase.
    """
    return f"sum by (plant, line) (rate({part}[{window}])) / (sum by (plant, line) (rate({whole}[{window}])) > 0)"


def _unseen_parts(window: str) -> RecordingRule:
    part, whole = f"castline_parts_sorted_total{{{_WITHOUT_VERDICT}}}", f"castline_parts_sorted_total{{{_COUNTED}}}"
    return RecordingRule(f"line:castline_unseen_parts:ratio_rate{window}", _share(window, part, whole))


def _share_of_label(label: str, window: str) -> RecordingRule:
    all_verdicts = f"sum by (plant, line) (rate(castline_verdicts_total[{window}]))"
    part = f'sum by (plant, line) (rate(castline_verdicts_total{{label="{label}"}}[{window}]))'
    return RecordingRule(f"line:castline_{label}_verdicts:ratio_rate{window}", f"({part} or 0 * {all_verdicts}) / ({all_verdicts} > 0)")


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
