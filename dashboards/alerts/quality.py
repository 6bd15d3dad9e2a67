"""Alerts about the models: verdicts come in time and are not what they were."""

from __future__ import annotations

from dashboards.alerts.alert import Alert, Runbook

_MANY = "sum by (plant, line) (increase(castline_verdicts_total[1h])) > 200"

ALERTS: tuple[Alert, ...] = (
    Alert(
        "VerdictsDrift",
        "abs(line:castline_defect_verdicts:ratio_rate1h - line:castline_defect_verdicts:ratio_rate1d) > 0.1 "
        f"and on (plant, line) ({_MANY})",
        "30m",
        "warning",
        "{{ $labels.line }}: the share of defects differs by {{ $value | humanizePercentage }} from the last day's",
        "castline-quality",
        "Are there more defects than usual?",
        Runbook(
            "The last hour's share of defects is more than ten points away from the last day's.",
            "Either the castings changed (the foundry wants to know at once) or the pictures did (verdicts are wrong).",
            "Open ten of the latest pictures. Light, focus, dirt on the lens, another product on the line?",
            "Clean and adjust the camera. If the castings are really so: tell the shift. If the product is new: train a version on it.",
        ),
    ),
    Alert(
        "NetworksDisagree",
        f"line:castline_vote_disagreements:ratio_rate1h > 0.1 and on (plant, line) ({_MANY})",
        "30m",
        "warning",
        "{{ $labels.line }}: the two networks disagree on {{ $value | humanizePercentage }} of the pictures",
        "castline-quality",
        "How often do the two networks disagree?",
        Runbook(
            "AlexNet and LeNet give different labels on more than one picture in ten.",
            "Verdicts are less certain than the version's figures say: the pictures are unlike those it was trained on.",
            "Quality dashboard: did it begin at once (camera, light) or slowly (wear, new product)?",
            "As for VerdictsDrift; correct verdicts in the review, then train again.",
        ),
    ),
    Alert(
        "ReviewShareHigh",
        f"line:castline_review_verdicts:ratio_rate1h > 0.05 and on (plant, line) ({_MANY})",
        "15m",
        "warning",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the parts are left to a person's review",
        "castline-quality",
        "How much is left to people?",
        Runbook(
            "More than one part in twenty gets the verdict `review`.",
            'People cannot keep up; on lines with `on_review = "divert"` the chute fills with good castings.',
            "Reasons on the Quality dashboard: doubt (the band around the threshold), or pictures that cannot be read.",
            "Unreadable: see DeadLettersRising. Doubt: as for VerdictsDrift; a version with another band by `castline train`.",
        ),
    ),
    Alert(
        "ModelVersionsDiffer",
        "count by (plant, line) (count by (plant, line, model) (castline_model_info == 1)) > 1",
        "10m",
        "warning",
        '{{ $value | printf "%.0f" }} model versions judge {{ $labels.line }} at the same time',
        "castline-quality",
        "Which version judges?",
        Runbook(
            "Inspectors judge one line by different versions for ten minutes: a switch that did not end.",
            "The same casting may get another verdict, depending on who judges it.",
            "Quality dashboard: which process has which version?",
            "`castline models choose` it again; start those again that keep the other one, and set `model.version` alike on all machines.",
        ),
    ),
    Alert(
        "ModelRefused",
        "sum by (plant, line, reason) (increase(castline_model_refused_total[1h])) > 0",
        "0m",
        "warning",
        "{{ $labels.line }}: a chosen model version was refused: {{ $labels.reason }}",
        "castline-quality",
        "Was a chosen version refused?",
        Runbook(
            "A version was chosen for the line and does not judge: absent, damaged, tampered with, "
            "of other classes, or not the same on its golden set.",
            "None at once: the version in force goes on. The one that was wanted is not there.",
            "The inspector's log says what was expected and found; `castline models verify` looks at the version's files.",
            "Copy the version again from where it was trained, or choose one that is whole.",
        ),
    ),
)
