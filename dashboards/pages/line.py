"""The dashboard "Castline: line" shows one line over a shift.

This module also defines the alerts about parts that reach the gate without a verdict.
"""

from __future__ import annotations

from dashboards.pages import plant
from dashboards.panels import NO_THRESHOLDS, DashboardPage, Query, falling, rising, stat_panel, timeseries_panel
from dashboards.promql import LINE, increase, p50, p99, rate
from dashboards.rules import BUDGET, Alert, Runbook

_AGE = "castline_verdict_age_seconds"
_SORTED = "castline_parts_sorted_total"
_UNSEEN = 'reason=~"no-verdict|late-verdict|fault"'

IN_TIME = "Do verdicts come before the part is at the gate?"
UNJUDGED = "How many parts reached the gate unjudged?"
ACTIONS = "What did the gate do, and why?"

PAGE = DashboardPage(
    "castline-line",
    "Castline: line",
    "One line over a shift: how many parts came, what the verdicts were, and what the gate did.",
    (
        stat_panel(
            "How many parts came?",
            increase("castline_parts_counted_total"),
            unit="short",
            description="Parts that photo-eye 1 counted in the time range shown.",
            thresholds=NO_THRESHOLDS,
        ),
        stat_panel(
            "What were the verdicts?",
            Query(increase("castline_verdicts_total", "label"), "{{label}}"),
            unit="short",
            description="Number of verdicts ok, defect and review in the time range shown.",
            thresholds=NO_THRESHOLDS,
        ),
        stat_panel(
            "What did the gate do?",
            Query(increase(_SORTED, "action"), "{{action}}"),
            unit="short",
            description="Number of parts for each action of the gate in the time range shown, as the board reported them.",
            thresholds=NO_THRESHOLDS,
        ),
        stat_panel(
            "Which share of the parts had a verdict in time?",
            f"1 - line:castline_unseen_parts:ratio_rate1h{{{LINE}}}",
            unit="percentunit",
            description="Share of the last hour's parts that had their verdict before they reached the gate. The objective is 99.95 %.",
            thresholds=falling(0.99, 0.9995),
        ),
        timeseries_panel(
            IN_TIME,
            Query(p99(_AGE), "{{line}} 99 %"),
            Query(p50(_AGE), "{{line}} median"),
            Query(f"max by (line) (castline_verdict_deadline_seconds{{{LINE}}})", "{{line}} deadline"),
            unit="s",
            description="Time from a picture to its verdict. If a verdict comes after the deadline, its part is already at the gate, and "
            "the board applies the line's safe action instead.",
            alerts=("VerdictsTooOld",),
        ),
        timeseries_panel(
            UNJUDGED,
            Query(rate(_SORTED, "line, action, reason", _UNSEEN), "{{line}} {{action}}: {{reason}}"),
            Query(rate("castline_verdicts_late_total"), "{{line}} verdict too late"),
            Query(rate("castline_verdicts_overdue_total"), "{{line}} decided past the deadline"),
            unit="cps",
            description="Parts that the board sorted without a verdict, and verdicts that came too late. Diverted parts may be good "
            "castings. Passed parts may be bad castings.",
            thresholds=rising(0.0001, 0.01),
            alerts=("PartsPassUnseen", "PartsWithoutVerdict"),
        ),
        timeseries_panel(
            "How many verdicts of each label come?",
            Query(rate("castline_verdicts_total", "line, label"), "{{line}} {{label}}"),
            unit="cps",
            description="Verdicts a second, by label. If the proportion of the labels changes, either the castings or the pictures have "
            "changed.",
            alerts=("VerdictsDrift",),
        ),
        timeseries_panel(
            ACTIONS,
            Query(rate(_SORTED, "line, action, reason"), "{{line}} {{action}}: {{reason}}"),
            unit="cps",
            description="Parts a second, by the action of the gate and its reason. If the reason is `verdict`, the gate did what the "
            "verdict said. For every other reason, the gate did not follow a verdict.",
            alerts=("PartsNotTracked",),
        ),
        timeseries_panel(
            "Does each part have one picture and one verdict?",
            Query(rate("castline_parts_counted_total"), "{{line}} parts"),
            Query(rate("castline_pictures_received_total"), "{{line}} pictures"),
            Query(rate("castline_verdicts_total"), "{{line}} verdicts"),
            unit="cps",
            description="Parts, pictures and verdicts a second. When all is well, the three curves are equal.",
        ),
        timeseries_panel(
            "How large are the camera's pictures?",
            Query(rate("castline_picture_bytes_total") + " / " + rate("castline_pictures_sent_total"), "{{line}}"),
            unit="bytes",
            description="Mean size of an encoded picture. The size falls as soon as the lens is covered or the lamp is off. The verdicts "
            "show such a fault much later.",
        ),
    ),
    time_from="now-8h",
)

