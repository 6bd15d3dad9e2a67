"""Alerts about boards and gates."""

from __future__ import annotations

from dashboards.alerts.alert import Alert, Runbook

ALERTS: tuple[Alert, ...] = (
    Alert(
        "GateNotAnswering",
        'max by (plant, line) (castline_gate_state{state=~"away|greeting|refused"}) > 0',
        "30s",
        "critical",
        "{{ $labels.line }}: the board at the gate does not answer its sorter",
        "castline-gates",
        "In which state is each gate?",
        Runbook(
            "For half a minute the sorter has had no working link to the line's board: unplugged, without power, or refused.",
            "The board decides alone by the line's safe action; verdicts do not reach it.",
            "`castline board status --line <line>`. The log of `sorter <line>` names port and reason; "
            "`refused` means settings and firmware do not fit.",
            "Check the USB cable and the board's lamp. After an exchange of the board: `castline board configure --line <line>`. "
            "Wrong firmware: `castline board flash`.",
        ),
    ),
    Alert(
        "GateHeldSafe",
        'max by (plant, line, state) (castline_gate_state{state=~"safe|stopped"}) > 0',
        "1m",
        "critical",
        "{{ $labels.line }}: the board holds its gate in the state `{{ $labels.state }}`",
        "castline-gates",
        "In which state is each gate?",
        Runbook(
            "The board has met a fault and treats every part by the line's safe action, or has stopped the belt.",
            "No verdict is carried out until the cause is gone.",
            "Gates dashboard, faults by code; what each code means stands in `firmware/error_codes.csv`.",
            "Remove the cause (photo-eye blocked, servo's supply, emergency stop), then `castline board clear --line <line> <code>`.",
        ),
    ),
    Alert(
        "GateFault",
        "sum by (plant, line, code) (increase(castline_gate_faults_total[10m])) > 0",
        "0m",
        "warning",
        "{{ $labels.line }}: the board reported fault {{ $labels.code }}",
        "castline-gates",
        "Which faults did the boards report?",
        Runbook(
            "The board reported a fault in the last ten minutes; it may be over already.",
            "One fault costs seconds. The same fault again and again wears the line down.",
            "The code in `firmware/error_codes.csv`: 40 host silent, 41 and 42 photo-eyes, "
            "43 encoder, 44 servo's supply, 45 emergency stop.",
            "Clean and align photo-eyes; measure the servo's supply under load; 40: is the sorter's computer overloaded?",
        ),
    ),
    Alert(
        "GateLinkNoisy",
        "sum by (plant, line) (rate(castline_gate_resends_total[10m])) "
        "/ (sum by (plant, line) (rate(castline_gate_round_trip_seconds_count[10m])) > 0) > 0.02",
        "5m",
        "warning",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the commands to the board had to be sent again",
        "castline-gates",
        "How many commands are sent again?",
        Runbook(
            "More than two in a hundred commands had no answer in time or came damaged.",
            "None yet: every command is repeated. Verdicts of parts close to the gate may be late.",
            "Gates dashboard: does the round-trip time rise too? Does it come with a motor's start?",
            "Shorter or shielded USB cable, away from the motor's; a powered hub; another port.",
        ),
    ),
    Alert(
        "PartReportsFail",
        "sum by (plant, line) (increase(castline_part_reports_failed_total[5m])) > 2",
        "0m",
        "critical",
        '{{ $labels.line }}: the gateway did not take {{ $value | printf "%.0f" }} reports of parts in 5 minutes',
        "castline-gates",
        "Do parts and pictures find each other?",
        Runbook(
            "The sorter tells the gateway each part that photo-eye 1 counts; the gateway did not take it.",
            "A camera that waits for the board takes no picture, so the part goes unjudged.",
            "Is the gateway up? `sorter.gateway_url` and the token (CASTLINE_GATEWAY__TOKEN) must be the same on both sides.",
            "Start the gateway, or set address and token right and start the sorter again.",
        ),
    ),
    Alert(
        "PicturesUnmatched",
        "(sum by (plant, line) (rate(castline_unmatched_parts_total[10m])) "
        "+ sum by (plant, line) (rate(castline_unmatched_pictures_total[10m]))) "
        "/ on (plant, line) (sum by (plant, line) (rate(castline_parts_counted_total[10m])) > 0) > 0.01",
        "5m",
        "warning",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the parts have no picture, or pictures no part",
        "castline-gates",
        "Do parts and pictures find each other?",
        Runbook(
            "What photo-eye 1 counts and what the camera sends do not go together.",
            "A part without picture gets no verdict; a picture without part is not judged.",
            "Parts without pictures: trigger or camera. Pictures without parts: photo-eye, or a camera that triggers by itself.",
            "Align photo-eye and trigger; raise `lines.camera.match_window_s` when the camera is slow; look at the camera's own log.",
        ),
    ),
)
