"""The dashboard "Castline: plant" shows all lines of a plant at a glance."""

from __future__ import annotations

from dashboards.panels import NO_THRESHOLDS, DashboardPage, Query, falling, rising, stat_panel, timeseries_panel
from dashboards.promql import LINE, PLANT, rate
from dashboards.rules import BUDGET, Alert, Runbook
from streams.plant_states import STATE_ALARMS, PlantState

_SILENT = (
    f"(sum by (plant, line) (rate(castline_parts_counted_total{{{LINE}}}[2m])) > bool 0) "
    f"* on (plant, line) (sum by (plant, line) (rate(castline_verdicts_total{{{LINE}}}[2m])) == bool 0)"
)

_STATES_IN_ORDER = ", ".join(f"`{state.value}`" for state in PlantState)

STATES = "In which state is each line?"
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
            description="The value 0 means that all is well. The value 1 means that photo-eye 1 counted castings in the last two minutes, "
            "but no inspector judged them.",
            thresholds=rising(0.5, 1),
            alerts=("LineSilent",),
            width=8,
        ),
        timeseries_panel(
            STATES,
            Query(f"max by (plant, line, state) (castline_line_state{{{LINE}}}) == 1", "{{plant}} {{line}} {{state}}"),
            unit="short",
            description="The archivist computes these states. `running` is the normal state. The station's page “Wall” and `castline top` "
            f"use the same names for the states. If several states apply, a line has the first of them in this order: {_STATES_IN_ORDER}.",
            alerts=tuple(alarm.alert for alarm in STATE_ALARMS.values()),
        ),
        stat_panel(
            "How many alerts are firing?",
            Query(
                'count by (severity) (ALERTS{alertstate="firing",service="castline"}) '
                'or label_replace(vector(0), "severity", "none", "", "")',
                "{{severity}}",
            ),
            unit="short",
            description="Number of firing alerts, by severity. The dashboard “Castline: runbook” says what to do about each alert.",
            thresholds=rising(1, 3),
        ),
        stat_panel(
            "How much of the month's error budget is left?",
            Query(f"1 - line:castline_unseen_parts:ratio_rate30d{{{LINE}}} / {BUDGET}", "{{plant}} {{line}}"),
            unit="percentunit",
            description="Over 30 days, 99.95 % of the parts should have a verdict before they reach the gate. The remaining 0.05 % are "
            "the error budget. If the value is below 0, the line has used more than its budget, so it has missed the objective.",
            thresholds=falling(0, 0.25),
            width=10,
        ),
        timeseries_panel(
            "How many parts a second does each line count?",
            Query(rate("castline_parts_counted_total", "plant, line"), "{{plant}} {{line}}"),
            unit="cps",
            description="Parts that photo-eye 1 counts. If the value is 0, no parts pass, for instance because the belt has stopped.",
        ),
        timeseries_panel(
            "How many verdicts a second does each line get?",
            Query(rate("castline_verdicts_total", "plant, line"), "{{plant}} {{line}}"),
            unit="cps",
            description="Each counted part should get a verdict within a few seconds. If the line has fewer verdicts than parts for a "
            "long time, parts are not judged.",
            alerts=("LineSilent",),
        ),
        timeseries_panel(
            BURN_RATE,
            Query(f"line:castline_unseen_parts:ratio_rate1h{{{LINE}}} / {BUDGET}", "{{line}} 1 h"),
            Query(f"line:castline_unseen_parts:ratio_rate6h{{{LINE}}} / {BUDGET}", "{{line}} 6 h"),
            Query(f"line:castline_unseen_parts:ratio_rate5m{{{LINE}}} / {BUDGET}", "{{line}} 5 min"),
            Query(f"line:castline_unseen_parts:ratio_rate30m{{{LINE}}} / {BUDGET}", "{{line}} 30 min"),
            unit="short",
            description="How fast the line spends its error budget (0.05 % of the parts). With the value 1, the budget lasts 30 days. A "
            "value above 6 over six hours gives a warning. A value above 14.4 over one hour calls a person.",
            thresholds=rising(6, 14.4),
            alerts=("ErrorBudgetBurnsFast", "ErrorBudgetBurnsSlowly"),
        ),
        timeseries_panel(
            PROCESSES,
            Query(f"castline_process_ready{{{PLANT}}}", "{{machine}} {{instance_name}} ready"),
            Query(f'up{{job="castline",{PLANT}}}', "{{machine}} {{instance_name}} up"),
            unit="short",
            description="The values `ready` and `up` of each process are 1 when all is well. If a process is up but not ready, its page "
            "/readyz names what is missing. A process that is not up does not answer.",
            thresholds=falling(0.5, 1),
            alerts=("NoInspector", "ProcessDown", "ProcessNotReady"),
        ),
        timeseries_panel(
            "Do the slowest verdicts come in time?",
            Query(f"line:castline_verdict_age_seconds:p99_5m{{{LINE}}}", "{{plant}} {{line}}"),
            Query(f"max by (plant, line) (castline_verdict_deadline_seconds{{{LINE}}})", "{{line}} deadline"),
            unit="s",
            description="Time from a picture to its verdict: 99 of 100 verdicts come within this time. A verdict that comes after the "
            "deadline is too late for the gate.",
            alerts=("VerdictsTooOld",),
        ),
        timeseries_panel(
            "Which share of the verdicts is defect?",
            Query(f"line:castline_defect_verdicts:ratio_rate1h{{{LINE}}}", "{{plant}} {{line}}"),
            unit="percentunit",
            description="Share of the verdicts that were `defect`, over the last hour. A sudden rise means bad castings, or bad "
            "pictures, for instance because of a dirty lens.",
            thresholds=NO_THRESHOLDS,
            alerts=("VerdictsDrift",),
        ),
    ),
    time_from="now-3h",
)

_FIXES = {
    PlantState.DISCONNECTED: "If the board does not answer, do what the runbook says under `GateNotAnswering`. If Kafka does not answer, "
    "start the broker again, and read its log.",
    PlantState.GATE_HELD: "Do what the runbook says under `GateHeldSafe`. The page of the line names the fault.",
    PlantState.RUNNING_BLIND: "If no inspector is ready, do what the runbook says under `NoInspector`. If an inspector is ready, do what "
    "the runbook says under `LineSilent`.",
    PlantState.CAMERA_SILENT: "The page `/readyz/<line>` of the gateway says whether the gateway can reach the camera. Then do what the "
    "runbook says under `CameraDown`.",
    PlantState.LATE: "Do what the runbook says under `VerdictsTooOld`.",
}

# Each archivist exports the states of all lines. An archivist that cannot reach Kafka reports wrong states. So the expression of an alert
# takes the minimum (`min`), and the alert fires only if all archivists report the state.
STATE_ALERTS: tuple[Alert, ...] = tuple(
    Alert(
        alarm.alert,
        f'min by (plant, line) (castline_line_state{{state="{state.value}"}}) > 0',
        "30s",
        alarm.severity,
        f"{{{{ $labels.line }}}}: the state of the line is {state.display_name}",
        PAGE.uid,
        STATES,
        Runbook(alarm.meaning, alarm.impact, alarm.first_step, _FIXES[state]),
    )
    for state, alarm in STATE_ALARMS.items()
)
