"""Alerts about what the foundry pays for: parts that leave the belt unjudged, and the promise made about them."""

from __future__ import annotations

from dashboards.alerts.alert import Alert, Runbook
from dashboards.alerts.recording import BUDGET

_UNSEEN = "line:castline_unseen_parts:ratio_rate"
# Of the 30 days' budget: 14.4 times its pace spends 2 % in an hour, 6 times spends 5 % in six hours.
FAST, SLOW = 14.4, 6.0


def _burns(pace: float, long: str, short: str) -> str:
    """Both windows: the long one says that it matters, the short one that it still goes on."""
    limit = round(pace * BUDGET, 6)
    return f"{_UNSEEN}{long} > {limit} and {_UNSEEN}{short} > {limit}"


ALERTS: tuple[Alert, ...] = (
    Alert(
        "PartsPassUnseen",
        'sum by (plant, line) (increase(castline_parts_sorted_total{action="passed",reason!="verdict"}[5m])) > 0',
        "0m",
        "critical",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} parts stayed on the belt in 5 minutes without a verdict in force',
        "castline-line",
        "How many parts reached the gate unjudged?",
        Runbook(
            "Parts passed the gate and no verdict decided it: the line's safe action is `pass`, "
            "or the gate could not move between two parts.",
            "Bad castings may be among the good ones. Each part is named in `castings.sorted.<line>` with its reason.",
            "The panel's reason: `no-verdict` and `late-verdict` lead to the Pipeline dashboard, `fault` to Gates.",
            "Hold back the castings of that time. Remove the cause (see the alert that fires beside this one). "
            "Set `lines.gate.safe` to `divert` where a bad part costs more than a good one.",
        ),
    ),
    Alert(
        "PartsWithoutVerdict",
        'sum by (plant, line) (increase(castline_parts_sorted_total{action!="passed",reason=~"no-verdict|late-verdict"}[5m])) > 0',
        "0m",
        "warning",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} parts reached the gate without a verdict in 5 minutes and were treated as unsafe',
        "castline-line",
        "How many parts reached the gate unjudged?",
        Runbook(
            "Parts were diverted or the belt was stopped because no verdict had come in time.",
            "Good castings lie in the reject chute and have to be looked at again; the error budget is spent.",
            "Line dashboard: is the verdicts' age near the deadline, or do pictures not come at all?",
            "Late verdicts: start another inspector, see LagGrowing. No pictures: see LineSilent and PicturesUnmatched. "
            "`castline trace <part>` tells one part's whole story.",
        ),
    ),
    Alert(
        "VerdictsTooOld",
        "line:castline_verdict_age_seconds:p99_5m > on (plant, line) max by (plant, line) (castline_verdict_deadline_seconds)",
        "2m",
        "critical",
        "{{ $labels.line }}: one verdict in a hundred comes {{ $value | humanizeDuration }} after its picture, "
        "when the part is at the gate",
        "castline-line",
        "Do verdicts come before the part is at the gate?",
        Runbook(
            "The 99th percentile of the way from picture to verdict is longer than the part's way from camera to gate.",
            "Those parts are treated as set for the line, `divert` by default: unjudged.",
            "Pipeline dashboard, from left to right: which stage's time has grown? Kafka's confirmation, waiting, networks, delivery?",
            "Waiting: more inspectors (`castline up --inspectors`, or the Deployment's replicas), at most one per image partition. "
            "Networks: is something else computing on the machine? Kafka: see the Kafka dashboard.",
        ),
    ),
    Alert(
        "LineSilent",
        "sum by (plant, line) (rate(castline_parts_counted_total[2m])) > 0 "
        "unless on (plant, line) (sum by (plant, line) (rate(castline_verdicts_total[2m])) > 0)",
        "1m",
        "critical",
        '{{ $labels.line }}: photo-eye 1 counts {{ $value | printf "%.1f" }} parts a second and no verdict comes',
        "castline-plant",
        "Does every line that runs get its verdicts?",
        Runbook(
            "Castings are on the belt, and for two minutes not one of them was judged.",
            "The whole line goes by the safe action: all parts in the reject chute, or all unjudged on the belt.",
            "Plant dashboard: do pictures arrive (gateway), is an inspector ready, is Kafka there?",
            "No pictures: camera's power, lamp, trigger cable, the folder it writes to. Pictures and no inspector: see NoInspector. "
            "Pictures wait on the gateway's disk: see SpoolFilling.",
        ),
    ),
    Alert(
        "ErrorBudgetBurnsFast",
        _burns(FAST, "1h", "5m"),
        "2m",
        "critical",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the parts of the last hour had no verdict; "
        "a month's budget is gone in two days",
        "castline-plant",
        "How fast is the error budget spent?",
        Runbook(
            "Parts miss their verdict at more than 14.4 times the pace that 99.95 % over 30 days allows, over an hour and still now.",
            "At this pace a month's budget lasts two days.",
            "Which other alert of the line fires? This one says how bad it is, not why.",
            "As for PartsWithoutVerdict. Afterwards write down what happened: the budget does not come back within 30 days.",
        ),
    ),
    Alert(
        "ErrorBudgetBurnsSlowly",
        _burns(SLOW, "6h", "30m"),
        "15m",
        "warning",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the parts of the last six hours had no verdict; "
        "a month's budget is gone in five days",
        "castline-plant",
        "How fast is the error budget spent?",
        Runbook(
            "Parts miss their verdict at more than 6 times the pace that the promise allows, over six hours and still now.",
            "Nobody sees it on the belt; at the end of the month the promise is broken.",
            "Line dashboard over the last shift: does it come with a product, an hour, a machine?",
            "Usually too little reserve: verdict age close to the deadline at full speed. More inspectors, or `batch.max_wait_s` lower.",
        ),
    ),
)
