"""The dashboard "Castline: plant": all lines of a plant at a glance."""

from __future__ import annotations

from dashboards.panels import NO_THRESHOLDS, DashboardPage, Query, falling, rising, stat_panel, timeseries_panel
from dashboards.promql import LINE, PLANT, rate
from dashboards.rules import BUDGET

_SILENT = (
    f"(sum by (plant, line) (rate(castline_parts_counted_total{{{LINE}}}[2m])) > bool 0) "
    f"* on (plant, line) (sum by (plant, line) (rate(castline_verdicts_total{{{LINE}}}[2m])) == bool 0)"
)

SILENT_LINES = "Does every running line get verdicts?"
BURN_RATE = "How fast is the error budget spent?"
PROCESSES = "Is every process up and ready?"

PAGE = DashboardPage(
    "castline-plant",
    "Castline: plant",
    "All lines at a glance: does any of them need a person?",
    (
        stat_panel(
            SILENT_LINES,
            Query(_SILENT, "{{plant}} {{line}}"),
            unit="short",
            description="0 is good. 1 means that photo-eye 1 counts castings and none of them was judged for two minutes.",
            thresholds=rising(0.5, 1),
            alerts=("LineSilent",),
            width=8,
        ),
        stat_panel(
            "How many alerts are firing?",
            Query(
                'count by (severity) (ALERTS{alertstate="firing",service="castline"}) '
                'or label_replace(vector(0), "severity", "none", "", "")',
                "{{severity}}",
            ),
            unit="short",
            description="Each alert has a page in the runbook that says what to do first.",
            thresholds=rising(1, 3),
        ),
        stat_panel(
            "How much of the month's error budget is left?",
            Query(f"1 - line:castline_unseen_parts:ratio_rate30d{{{LINE}}} / {BUDGET}", "{{plant}} {{line}}"),
            unit="percentunit",
            description="The objective is that 99.95 % of the parts have their verdict before they reach the gate, over 30 days. The error "
            "budget is the allowed rest. Below 0 the objective is missed.",
            thresholds=falling(0, 0.25),
            width=10,
        ),
        timeseries_panel(
            "How many parts a second does each line count?",
            Query(rate("castline_parts_counted_total", "plant, line"), "{{plant}} {{line}}"),
            unit="cps",
            description="Parts that photo-eye 1 counts. A value of 0 means that the line stands.",
        ),
        timeseries_panel(
            "How many verdicts a second does each line get?",
            Query(rate("castline_verdicts_total", "plant, line"), "{{plant}} {{line}}"),
            unit="cps",
            description="As many verdicts as counted parts should come, a few seconds later. If fewer come for long, parts are not judged.",
            alerts=("LineSilent",),
        ),
        timeseries_panel(
            BURN_RATE,
            Query(f"line:castline_unseen_parts:ratio_rate1h{{{LINE}}} / {BUDGET}", "{{line}} 1 h"),
            Query(f"line:castline_unseen_parts:ratio_rate6h{{{LINE}}} / {BUDGET}", "{{line}} 6 h"),
            Query(f"line:castline_unseen_parts:ratio_rate5m{{{LINE}}} / {BUDGET}", "{{line}} 5 min"),
            Query(f"line:castline_unseen_parts:ratio_rate30m{{{LINE}}} / {BUDGET}", "{{line}} 30 min"),
            unit="short",
            description="At 1 the error budget lasts exactly 30 days. An alert warns at 6 over six hours, and calls a person at 14.4 over "
            "an hour.",
            thresholds=rising(6, 14.4),
            alerts=("ErrorBudgetBurnsFast", "ErrorBudgetBurnsSlowly"),
        ),
        timeseries_panel(
            PROCESSES,
            Query(f"castline_process_ready{{{PLANT}}}", "{{instance_name}} ready"),
            Query(f'up{{job="castline",{PLANT}}}', "{{instance_name}} up"),
            unit="short",
            description="Both values are 1 when all is well. A process that is up and not ready waits for something, which its page "
            "/readyz names. A process that is not up does not answer.",
            thresholds=falling(0.5, 1),
            alerts=("NoInspector", "ProcessDown", "ProcessNotReady"),
        ),
        timeseries_panel(
            "Do the slowest verdicts come in time?",
            Query(f"line:castline_verdict_age_seconds:p99_5m{{{LINE}}}", "{{plant}} {{line}}"),
            Query(f"max by (plant, line) (castline_verdict_deadline_seconds{{{LINE}}})", "{{line}} deadline"),
            unit="s",
            description="Time from picture to verdict, exceeded by one verdict in a hundred, and the time that a part takes to its gate.",
            alerts=("VerdictsTooOld",),
        ),
        timeseries_panel(
            "Which share of the verdicts is defect?",
            Query(f"line:castline_defect_verdicts:ratio_rate1h{{{LINE}}}", "{{plant}} {{line}}"),
            unit="percentunit",
            description="Share over the last hour. A jump means either bad castings or bad pictures, for instance from a dirty lens. A "
            "person has to look in both cases.",
            thresholds=NO_THRESHOLDS,
            alerts=("VerdictsDrift",),
        ),
    ),
    time_from="now-3h",
)
