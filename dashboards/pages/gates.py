"""The dashboard "Castline: gates" shows boards, photo-eyes and gates. This module also defines the alerts about them."""

from __future__ import annotations

from dashboards.panels import DashboardPage, Query, rising, timeseries_panel
from dashboards.promql import LINE, p50, p99, rate, select
from dashboards.rules import Alert, Runbook

_ROUND_TRIP = "castline_gate_round_trip_seconds"

STATE = "In which state is each gate?"
CONFIRMED = "Were the diverted parts seen in the reject chute?"
FAULTS = "Which faults did the boards report?"
RESENDS = "How many commands have to be sent again?"
UNMATCHED = "Does every part have a picture, and every picture a part?"
DISTANCE = "How much time lies between a picture and its part?"
LATENCY = "Which latency do the cameras have, and is it still right?"
CLOCKS = "Which cameras have a clock that cannot be right?"

PAGE = DashboardPage(
    "castline-gates",
    "Castline: gates",
    "Do the boards, the photo-eyes and the gates work?",
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
            description="Faults that the boards reported, by code. The codes 41 and 42 mean a problem with a photo-eye, 44 means that the "
            "servo has no power, and 45 means an emergency stop. `firmware/error_codes.csv` explains every code.",
            thresholds=rising(0.0001, 0.01),
            alerts=("GateFault",),
        ),
        timeseries_panel(
            CONFIRMED,
            Query(rate("castline_moves_confirmed_total", "line, confirmed"), "{{line}} {{confirmed}}"),
            Query(rate("castline_button_acknowledgements_total"), "{{line}} faults ended by the push-button"),
            unit="cps",
            description="Diverted parts. The curve `yes` counts the parts that the eye in the reject chute saw. The curve `no` counts the "
            "parts that the eye did not see. The curve `not-equipped` counts the parts at gates without this eye.",
            alerts=("MoveUnconfirmed",),
        ),
        timeseries_panel(
            "How quickly does each board answer?",
            Query(p99(_ROUND_TRIP), "{{line}} 99 %"),
            Query(p50(_ROUND_TRIP), "{{line}} median"),
            unit="s",
            description="Time from a command to the board's answer over the serial line. If the time rises, the cable may be failing.",
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
            description="Share of the commands that the sorter had to send again, because no answer came. Many repeats mean a bad cable "
            "or a busy board.",
            thresholds=rising(0.01, 0.02),
            alerts=("GateLinkNoisy",),
        ),
        timeseries_panel(
            "How soon does the board have the verdict?",
            Query(p99("castline_verdict_tell_seconds"), "{{line}} 99 %"),
            Query(p99("castline_verdict_step_seconds", "line, step"), "{{line}} step {{step}}, 99 %"),
            unit="s",
            description="Time from the decision of the networks until the board has acknowledged the verdict.",
            thresholds=rising(0.2, 0.5),
        ),
        timeseries_panel(
            "How often does each gate move?",
            Query(rate("castline_gate_moves_total"), "{{line}} moves"),
            Query(rate("castline_parts_sorted_total", "line", 'action="diverted"'), "{{line}} parts diverted"),
            unit="cps",
            description="Movements of the gate and diverted parts. Each movement wears the servo. The gate moves once for several bad "
            "parts that follow each other closely, so there are never more movements than diverted parts.",
        ),
        timeseries_panel(
            UNMATCHED,
            Query(rate("castline_unmatched_parts_total"), "{{line}} parts without picture"),
            Query(rate("castline_unmatched_pictures_total"), "{{line}} pictures without part"),
            Query(rate("castline_part_reports_failed_total"), "{{line}} part reports not accepted by the gateway"),
            Query(f"sum by (line) ({select('castline_part_reports_waiting')})", "{{line}} part reports that wait for the gateway"),
            unit="cps",
            description="A part without a picture is not judged. If such parts appear, check the photo-eye, the trigger and the camera of "
            "the line.",
            thresholds=rising(0.001, 0.02),
            alerts=("PicturesUnmatched", "PartReportsFail"),
        ),
        timeseries_panel(
            DISTANCE,
            Query(p50("castline_picture_distance_share"), "{{line}} median, share of the spacing"),
            Query(p99("castline_picture_distance_share"), "{{line}} 99 %, share of the spacing"),
            Query(f"max by (line) ({select('castline_camera_offset_share')})", "{{line}} median of the last pictures, with its sign"),
            Query(p99("castline_picture_distance_seconds"), "{{line}} 99 %, in seconds"),
            unit="short",
            description="The gateway subtracts the latency of the camera from the time of a picture. It compares the result with the "
            "time at which the nearest part was counted. The curves show the difference of the two times. The gateway assigns the picture "
            "to the part if the difference is below a quarter of the time between two parts. If the median moves away from 0, the real "
            "latency has changed.",
            thresholds=rising(0.125, 0.25),
            alerts=("CameraLatencyDrifts",),
        ),
        timeseries_panel(
            LATENCY,
            Query(f"max by (line) ({select('castline_camera_latency_seconds')})", "{{line}} latency in use"),
            Query(f"max by (line) ({select('castline_camera_offset_seconds')})", "{{line}} median distance of the last pictures"),
            Query(f"min by (line) ({select('castline_camera_latency_known')}) == 0", "{{line}} latency unknown"),
            Query(f"max by (line) ({select('castline_camera_latency_suspended')}) > 0", "{{line}} latency no longer right"),
            unit="s",
            description="The latency is the time from the count of a part at photo-eye 1 to the time of its picture. While the latency "
            "of a camera is unknown or wrong, the gateway assigns no picture of this camera to a part.",
            alerts=("CameraLatencyUnknown", "CameraLatencyWrong"),
        ),
        timeseries_panel(
            CLOCKS,
            Query(rate("castline_picture_times_replaced_total"), "{{line}} times replaced"),
            unit="cps",
            description="Pictures whose time is before 2020 or more than two days in the future. The gateway uses their time of arrival "
            "instead, and does not assign them to the parts that a board has counted.",
            thresholds=rising(0.0001, 0.01),
            alerts=("CameraClockWrong",),
        ),
        timeseries_panel(
            "Do all counted parts reach the gate?",
            Query(rate("castline_parts_counted_total"), "{{line}} counted"),
            Query(rate("castline_parts_sorted_total"), "{{line}} sorted"),
            Query(rate("castline_parts_sorted_total", "line, reason", 'action="untracked"'), "{{line}} untracked: {{reason}}"),
            unit="cps",
            description="If a part is counted but not sorted, the part fell off the belt, somebody took it off, or photo-eye 2 does not "
            "see it.",
        ),
    ),
)

