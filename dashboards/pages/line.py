"""Line: a shift on one line."""

from __future__ import annotations

from dashboards.panels import PLAIN, Page, Query, falling, number, rising, trend
from dashboards.queries import LINE, grown, p50, p99, rate

_AGE = "castline_verdict_age_seconds"
_SORTED = "castline_parts_sorted_total"
_UNSEEN = 'reason=~"no-verdict|late-verdict|fault"'

PAGE = Page(
    "castline-line",
    "Castline: line",
    "A shift on one line: what came, what was found, what was done about it.",
    (
        number(
            "How many parts came?",
            grown("castline_parts_counted_total"),
            unit="short",
            why="Counted by photo-eye 1 in the time shown.",
            steps=PLAIN,
        ),
        number(
            "What did the verdicts say?",
            Query(grown("castline_verdicts_total", "label"), "{{label}}"),
            unit="short",
            why="ok, defect and review in the time shown.",
            steps=PLAIN,
        ),
        number(
            "What did the gate do?",
            Query(grown(_SORTED, "action"), "{{action}}"),
            unit="short",
            why="As the board reported it.",
            steps=PLAIN,
        ),
        number(
            "Which share had its verdict in time?",
            f"1 - line:castline_unseen_parts:ratio_rate1h{{{LINE}}}",
            unit="percentunit",
            why="Of the parts of the last hour; the promise is 99.95 %.",
            steps=falling(0.99, 0.9995),
        ),
        trend(
            "Do verdicts come before the part is at the gate?",
            Query(p99(_AGE), "{{line}} 99 %"),
            Query(p50(_AGE), "{{line}} half"),
            Query(f"max by (line) (castline_verdict_deadline_seconds{{{LINE}}})", "{{line}} deadline"),
            unit="s",
            why="Past the deadline the part is treated as set for the line, unjudged.",
            alerts=("VerdictsTooOld",),
        ),
        trend(
            "How many parts reached the gate unjudged?",
            Query(rate(_SORTED, "line, action, reason", _UNSEEN), "{{line}} {{action}}: {{reason}}"),
            Query(rate("castline_verdicts_late_total"), "{{line}} verdict too late"),
            Query(rate("castline_verdicts_overdue_total"), "{{line}} decided past the deadline"),
            unit="cps",
            why="Diverted ones cost good castings, passed ones may be bad castings among the good.",
            steps=rising(0.0001, 0.01),
            alerts=("PartsPassUnseen", "PartsWithoutVerdict"),
        ),
        trend(
            "What comes out, label by label?",
            Query(rate("castline_verdicts_total", "line, label"), "{{line}} {{label}}"),
            unit="cps",
            why="A change of the mixture is a change of castings or of pictures.",
            alerts=("VerdictsDrift",),
        ),
        trend(
            "What did the gate do, and why?",
            Query(rate(_SORTED, "line, action, reason"), "{{line}} {{action}}: {{reason}}"),
            unit="cps",
            why="Everything but `verdict` is a part that nobody's judgement decided.",
        ),
        trend(
            "Is the line fed evenly?",
            Query(rate("castline_parts_counted_total"), "{{line}} parts"),
            Query(rate("castline_pictures_received_total"), "{{line}} pictures"),
            Query(rate("castline_verdicts_total"), "{{line}} verdicts"),
            unit="cps",
            why="Three lines on top of each other: each part has one picture and one verdict.",
        ),
        trend(
            "Does the camera's picture of the casting get through?",
            Query(rate("castline_picture_bytes_total") + " / " + rate("castline_pictures_sent_total"), "{{line}}"),
            unit="bytes",
            why="Size of a picture. It falls when the lens is covered or the lamp is out, long before the models notice.",
        ),
    ),
    span="now-8h",
)