_UNSEEN_SHARE = "line:castline_unseen_parts:ratio_rate"
# The burn rate says how fast a line spends its error budget, which is meant for 30 days. At the burn rate 1, the budget lasts exactly
# 30 days. At 14.4, the line spends 2 % of its budget in one hour. At 6, the line spends 5 % of its budget in six hours.
FAST_BURN, SLOW_BURN = 14.4, 6.0


def _burns(burn_rate: float, long_window: str, short_window: str) -> str:
    """Returns the expression of an alert that fires if a line spends its error budget too fast.

    The alert fires if the budget is spent faster than `burn_rate` in both time windows. The windows are written as in PromQL, for example
    "1h" and "5m".
    """
    limit = round(burn_rate * BUDGET, 6)
    return f"{_UNSEEN_SHARE}{long_window} > {limit} and {_UNSEEN_SHARE}{short_window} > {limit}"


ALERTS: tuple[Alert, ...] = (
    Alert(
        "PartsPassUnseen",
        'sum by (plant, line) (increase(castline_parts_sorted_total{action="passed",reason!="verdict"}[5m])) > 0',
        "0m",
        "critical",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} parts passed the gate in 5 minutes without a verdict that allowed it',
        PAGE.uid,
        UNJUDGED,
        Runbook(
            "Parts passed the gate although no verdict called them good. Either the line's safe action is `pass`, or two parts were so "
            "close together that the gate could not move between them.",
            "Bad castings may lie among the good ones. The topic `castings.sorted.<line>` names each part that passed without the "
            "verdict `ok`, and gives the reason.",
            "On the Line dashboard, find the reason in the panel “What did the gate do, and why?”. If the reason is "
            "`no-verdict` or `late-verdict`, open the Pipeline dashboard. If the reason is `fault`, open the Gates dashboard.",
            "Hold back the castings that passed without a verdict. Remove the cause, which another alert usually names.\n\n"
            "If a missed bad part costs more than a good part that leaves the belt, set `lines.gate.safe` to `divert`.",
        ),
    ),
    Alert(
        "PartsWithoutVerdict",
        'sum by (plant, line) (increase(castline_parts_sorted_total{action!="passed",reason=~"no-verdict|late-verdict"}[5m])) > 0',
        "0m",
        "warning",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} parts reached the gate without a verdict in 5 minutes and were diverted or '
        "stopped",
        PAGE.uid,
        UNJUDGED,
        Runbook(
            "Parts reached the gate before their verdicts. So the board applied the line's safe action: it diverted these parts or "
            "stopped the belt.",
            "Good castings may lie in the reject chute and must be inspected again. If more than 0.05 % of the parts in 30 days have no "
            "verdict at the gate, the line misses its objective.",
            "On the Line dashboard, check whether pictures arrive, and whether the verdicts come only shortly before the deadline.",
            "If the verdicts are late, start another inspector, as the runbook says under `LagGrowing`.\n\n"
            "If no pictures arrive, do what the runbook says under `LineSilent` and `PicturesUnmatched`.\n\n"
            "`castline trace <part>` shows what happened to one part.",
        ),
    ),
    Alert(
        "PartsNotTracked",
        'sum by (plant, line) (increase(castline_parts_sorted_total{action="untracked",reason!="taken-off"}[5m]) '
        'or increase(castline_parts_sorted_total{reason="unmatched"}[5m])) > 0',
        "0m",
        "warning",
        '{{ $labels.line }}: the board lost track of castings in 5 minutes ({{ $value | printf "%.0f" }} records or castings)',
        PAGE.uid,
        ACTIONS,
        Runbook(
            "The board did not report what its gate did with a part (action `untracked`), or a casting without a part number reached the "
            "gate (reason `unmatched`). Usually the cause is a reset of the board.\n\nUntracked and unmatched parts have three other "
            "possible causes. The sorter did not run for a long time, so reports of the board were lost. Or the gateway assigned no "
            "picture to a part. Or photo-eye 1 missed a casting.",
            "The records do not say where the untracked and unmatched castings are. During a reset, the gate does not move, so a casting "
            "can pass it without a verdict. The records can also count one casting twice: once as untracked, and once as unmatched.",
            "On the Line dashboard, find action and reason in the panel “What did the gate do, and why?”. The topic "
            "`castings.sorted.<line>` names the untracked parts. The log of the sorter names each reset of the board and its cause.",
            "Inspect again all castings that passed the gate from five minutes before the alert until its end. They may be in the reject "
            "chute or among the good castings.\n\nIf the board was reset, check its power supply and its USB cable. If the sorter did not "
            "run, see the alert `ProcessDown`. If the gateway assigned no picture to a part, see the alert `PicturesUnmatched`. If "
            "photo-eye 1 misses castings, clean and align it.",
        ),
    ),
    Alert(
        "VerdictsTooOld",
        "line:castline_verdict_age_seconds:p99_5m > on (plant, line) max by (plant, line) (castline_verdict_deadline_seconds)",
        "2m",
        "critical",
        "{{ $labels.line }}: one verdict in a hundred comes later than {{ $value | humanizeDuration }} after its picture, when the part "
        "is already at the gate",
        PAGE.uid,
        IN_TIME,
        Runbook(
            "More than one part in a hundred reaches the gate before its verdict.",
            "A part whose verdict comes too late reaches the gate without a verdict. The board then applies the line's safe action "
            "(divert, pass or stop) to this part.",
            "On the Pipeline dashboard, open the first panel and find the stage whose time has grown. There are six stages: from camera "
            "to Kafka, decoding, waiting for a batch, the networks, verdict to Kafka, and verdict to the board.",
            "If pictures wait, start more inspectors, at most one for each partition of the image topics: call `castline up` with a "
            "larger `--inspectors`, or in Kubernetes raise the replicas of the Deployment.\n\nIf the networks are slow, look for other "
            "programs that use the machine's processors. If Kafka is slow, open the Kafka dashboard.",
        ),
    ),
    Alert(
        "LineSilent",
        "sum by (plant, line) (rate(castline_parts_counted_total[2m])) > 0 "
        "unless on (plant, line) (sum by (plant, line) (rate(castline_verdicts_total[2m])) > 0)",
        "1m",
        "critical",
        '{{ $labels.line }}: photo-eye 1 counts {{ $value | printf "%.1f" }} parts a second, but no verdict comes',
        plant.PAGE.uid,
        plant.SILENT_LINES,
        Runbook(
            "Photo-eye 1 counts castings, but no verdict has come for two minutes.",
            "No casting of the line is judged. The board applies the line's safe action (divert, pass or stop) to all of them.",
            "On the Line dashboard, check whether pictures arrive. On the Plant dashboard, check whether an inspector is ready. On the "
            "Kafka dashboard, check whether pictures wait in the spool, the gateway's queue on disk.",
            "If no pictures arrive, check the camera's power, its lamp, the trigger cable, and the folder into which the camera writes.\n\n"
            "If pictures arrive and no inspector is ready, see the alert `NoInspector`. If pictures wait in the spool, see the alert "
            "`SpoolFilling`.",
        ),
    ),
    Alert(
        "ErrorBudgetBurnsFast",
        _burns(FAST_BURN, "1h", "5m"),
        "2m",
        "critical",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the parts in the last hour had no verdict; at this rate, the month's "
        "error budget lasts two days at most",
        plant.PAGE.uid,
        plant.BURN_RATE,
        Runbook(
            "Too many parts reach the gate without a verdict: more than 0.72 % in the last hour, and also in the last 5 minutes. The "
            "objective allows 0.05 %, measured over 30 days.",
            "The error budget for 30 days (0.05 % of the parts) is spent 14.4 times too fast: it lasts two days at most.\n\nThe line's "
            "safe action (divert, pass or stop) applies to the parts without a verdict.",
            "Find out which other alerts of this line fire, because they name the cause. This alert only says that many parts get no "
            "verdict in time.",
            "Do what the runbook says under `PartsWithoutVerdict`. Then write down the cause. The parts without a verdict count against "
            "the error budget for 30 days, and people may ask for the cause in this time.",
        ),
    ),
    Alert(
        "ErrorBudgetBurnsSlowly",
        _burns(SLOW_BURN, "6h", "30m"),
        "15m",
        "warning",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the parts in the last six hours had no verdict; at this rate, the "
        "month's error budget lasts five days at most",
        plant.PAGE.uid,
        plant.BURN_RATE,
        Runbook(
            "Too many parts reach the gate without a verdict: more than 0.3 % in the last six hours, and also in the last 30 minutes. "
            "The objective allows 0.05 %, measured over 30 days.",
            "The error budget for 30 days (0.05 % of the parts) is spent six times too fast, so it lasts five days at most. At the belt, "
            "nobody notices so few parts without a verdict.",
            "On the Line dashboard, look at the last shift. Check whether verdicts are missing with one product only, or at one time of "
            "day.",
            "Usually the inspectors are too slow when the line runs at full speed, and the age of the verdicts is close to the deadline. "
            "Start more inspectors, or lower `batch.max_wait_s`.",
        ),
    ),
)
