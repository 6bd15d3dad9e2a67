"""Gates: is the mechanics well?"""

from __future__ import annotations

from dashboards.panels import Page, Query, rising, trend
from dashboards.queries import LINE, p50, p99, rate

_TRIP = "castline_gate_round_trip_seconds"

PAGE = Page(
    "castline-gates",
    "Castline: gates",
    "Boards, photo-eyes and gates: is the mechanics well?",
    (
        trend(
            "In which state is each gate?",
            Query(f"max by (line, state) (castline_gate_state{{{LINE}}}) > 0", "{{line}} {{state}}"),
            unit="short",
            why="`running` is well. `away` and `greeting`: no link. `refused`: settings and firmware do not fit. "
            "`safe`, `stopped`: a fault.",
            alerts=("GateNotAnswering", "GateHeldSafe"),
        ),
        trend(
            "Which faults did the boards report?",
            Query(rate("castline_gate_faults_total", "line, code"), "{{line}} fault {{code}}"),
            unit="cps",
            why="By code of `firmware/error_codes.csv`: 41 and 42 photo-eyes, 44 servo's supply, 45 emergency stop.",
            steps=rising(0.0001, 0.01),
            alerts=("GateFault",),
        ),
        trend(
            "How quickly does the board answer?",
            Query(p99(_TRIP), "{{line}} 99 %"),
            Query(p50(_TRIP), "{{line}} half"),
            unit="s",
            why="From a command to its answer over the wire. A rise before resends begin is a cable going bad.",
            steps=rising(0.05, 0.2),
            alerts=("GateLinkNoisy",),
        ),
        trend(
            "How many commands are sent again?",
            Query(
                rate("castline_gate_resends_total") + f" / (sum by (line) (rate({_TRIP}_count{{{LINE}}}[$__rate_interval])) > 0)",
                "{{line}}",
            ),
            unit="percentunit",
            why="Each is repeated until it is answered; many mean a bad cable or a busy board.",
            steps=rising(0.01, 0.02),
            alerts=("GateLinkNoisy",),
        ),
        trend(
            "How soon does the board know the verdict?",
            Query(p99("castline_verdict_tell_seconds"), "{{line}} 99 %"),
            unit="s",
            why="From the decision to the board's acknowledgement.",
            steps=rising(0.2, 0.5),
        ),
        trend(
            "How often does each gate move?",
            Query(rate("castline_gate_moves_total"), "{{line}} moves"),
            Query(rate("castline_parts_sorted_total", "line", 'action="diverted"'), "{{line}} parts diverted"),
            unit="cps",
            why="Wear. Neighbouring bad parts share a movement, so moves are at most the parts diverted.",
        ),
        trend(
            "Do parts and pictures find each other?",
            Query(rate("castline_unmatched_parts_total"), "{{line}} parts without picture"),
            Query(rate("castline_unmatched_pictures_total"), "{{line}} pictures without part"),
            Query(rate("castline_part_reports_failed_total"), "{{line}} reports that the gateway did not take"),
            unit="cps",
            why="A part without a picture goes unjudged. Photo-eye, trigger and camera must agree.",
            steps=rising(0.001, 0.02),
            alerts=("PicturesUnmatched", "PartReportsFail"),
        ),
        trend(
            "Do parts that were counted come to the gate?",
            Query(rate("castline_parts_counted_total"), "{{line}} counted"),
            Query(rate("castline_parts_sorted_total"), "{{line}} sorted"),
            Query(rate("castline_parts_sorted_total", "line, reason", 'action="untracked"'), "{{line}} untracked: {{reason}}"),
            unit="cps",
            why="What is counted and never sorted fell off, was taken off, or photo-eye 2 is blind.",
        ),
    ),
)
