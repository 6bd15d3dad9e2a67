"""The dashboard "Castline: gates": boards, photo-eyes and gates, and the alerts about them."""

from __future__ import annotations

from dashboards.panels import DashboardPage, Query, rising, timeseries_panel
from dashboards.promql import LINE, p50, p99, rate
from dashboards.rules import Alert, Runbook

_ROUND_TRIP = "castline_gate_round_trip_seconds"

STATE = "In which state is each gate?"
FAULTS = "Which faults did the boards report?"
RESENDS = "How many commands have to be sent again?"
UNMATCHED = "Does every part have a picture, and every picture a part?"

PAGE = DashboardPage(
    "castline-gates",
    "Castline: gates",
    "Do boards, photo-eyes and gates work?",
    (
        timeseries_panel(
            STATE,
            Query(f"max by (line, state) (castline_gate_state{{{LINE}}}) > 0", "{{line}} {{state}}"),
            unit="short",
            description="`running` is the normal state. `away` and `greeting` mean that the sorter has no link to the board. `refused` "
            "means that the board's firmware does not fit the settings. `safe` and `stopped` mean that the board found a fault.",
            alerts=("GateNotAnswering", "GateHeldSafe"),
        ),
        timeseries_panel(
            FAULTS,
            Query(rate("castline_gate_faults_total", "line, code"), "{{line}} fault {{code}}"),
            unit="cps",
            description="Faults by their code in `firmware/error_codes.csv`: 41 and 42 are photo-eyes, 44 is the servo's supply, 45 the "
            "emergency stop.",
            thresholds=rising(0.0001, 0.01),
            alerts=("GateFault",),
        ),
        timeseries_panel(
            "How quickly does each board answer?",
            Query(p99(_ROUND_TRIP), "{{line}} 99 %"),
            Query(p50(_ROUND_TRIP), "{{line}} median"),
            unit="s",
            description="Time from a command to the board's answer over the serial line. A rising time announces a failing cable, before "
            "commands have to be sent again.",
            thresholds=rising(0.05, 0.2),
            alerts=("GateLinkNoisy",),
        ),
        timeseries_panel(
            RESENDS,
            Query(
                rate("castline_gate_resends_total") + f" / (sum by (line) (rate({_ROUND_TRIP}_count{{{LINE}}}[$__rate_interval])) > 0)",
                "{{line}}",
            ),
            unit="percentunit",
            description="The sorter repeats each command until the board answers. Many repeats mean a bad cable or a busy board.",
            thresholds=rising(0.01, 0.02),
            alerts=("GateLinkNoisy",),
        ),
        timeseries_panel(
            "How soon does the board have the verdict?",
            Query(p99("castline_verdict_tell_seconds"), "{{line}} 99 %"),
            unit="s",
            description="Time from the decision of the networks to the board's acknowledgement.",
            thresholds=rising(0.2, 0.5),
        ),
        timeseries_panel(
            "How often does each gate move?",
            Query(rate("castline_gate_moves_total"), "{{line}} moves"),
            Query(rate("castline_parts_sorted_total", "line", 'action="diverted"'), "{{line}} parts diverted"),
            unit="cps",
            description="Moves wear the servo. Bad parts that follow each other share one move, so there are at most as many moves as "
            "diverted parts.",
        ),
        timeseries_panel(
            UNMATCHED,
            Query(rate("castline_unmatched_parts_total"), "{{line}} parts without picture"),
            Query(rate("castline_unmatched_pictures_total"), "{{line}} pictures without part"),
            Query(rate("castline_part_reports_failed_total"), "{{line}} part reports not accepted by the gateway"),
            unit="cps",
            description="A part without a picture is not judged. Such parts mean that photo-eye, trigger and camera do not work together.",
            thresholds=rising(0.001, 0.02),
            alerts=("PicturesUnmatched", "PartReportsFail"),
        ),
        timeseries_panel(
            "Do all counted parts reach the gate?",
            Query(rate("castline_parts_counted_total"), "{{line}} counted"),
            Query(rate("castline_parts_sorted_total"), "{{line}} sorted"),
            Query(rate("castline_parts_sorted_total", "line, reason", 'action="untracked"'), "{{line}} untracked: {{reason}}"),
            unit="cps",
            description="A part that is counted and never sorted fell off the belt or was taken off, or photo-eye 2 does not see it.",
        ),
    ),
)

