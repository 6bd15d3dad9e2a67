"""The dashboard "Castline: line": one line over a shift, and the alerts about parts that reach the gate without a verdict."""

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

PAGE = DashboardPage(
    "castline-line",
    "Castline: line",
    "One line over a shift: which parts came, what was found, and what the gate did.",
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
            description="Number of parts for each action of the gate, as the board reported it, in the time range shown.",
            thresholds=NO_THRESHOLDS,
        ),
        stat_panel(
            "Which share of the parts had a verdict in time?",
            f"1 - line:castline_unseen_parts:ratio_rate1h{{{LINE}}}",
            unit="percentunit",
            description="Share of the last hour's parts that had their verdict in time. The objective is 99.95 %.",
            thresholds=falling(0.99, 0.9995),
        ),
        timeseries_panel(
            IN_TIME,
            Query(p99(_AGE), "{{line}} 99 %"),
            Query(p50(_AGE), "{{line}} median"),
            Query(f"max by (line) (castline_verdict_deadline_seconds{{{LINE}}})", "{{line}} deadline"),
            unit="s",
            description="Time from the picture to its verdict. When the deadline passes, the part is treated by the line's safe action, "
            "without a verdict.",
            alerts=("VerdictsTooOld",),
        ),
        timeseries_panel(
            UNJUDGED,
            Query(rate(_SORTED, "line, action, reason", _UNSEEN), "{{line}} {{action}}: {{reason}}"),
            Query(rate("castline_verdicts_late_total"), "{{line}} verdict too late"),
            Query(rate("castline_verdicts_overdue_total"), "{{line}} decided past the deadline"),
            unit="cps",
            description="Diverted parts cost good castings. Passed parts may be bad castings among the good ones.",
            thresholds=rising(0.0001, 0.01),
            alerts=("PartsPassUnseen", "PartsWithoutVerdict"),
        ),
        timeseries_panel(
            "How many verdicts of each label come?",
            Query(rate("castline_verdicts_total", "line, label"), "{{line}} {{label}}"),
            unit="cps",
            description="If the mixture of labels changes, either the castings or the pictures have changed.",
            alerts=("VerdictsDrift",),
        ),
        timeseries_panel(
            "What did the gate do, and why?",
            Query(rate(_SORTED, "line, action, reason"), "{{line}} {{action}}: {{reason}}"),
            unit="cps",
            description="With every reason other than `verdict`, the board acted without a verdict.",
        ),
        timeseries_panel(
            "Does each part have one picture and one verdict?",
            Query(rate("castline_parts_counted_total"), "{{line}} parts"),
            Query(rate("castline_pictures_received_total"), "{{line}} pictures"),
            Query(rate("castline_verdicts_total"), "{{line}} verdicts"),
            unit="cps",
            description="When all is well, the numbers of parts, pictures and verdicts are the same.",
        ),
        timeseries_panel(
            "How large are the camera's pictures?",
            Query(rate("castline_picture_bytes_total") + " / " + rate("castline_pictures_sent_total"), "{{line}}"),
            unit="bytes",
            description="Mean size of an encoded picture. The size falls when the lens is covered or the lamp is out, long before the "
            "models show it.",
        ),
    ),
    time_from="now-8h",
)

_UNSEEN_SHARE = "line:castline_unseen_parts:ratio_rate"
# 14.4 times the allowed pace spends 2 % of the 30 days' budget in an hour. 6 times the pace spends 5 % in six hours.
FAST_BURN, SLOW_BURN = 14.4, 6.0


def _burns(burn_rate: float, long_window: str, short_window: str) -> str:
    """Returns an alert expression that holds while parts without a verdict spend the error budget at `burn_rate` in two windows.

    The long window shows that the loss matters, the short one that it still goes on.
    """
    limit = round(burn_rate * BUDGET, 6)
    return f"{_UNSEEN_SHARE}{long_window} > {limit} and {_UNSEEN_SHARE}{short_window} > {limit}"


