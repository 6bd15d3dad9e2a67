"""The recorded series: what several panels and alerts read, and what would be too slow to compute each time."""

from __future__ import annotations

from dashboards.alerts.alert import Recording

# The promise: share of the parts that reach the gate with a verdict, over 30 days.
OBJECTIVE = 0.9995
BUDGET = round(1 - OBJECTIVE, 6)
WINDOWS = ("5m", "30m", "1h", "6h", "30d")

_UNSEEN = 'reason=~"no-verdict|late-verdict"'
# A part that a fault decided, that was taken off or never counted, says nothing about verdicts.
_JUDGED = 'reason=~"verdict|no-verdict|late-verdict"'


def share(window: str, part: str, whole: str) -> str:
    """`part` of `whole` by line; no value while nothing moves, since 0 / 0 is neither good nor bad."""
    return f"sum by (plant, line) (rate({part}[{window}])) / (sum by (plant, line) (rate({whole}[{window}])) > 0)"


def _unseen(window: str) -> Recording:
    expression = share(window, f"castline_parts_sorted_total{{{_UNSEEN}}}", f"castline_parts_sorted_total{{{_JUDGED}}}")
    return Recording(f"line:castline_unseen_parts:ratio_rate{window}", expression)


def _labelled(label: str, window: str) -> Recording:
    # A line that has had no such verdict yet has a share of 0, not none.
    all_of = f"sum by (plant, line) (rate(castline_verdicts_total[{window}]))"
    part = f'sum by (plant, line) (rate(castline_verdicts_total{{label="{label}"}}[{window}]))'
    expression = f"({part} or 0 * {all_of}) / ({all_of} > 0)"
    return Recording(f"line:castline_{label}_verdicts:ratio_rate{window}", expression)


RECORDINGS: tuple[Recording, ...] = (
    *(_unseen(window) for window in WINDOWS),
    _labelled("defect", "1h"),
    _labelled("defect", "1d"),
    _labelled("review", "1h"),
    Recording(
        "line:castline_vote_disagreements:ratio_rate1h",
        share("1h", "castline_vote_disagreements_total", "castline_verdicts_total"),
    ),
    Recording(
        "line:castline_verdict_age_seconds:p99_5m",
        "histogram_quantile(0.99, sum by (plant, line, le) (rate(castline_verdict_age_seconds_bucket[5m])))",
    ),
    Recording("line:castline_consumer_lag_records:sum", 'sum by (plant, line) (castline_consumer_lag_records{role="inspector"})'),
)
