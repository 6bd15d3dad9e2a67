"""Plant: all lines at a glance. Is anyone in trouble?"""

from __future__ import annotations

from dashboards.alerts.recording import BUDGET
from dashboards.panels import PLAIN, Page, Query, falling, number, rising, trend
from dashboards.queries import LINE, PLANT, rate

_SILENT = (
    f"(sum by (plant, line) (rate(castline_parts_counted_total{{{LINE}}}[2m])) > bool 0) "
    f"* on (plant, line) (sum by (plant, line) (rate(castline_verdicts_total{{{LINE}}}[2m])) == bool 0)"
)

PAGE = Page(
    "castline-plant",
    "Castline: plant",
    "All lines at a glance: is anyone in trouble?",
    (
        number(
            "Does every line that runs get its verdicts?",
            Query(_SILENT, "{{plant}} {{line}}"),
            unit="short",
            why="1 where photo-eye 1 counts castings and none was judged for two minutes; 0 is well.",
            steps=rising(0.5, 1),
            alerts=("LineSilent",),
            width=8,
        ),
        number(
            "How many alerts call for a person?",
            Query(
                'count by (severity) (ALERTS{alertstate="firing",service="castline"}) '
                'or label_replace(vector(0), "severity", "none", "", "")',
                "{{severity}}",
            ),
            unit="short",
            why="Each has a page in the runbook that says what to do first.",
            steps=rising(1, 3),
        ),
        number(
            "How much of the month's error budget is left?",
            Query(f"1 - line:castline_unseen_parts:ratio_rate30d{{{LINE}}} / {BUDGET}", "{{plant}} {{line}}"),
            unit="percentunit",
            why="99.95 % of the parts have their verdict before they reach the gate, over 30 days. Below 0 the promise is broken.",
            steps=falling(0, 0.25),
            width=10,
        ),
        trend(
            "How many parts a second does each line run?",
            Query(rate("castline_parts_counted_total", "plant, line"), "{{plant}} {{line}}"),
            unit="cps",
            why="What photo-eye 1 counts. A line that stands is no fault of ours, but it should be known that it stands.",
        ),
        trend(
            "How many verdicts a second come out?",
            Query(rate("castline_verdicts_total", "plant, line"), "{{plant}} {{line}}"),
            unit="cps",
            why="As many as parts are counted, a few seconds later; a gap that stays is lost judgement.",
            alerts=("LineSilent",),
        ),
        trend(
            "How fast is the error budget spent?",
            Query(f"line:castline_unseen_parts:ratio_rate1h{{{LINE}}} / {BUDGET}", "{{line}} 1 h"),
            Query(f"line:castline_unseen_parts:ratio_rate6h{{{LINE}}} / {BUDGET}", "{{line}} 6 h"),
            Query(f"line:castline_unseen_parts:ratio_rate5m{{{LINE}}} / {BUDGET}", "{{line}} 5 min"),
            Query(f"line:castline_unseen_parts:ratio_rate30m{{{LINE}}} / {BUDGET}", "{{line}} 30 min"),
            unit="short",
            why="1 spends the budget in exactly 30 days. 6 over six hours makes a ticket, 14.4 over an hour calls a person.",
            steps=rising(6, 14.4),
            alerts=("ErrorBudgetBurnsFast", "ErrorBudgetBurnsSlowly"),
        ),
        trend(
            "Is every process up and ready?",
            Query(f"castline_process_ready{{{PLANT}}}", "{{instance_name}} ready"),
            Query(f'up{{job="castline",{PLANT}}}', "{{instance_name}} up"),
            unit="short",
            why="1 is well. Ready 0 and up 1: it waits for something and says for what on /readyz. Up 0: it does not answer.",
            steps=falling(0.5, 1),
            alerts=("NoInspector", "ProcessDown", "ProcessNotReady"),
        ),
        trend(
            "Do the oldest verdicts come in time?",
            Query(f"line:castline_verdict_age_seconds:p99_5m{{{LINE}}}", "{{plant}} {{line}}"),
            Query(f"max by (plant, line) (castline_verdict_deadline_seconds{{{LINE}}})", "{{line}} deadline"),
            unit="s",
            why="Age of one verdict in a hundred, against the time that the part takes to its gate.",
            alerts=("VerdictsTooOld",),
        ),
        trend(
            "How much of what is judged is bad?",
            Query(f"line:castline_defect_verdicts:ratio_rate1h{{{LINE}}}", "{{plant}} {{line}}"),
            unit="percentunit",
            why="What the foundry produces. A jump is either a bad melt or a dirty lens; both want a person.",
            steps=PLAIN,
            alerts=("VerdictsDrift",),
        ),
    ),
    span="now-3h",
)