ALERTS: tuple[Alert, ...] = (
    Alert(
        "GateNotAnswering",
        'max by (plant, line) (castline_gate_state{state=~"away|greeting|refused"}) > 0',
        "30s",
        "critical",
        "{{ $labels.line }}: the sorter has no working link to the board at the gate",
        PAGE.uid,
        STATE,
        Runbook(
            "For half a minute, the sorter could not send verdicts to the line's board. Either no data comes from the board, because its "
            "cable or its power is missing, or the board's firmware does not fit the line's settings.",
            "No verdict reaches the board, so the board applies the line's safe action (divert, pass or stop) to every part.",
            "Read the log of the process `sorter <line>`, which names the serial port and the reason. For details, stop the sorter and "
            "run `castline board status --line <line>`. The sorter must be stopped, because only one program can use the port.",
            "Check the USB cable, and check that the board has power. Then start the sorter again.\n\n"
            "If the board was replaced, stop the sorter and run `castline board configure --line <line>`.\n\n"
            "If the state of the gate is `refused`, the firmware does not fit the settings. Stop the sorter and run `castline board "
            "flash`.",
        ),
    ),
    Alert(
        "GateHeldSafe",
        'max by (plant, line, state) (castline_gate_state{state=~"safe|stopped"}) > 0',
        "1m",
        "critical",
        "{{ $labels.line }}: the board found a fault and is in the state `{{ $labels.state }}`",
        PAGE.uid,
        STATE,
        Runbook(
            "The board has found a fault. If the gate's state is `safe`, the board applies the line's safe action (divert, pass or stop) "
            "to every part. If the state is `stopped`, the board has stopped the belt.",
            "If the gate's state is `safe`, the gate follows no verdict until the fault ends. If the state is `stopped`, the line "
            "produces nothing.",
            "On the Gates dashboard, open the panel “Which faults did the boards report?”. `firmware/error_codes.csv` explains each code.",
            "Remove the cause, for instance a blocked photo-eye, a servo without power, or a pressed emergency stop. A restart of the "
            "sorter or of the board does not end the fault.\n\nWhen the cause is gone, run one of two commands on the sorter's machine, "
            "while the sorter runs. `castline board acknowledge --line <line>` ends all faults whose causes are gone. `castline board "
            "clear --line <line> <code>` ends a single fault.\n\nThe command `clear` works for the codes 41 to 45, 47, 49, 52 and 54 to "
            "57. Fault 58 ends when a person turns the bypass key back. Fault 40 ends when the sorter runs again. Fault 50 ends when the "
            "board is reset. The faults 46, 48 and 51 end by themselves.\n\n`docs/maintenance.md` says how to run the line without "
            "Castline meanwhile, and how to exchange a board.\n\nUse `castline board monitor --line <line>` to see photo-eyes, encoder "
            "and faults while you work.",
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
            "The board has reported a fault in the last ten minutes. The fault may already be over.",
            "A single short fault affects few parts. A long or repeated fault affects many, because during a fault the board may apply "
            "the line's safe action (divert, pass or stop) to every part.",
            "Look up the fault's code in `firmware/error_codes.csv`.\n\nCode 40 means that no messages came from the sorter. The codes 41 "
            "and 42 mean a problem with a photo-eye. Code 43 means a stopped encoder, code 44 a servo without power, and code 45 an "
            "emergency stop.\n\nCode 46 means that the board was reset while it was working. Code 52 means that a person must start the "
            "line after a reset. Code 54 means that the gate is stuck. Code 55 means that a diverted part was not seen in the chute, and "
            "code 56 means that the chute is full.\n\nCode 57 means that too many parts in a row were diverted or had no verdict. Code 58 "
            "means that the bypass key is on.",
            "For the codes 41 and 42, clean and align the photo-eyes. For code 44, measure the servo's supply under load. For code 40, "
            "check whether the sorter's computer is overloaded.",
        ),
    ),
    Alert(
        "MoveUnconfirmed",
        'sum by (plant, line) (increase(castline_moves_confirmed_total{confirmed="no"}[10m])) > 0',
        "0m",
        "critical",
        "{{ $labels.line }}: a diverted part was not seen in the reject chute",
        PAGE.uid,
        CONFIRMED,
        Runbook(
            "The gate had to divert a part, but the eye in the reject chute did not see this part at the expected place.",
            "The part may be among the good parts. The board has stopped the line with fault 55.",
            "In the station, filter the history for diverted parts. The page of each part says whether the eye in the reject chute saw "
            "the part. At the line, look for the missing part at the gate, beside the chute, and behind the gate. Check whether the gate "
            "moves freely.",
            "Take the missing part off the line. If the part is in the chute, clean and align the eye in the chute. If the alert fires "
            "again although the eye works, measure the distances of the settings `chute_mm` and `chute_window_mm` again.\n\n"
            "When the missing part is found, end fault 55 with the push-button at the lane, or with `castline board acknowledge "
            "--line <line>`.",
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
            "More than two in a hundred commands to the board had to be sent again, because their answer did not come in time or was "
            "damaged.",
            "So far no part is affected, because the sorter repeats each command that got no answer. But the verdict on a part that is "
            "close to the gate may come too late.",
            "On the Gates dashboard, check whether the board also answers more slowly. At the line, check whether the trouble begins when "
            "a motor starts.",
            "Use a shorter or shielded USB cable, and lay it away from the motor's cable. If that does not help, try a powered USB hub or "
            "another port.",
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
            "The sorter sends a report to the gateway for each part that photo-eye 1 counts. The gateway did not accept some of these "
            "reports.",
            "Without the report of a part, the gateway cannot assign a picture to this part. So the part gets no verdict, and the board "
            "applies the line's safe action (divert, pass or stop).",
            "Check that the gateway runs. Check that the setting `sorter.gateway_url` is the gateway's address, and that the sorter and "
            "the gateway have the same token (CASTLINE_GATEWAY__TOKEN).",
            "Start the gateway. If the address or the token is wrong, correct it and restart the sorter.",
        ),
    ),
    Alert(
        "PicturesUnmatched",
        "(sum by (plant, line) (rate(castline_unmatched_parts_total[10m])) "
        "+ sum by (plant, line) (rate(castline_unmatched_pictures_total[10m]))) "
        "/ on (plant, line) (sum by (plant, line) (rate(castline_parts_counted_total[10m])) > 0) > 0.01",
        "5m",
        "warning",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the parts have no picture, or that many pictures belong to no part",
        PAGE.uid,
        UNMATCHED,
        Runbook(
            "Some parts that photo-eye 1 counted have no picture, or the gateway could not assign some pictures to a counted part.",
            "A part without a picture gets no verdict, so the board applies the line's safe action (divert, pass or stop). A picture "
            "that belongs to no part is judged, but its verdict does not reach the board.",
            "On the Gates dashboard, open the panel “How much time lies between a picture and its part?”.\n\nThe panel shows the time "
            "between a picture and the nearest part, after the gateway has subtracted the latency of the camera. If the times in the "
            "panel are small, the gateway uses the right latency, and pictures or part reports were lost.\n\nIf many times in the panel "
            "are larger than a quarter of the time between two parts, either the gateway uses a wrong latency, or the delay of the "
            "pictures varies too much.",
            "If pictures are lost, check the trigger and the camera's own log. If part reports are lost, see the alert "
            "`PartReportsFail`.\n\n"
            "If the gateway uses a wrong latency, check the clock of the camera and run `castline gateway measure <line>`.\n\n"
            "If the delay of the pictures varies, let the camera write its files directly to the gateway's machine. You can also "
            "change `lines.camera.time_source` from `file` to `arrival`, or from `arrival` to `file`. After the change, run `castline "
            "gateway measure <line>`.\n\n"
            "Raise `lines.camera.match_window_s` only if the part reports come late.",
        ),
    ),
    Alert(
        "CameraLatencyUnknown",
        "min by (plant, line) (castline_camera_latency_known) == 0",
        "1m",
        "critical",
        "{{ $labels.line }}: the latency of the camera is neither set nor measured, so no picture is assigned to a part",
        PAGE.uid,
        LATENCY,
        Runbook(
            "The gateway does not know the latency of this line's camera. Without the latency, the gateway cannot find the part to which "
            "a picture belongs.\n\n"
            "The latency is the time from the count of a part at photo-eye 1 to the time of its picture.",
            "The gateway assigns no picture of this line to a part. So no part gets a verdict, and the board applies the line's safe "
            "action (divert, pass or stop) to every part.",
            "Run `curl <address>/readyz` with the address of the gateway from the file `<run_dir>/targets/<instance>.json`. "
            "The page names each line whose latency is unknown.",
            "Run `castline gateway measure <line>` while parts pass. If you know the latency, you can set `lines.camera.latency_s` "
            "instead.\n\nIf all parts follow each other at equal intervals, the measurement finds several latencies that fit equally "
            "well. So hold one part back for half an interval during the measurement.",
        ),
    ),
    Alert(
        "CameraLatencyWrong",
        "max by (plant, line) (castline_camera_latency_suspended) > 0",
        "0m",
        "critical",
        "{{ $labels.line }}: the latency of the camera is no longer right, so no picture is assigned to a part",
        PAGE.uid,
        LATENCY,
        Runbook(
            "The latency that the gateway uses for this camera no longer fits the last pictures. Probably the clock of the camera was "
            "set or has drifted, or pictures now need more or less time to arrive.",
            "The gateway assigns no picture of this line to a part, because with a wrong latency a part could get the verdict on another "
            "part. So the board applies the line's safe action (divert, pass or stop) to every part.",
            "Run `curl <address>/readyz` with the address of the gateway from the file `<run_dir>/targets/<instance>.json`. The page "
            "gives the reason, for example that the last pictures show another latency, or that they fit no part.\n\nThe usual cause is a "
            "wrong clock. Compare the clock of the camera with the clock of the gateway's machine.",
            "First remove the cause: repair the time synchronisation (NTP) of the camera or file server, or the network.\n\nThen "
            "measure the camera's latency again: run `castline gateway measure <line>` while parts pass. If all parts follow each other "
            "at equal intervals, the measurement finds several latencies that fit equally well. So hold one part back for half an "
            "interval during the measurement.\n\nIf `lines.camera.latency_s` is set, correct this setting, because it overrides the "
            "measured latency. Do not raise `lines.camera.match_window_s`, because it does not change the latency.",
        ),
    ),
    Alert(
        "CameraLatencyDrifts",
        "max by (plant, line) (abs(castline_camera_offset_share)) > 0.125",
        "1m",
        "warning",
        "{{ $labels.line }}: the median time between a picture and its part is {{ $value | humanizePercentage }} of the time between two "
        "parts",
        PAGE.uid,
        DISTANCE,
        Runbook(
            "Pictures come too early or too late, because the latency of the camera has changed. The gateway compares the time of each "
            "picture with the time at which it expects the picture. The median difference is more than an eighth of the time between two "
            "parts.",
            "No part is affected yet. If the median difference grows to more than a quarter of the time between two parts, the gateway no "
            "longer assigns pictures to parts.",
            "On the Gates dashboard, open the panel “How much time lies between a picture and its part?”.\n\n"
            "If the median in the panel changes steadily, the clock of the camera drifts. If the median has jumped, the camera, the "
            "trigger or the network has changed.",
            "Synchronise the clock of the camera or file server by NTP. If the setting `lines.camera.latency_s` is empty, "
            "run `castline gateway measure <line>` while parts pass. If the setting has a value, correct this value.",
        ),
    ),
    Alert(
        "CameraClockWrong",
        "sum by (plant, line) (increase(castline_picture_times_replaced_total[10m])) > 0",
        "0m",
        "warning",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} pictures in 10 minutes had a time that cannot be right',
        PAGE.uid,
        CLOCKS,
        Runbook(
            "Some pictures came with a time before 2020 or more than two days in the future. The gateway replaced this time by the time "
            "at which the picture arrived.",
            "Pictures with a wrong time are judged. But on a line with a board, the gateway cannot find out to which parts they belong. "
            "These parts have no verdict, so the board applies the line's safe action (divert, pass or stop) to them.",
            "Run `curl <address>/healthz` with the address of the gateway from the file `<run_dir>/targets/<instance>.json`. The page "
            "shows the last wrong time that the camera gave.\n\n"
            "A year such as 1970 means that the camera has lost its clock, often after a power cut.",
            "Set the clock of the camera or file server, preferably by NTP. Then run `castline gateway measure <line>`.\n\nIf the clock "
            "cannot be corrected, change `lines.camera.time_source` to `arrival`. The time of a picture is then the time at which it "
            "arrives at the gateway. After that, run `castline gateway measure <line>`, which measures the new latency of the camera.",
        ),
    ),
)