ALERTS: tuple[Alert, ...] = (
    Alert(
        "GateNotAnswering",
        'max by (plant, line) (castline_gate_state{state=~"away|greeting|refused"}) > 0',
        "30s",
        "critical",
        "{{ $labels.line }}: the board at the gate does not answer its sorter",
        PAGE.uid,
        STATE,
        Runbook(
            "For half a minute the sorter has had no working link to the line's board. The board is unplugged or without power, or its "
            "firmware does not fit the settings.",
            "No verdict reaches the board, so it treats every part by the line's safe action.",
            "Run `castline board status --line <line>`. The log of `sorter <line>` names the port and the reason. The state `refused` "
            "means that settings and firmware do not fit.",
            "Check the USB cable and the lamp on the board. After the board was exchanged, run `castline board configure --line <line>`. "
            "If the firmware is wrong, run `castline board flash`.",
        ),
    ),
    Alert(
        "GateHeldSafe",
        'max by (plant, line, state) (castline_gate_state{state=~"safe|stopped"}) > 0',
        "1m",
        "critical",
        "{{ $labels.line }}: the board found a fault and holds its gate in the state `{{ $labels.state }}`",
        PAGE.uid,
        STATE,
        Runbook(
            "The board has found a fault. It treats every part by the line's safe action, or has stopped the belt.",
            "No verdict is carried out until the cause is removed.",
            "Open the panel with the faults on the Gates dashboard. `firmware/error_codes.csv` explains each code.",
            "Remove the cause, for instance a blocked photo-eye, the servo's supply or the emergency stop. Then run "
            "`castline board clear --line <line> <code>`.",
        ),
    ),
    Alert(
        "GateFault",
        "sum by (plant, line, code) (increase(castline_gate_faults_total[10m])) > 0",
        "0m",
        "warning",
        "{{ $labels.line }}: the board reported fault {{ $labels.code }}",
        PAGE.uid,
        FAULTS,
        Runbook(
            "The board reported a fault in the last ten minutes. The fault may be over already.",
            "While a fault lasts, parts are treated by the line's safe action. One fault costs seconds, but a fault that comes back again "
            "and again costs many parts.",
            "Look up the code in `firmware/error_codes.csv`: 40 means that the sorter was silent, 41 and 42 are photo-eyes, 43 is the "
            "encoder, 44 the servo's supply, 45 the emergency stop.",
            "Clean and align the photo-eyes, or measure the servo's supply under load. For code 40, check whether the sorter's computer is "
            "overloaded.",
        ),
    ),
    Alert(
        "GateLinkNoisy",
        "sum by (plant, line) (rate(castline_gate_resends_total[10m])) "
        "/ (sum by (plant, line) (rate(castline_gate_round_trip_seconds_count[10m])) > 0) > 0.02",
        "5m",
        "warning",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the commands to the board had to be sent again",
        PAGE.uid,
        RESENDS,
        Runbook(
            "More than two in a hundred commands to the board had no answer in time or arrived damaged.",
            "No part is harmed yet, because the sorter repeats every command. Verdicts of parts close to the gate may come too late.",
            "Look on the Gates dashboard whether the board also answers more slowly, and whether the trouble begins when a motor starts.",
            "Use a shorter or shielded USB cable and lay it away from the motor's cable. Otherwise try a powered hub or another port.",
        ),
    ),
    Alert(
        "PartReportsFail",
        "sum by (plant, line) (increase(castline_part_reports_failed_total[5m])) > 2",
        "0m",
        "critical",
        '{{ $labels.line }}: the gateway did not accept {{ $value | printf "%.0f" }} part reports in 5 minutes',
        PAGE.uid,
        UNMATCHED,
        Runbook(
            "The sorter reports each part that photo-eye 1 counts to the gateway, and the gateway did not accept these reports.",
            "A camera that waits for the report takes no picture, so these parts are not judged.",
            "Check that the gateway runs. The setting `sorter.gateway_url` must name it, and the token (CASTLINE_GATEWAY__TOKEN) must be "
            "the same for sorter and gateway.",
            "Start the gateway, or correct address and token and restart the sorter.",
        ),
    ),
    Alert(
        "PicturesUnmatched",
        "(sum by (plant, line) (rate(castline_unmatched_parts_total[10m])) "
        "+ sum by (plant, line) (rate(castline_unmatched_pictures_total[10m]))) "
        "/ on (plant, line) (sum by (plant, line) (rate(castline_parts_counted_total[10m])) > 0) > 0.01",
        "5m",
        "warning",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the parts have no picture, or their pictures belong to no part",
        PAGE.uid,
        UNMATCHED,
        Runbook(
            "The parts that photo-eye 1 counts and the pictures that the camera sends do not match.",
            "A part without a picture gets no verdict, and a picture without a part gives none.",
            "If parts have no picture, look at the trigger and the camera. If pictures have no part, look at photo-eye 1, or at a camera "
            "that triggers itself.",
            "Align photo-eye and trigger. If the camera is slow, raise `lines.camera.match_window_s`. Read the camera's own log.",
        ),
    ),
)