ALERTS: tuple[Alert, ...] = (
    Alert(
        "PartsPassUnseen",
        'sum by (plant, line) (increase(castline_parts_sorted_total{action="passed",reason!="verdict"}[5m])) > 0',
        "0m",
        "critical",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} parts stayed on the belt in 5 minutes although no verdict said so',
        PAGE.uid,
        UNJUDGED,
        Runbook(
            "Parts passed the gate without a verdict. Either the line's safe action is `pass`, or the gate could not move between two "
            "parts.",
            "Bad castings may be among the good ones. The topic `castings.sorted.<line>` names each of these parts with its reason.",
            "Look at the reason in the panel. For `no-verdict` and `late-verdict` open the Pipeline dashboard, for `fault` the Gates "
            "dashboard.",
            "Hold back the castings of that time. Remove the cause; another alert usually names it. Set `lines.gate.safe` to `divert` if "
            "a bad part costs more than a good one.",
        ),
    ),
    Alert(
        "PartsWithoutVerdict",
        'sum by (plant, line) (increase(castline_parts_sorted_total{action!="passed",reason=~"no-verdict|late-verdict"}[5m])) > 0',
        "0m",
        "warning",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} parts reached the gate without a verdict in 5 minutes and did not pass',
        PAGE.uid,
        UNJUDGED,
        Runbook(
            "Parts were diverted, or the belt was stopped, because no verdict had come in time.",
            "Good castings lie in the reject chute and have to be inspected again. The error budget is being spent.",
            "Look on the Line dashboard whether the verdicts' age is near the deadline, or whether no pictures come.",
            "If verdicts are late, start another inspector; see LagGrowing. If no pictures come, see LineSilent and PicturesUnmatched. "
            "`castline trace <part>` shows what happened to one part.",
        ),
    ),
    Alert(
        "VerdictsTooOld",
        "line:castline_verdict_age_seconds:p99_5m > on (plant, line) max by (plant, line) (castline_verdict_deadline_seconds)",
        "2m",
        "critical",
        "{{ $labels.line }}: one verdict in a hundred comes {{ $value | humanizeDuration }} after its picture, "
        "when the part is already at the gate",
        PAGE.uid,
        IN_TIME,
        Runbook(
            "The slowest hundredth of the verdicts takes longer than a part takes from the camera to the gate.",
            "These parts are treated by the line's safe action, `divert` by default, although nobody judged them.",
            "Read the Pipeline dashboard from left to right and find the stage whose time has grown: confirmation by Kafka, waiting, "
            "networks or delivery.",
            "If pictures wait, start more inspectors (`castline up --inspectors`, or the replicas of the Deployment), at most one for "
            "each image partition. If the networks are slow, look for other programs on the machine. If Kafka is slow, open the Kafka "
            "dashboard.",
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
            "Castings are on the belt, and none of them was judged for two minutes.",
            "All parts of the line are treated by its safe action: all go to the reject chute, or all stay on the belt unjudged.",
            "Look on the Plant dashboard whether pictures arrive at the gateway, whether an inspector is ready, and whether Kafka answers.",
            "If no pictures arrive, check the camera's power, lamp, trigger cable, and the folder it writes to. If pictures arrive and no "
            "inspector is ready, see NoInspector. If pictures wait on the gateway's disk, see SpoolFilling.",
        ),
    ),
    Alert(
        "ErrorBudgetBurnsFast",
        _burns(FAST_BURN, "1h", "5m"),
        "2m",
        "critical",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the parts of the last hour had no verdict; "
        "at this pace a month's error budget lasts two days",
        plant.PAGE.uid,
        plant.BURN_RATE,
        Runbook(
            "For an hour, and still now, parts without a verdict are more than 14.4 times as frequent as the objective of 99.95 % over 30 "
            "days allows.",
            "These parts are treated by the line's safe action. At this pace a month's error budget lasts two days.",
            "Look which other alert of the line fires. This alert tells how bad the loss is, the other one tells the cause.",
            "Do what PartsWithoutVerdict says. Afterwards write down what happened, because the budget does not come back within 30 days.",
        ),
    ),
    Alert(
        "ErrorBudgetBurnsSlowly",
        _burns(SLOW_BURN, "6h", "30m"),
        "15m",
        "warning",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the parts of the last six hours had no verdict; "
        "at this pace a month's error budget lasts five days",
        plant.PAGE.uid,
        plant.BURN_RATE,
        Runbook(
            "For six hours, and still now, parts without a verdict are more than 6 times as frequent as the objective allows.",
            "Few parts are affected and nobody sees the loss on the belt, but at this pace the month's objective is missed.",
            "Look at the Line dashboard over the last shift. Does the loss come with a product, a time of day or a machine?",
            "Usually the inspectors have too little reserve, and the verdicts' age is close to the deadline at full speed. Start more "
            "inspectors, or lower `batch.max_wait_s`.",
        ),
    ),
)
