"""For each alert: series that make it fire, similar series that must not, and the summary that a person reads."""

from __future__ import annotations

from dataclasses import dataclass

from streams.plant_states import STATE_ALARMS, PlantState

LINE = 'plant="north",line="line-1"'
BROKER = 'plant="north",machine="pc1",instance_name="broker-1",role="broker"'
_FIRST = 'instance_name="archivist-1"'
ON_LINE = {"plant": "north", "line": "line-1"}
WORKER = 'plant="north",machine="pc1",instance_name="inspector-1",role="inspector",job="castline"'
ON_WORKER = {"plant": "north", "machine": "pc1", "instance_name": "inspector-1", "role": "inspector", "job": "castline"}


@dataclass(frozen=True)
class AlertCase:
    """With the series `fires` the alert fires at `minute` with `labels` and `summary`. With the series `quiet` it does not fire.

    Series are written in promtool's notation, with one sample a minute.
    """

    alert: str
    minute: int
    fires: dict[str, str]
    quiet: dict[str, str]
    labels: dict[str, str]
    summary: str


def _sorted(action: str, reason: str) -> str:
    return f'castline_parts_sorted_total{{{LINE},action="{action}",reason="{reason}"}}'


def _ages(late: str) -> dict[str, str]:
    """Returns twenty verdicts a minute within a second, and `late` ones of 3 to 5 s. A part needs 2.8 s to its gate."""
    return {
        f'castline_verdict_age_seconds_bucket{{{LINE},le="1"}}': "0+20x20",
        f'castline_verdict_age_seconds_bucket{{{LINE},le="3"}}': "0+20x20",
        f'castline_verdict_age_seconds_bucket{{{LINE},le="5"}}': late,
        f'castline_verdict_age_seconds_bucket{{{LINE},le="+Inf"}}': late,
        f"castline_verdict_deadline_seconds{{{LINE}}}": "2.8x20",
    }


def _verdicts(ok: str, defect: str, review: str = "0x2000") -> dict[str, str]:
    labels = {"ok": ok, "defect": defect, "review": review}
    return {f'castline_verdicts_total{{{LINE},label="{label}",model="a"}}': values for label, values in labels.items()}


def _review_limits(low: str, high: str) -> dict[str, str]:
    return {f'castline_review_share_limit{{{LINE},bound="{bound}"}}': f"{value}x120" for bound, value in (("low", low), ("high", high))}


def _state_case(state: PlantState) -> AlertCase:
    """Returns the case of a state. If one of two archivists says otherwise, the alert does not fire."""
    others = {f'castline_line_state{{{LINE},state="{other.value}",{_FIRST}}}': "0x4" for other in PlantState if other is not state}
    first = f'castline_line_state{{{LINE},state="{state.value}",{_FIRST}}}'
    second = f'castline_line_state{{{LINE},state="{state.value}",instance_name="archivist-2"}}'
    return AlertCase(
        STATE_ALARMS[state].alert,
        3,
        {**others, first: "0 1 1 1 1", second: "0 1 1 1 1"},
        {**others, first: "0 1 1 1 1", second: "0x4"},
        ON_LINE,
        f"line-1: the state of the line is {state.display_name}",
    )


CASES: tuple[AlertCase, ...] = (
    AlertCase(
        "PartsPassUnseen",
        5,
        {_sorted("passed", "no-verdict"): "0 0 0 1 2 2", _sorted("passed", "verdict"): "0+60x5"},
        {_sorted("passed", "no-verdict"): "0x5", _sorted("passed", "verdict"): "0+60x5", _sorted("diverted", "no-verdict"): "0+1x5"},
        ON_LINE,
        "line-1: 2 parts passed the gate in 5 minutes without a verdict that allowed it",
    ),
    AlertCase(
        "PartsWithoutVerdict",
        5,
        {_sorted("diverted", "no-verdict"): "0 0 0 1 2 3"},
        {_sorted("diverted", "no-verdict"): "3x5", _sorted("diverted", "verdict"): "0+9x5"},
        ON_LINE,
        "line-1: 3 parts reached the gate without a verdict in 5 minutes and were diverted or stopped",
    ),
    AlertCase(
        "PartsNotTracked",
        5,
        {_sorted("untracked", "board-restarted"): "0 0 0 1 1 1", _sorted("diverted", "unmatched"): "4 4 4 4 4 5"},
        {
            _sorted("untracked", "board-restarted"): "1x5",
            _sorted("diverted", "unmatched"): "4x5",
            _sorted("untracked", "taken-off"): "0+1x5",
            _sorted("diverted", "verdict"): "0+9x5",
        },
        ON_LINE,
        "line-1: the board lost track of castings in 5 minutes (2 records or castings)",
    ),
    AlertCase(
        "VerdictsTooOld",
        10,
        _ages("0+21x20"),
        _ages("0+20x20"),
        ON_LINE,
        "line-1: one verdict in a hundred comes later than 4.58s after its picture, when the part is already at the gate",
    ),
    AlertCase(
        "LineSilent",
        10,
        {f"castline_parts_counted_total{{{LINE}}}": "0+120x10", **_verdicts("500x10", "0x10")},
        {f"castline_parts_counted_total{{{LINE}}}": "0+120x10", **_verdicts("0+119x10", "0x10")},
        ON_LINE,
        "line-1: photo-eye 1 counts 2.0 parts a second, but no verdict comes",
    ),
    AlertCase(
        "ErrorBudgetBurnsFast",
        70,
        {_sorted("diverted", "verdict"): "0+99x80", _sorted("diverted", "no-verdict"): "0+1x80"},
        # Parts were lost an hour ago, but no longer.
        {_sorted("diverted", "verdict"): "0+100x80", _sorted("diverted", "no-verdict"): "0+2x40 80x40"},
        ON_LINE,
        "line-1: 1% of the parts in the last hour had no verdict; at this rate, the month's error budget lasts two days at most",
    ),
    AlertCase(
        "ErrorBudgetBurnsSlowly",
        390,
        {_sorted("diverted", "verdict"): "0+996x400", _sorted("diverted", "no-verdict"): "0+4x400"},
        {_sorted("diverted", "verdict"): "0+9998x400", _sorted("diverted", "no-verdict"): "0+2x400"},
        ON_LINE,
        "line-1: 0.4% of the parts in the last six hours had no verdict; at this rate, the month's error budget lasts five days at most",
    ),
    AlertCase(
        "GateNotAnswering",
        4,
        {f'castline_gate_state{{{LINE},state="away"}}': "0 0 1 1 1", f'castline_gate_state{{{LINE},state="running"}}': "1 1 0 0 0"},
        {f'castline_gate_state{{{LINE},state="away"}}': "0 0 0 0 0", f'castline_gate_state{{{LINE},state="running"}}': "1x4"},
        ON_LINE,
        "line-1: the sorter has no working link to the board at the gate",
    ),
    AlertCase(
        "GateHeldSafe",
        4,
        {f'castline_gate_state{{{LINE},state="safe"}}': "0 0 1 1 1"},
        {f'castline_gate_state{{{LINE},state="safe"}}': "0 0 0 0 1", f'castline_gate_state{{{LINE},state="away"}}': "1x4"},
        {**ON_LINE, "state": "safe"},
        "line-1: the board found a fault and is in the state `safe`",
    ),
    AlertCase(
        "GateFault",
        10,
        {f'castline_gate_faults_total{{{LINE},code="41"}}': "0x5 1x5"},
        {f'castline_gate_faults_total{{{LINE},code="41"}}': "7x10"},
        {**ON_LINE, "code": "41"},
        "line-1: the board reported fault 41",
    ),
    AlertCase(
        "MoveUnconfirmed",
        5,
        {f'castline_moves_confirmed_total{{{LINE},confirmed="no"}}': "0x4 1x6"},
        {
            f'castline_moves_confirmed_total{{{LINE},confirmed="no"}}': "3x10",
            f'castline_moves_confirmed_total{{{LINE},confirmed="yes"}}': "0+9x10",
        },
        ON_LINE,
        "line-1: a diverted part was not seen in the reject chute",
    ),
    AlertCase(
        "GateLinkNoisy",
        20,
        {f"castline_gate_resends_total{{{LINE}}}": "0+3x20", f"castline_gate_round_trip_seconds_count{{{LINE}}}": "0+100x20"},
        {f"castline_gate_resends_total{{{LINE}}}": "0+1x20", f"castline_gate_round_trip_seconds_count{{{LINE}}}": "0+100x20"},
        ON_LINE,
        "line-1: 3% of the commands to the board had to be sent again",
    ),
    AlertCase(
        "PartReportsFail",
        5,
        {f"castline_part_reports_failed_total{{{LINE}}}": "0 1 2 3 4 5"},
        {f"castline_part_reports_failed_total{{{LINE}}}": "0 0 1 1 1 1"},
        ON_LINE,
        "line-1: the gateway did not accept 5 part reports in 5 minutes",
    ),
    AlertCase(
        "PicturesUnmatched",
        20,
        {
            f"castline_unmatched_parts_total{{{LINE}}}": "0+2x20",
            f"castline_unmatched_pictures_total{{{LINE}}}": "0x20",
            f"castline_parts_counted_total{{{LINE}}}": "0+100x20",
        },
        {
            f"castline_unmatched_parts_total{{{LINE}}}": "0x10 1x10",
            f"castline_unmatched_pictures_total{{{LINE}}}": "0x20",
            f"castline_parts_counted_total{{{LINE}}}": "0+100x20",
        },
        ON_LINE,
        "line-1: 2% of the parts have no picture, or that many pictures belong to no part",
    ),
    AlertCase(
        "CameraLatencyUnknown",
        3,
        {f"castline_camera_latency_known{{{LINE}}}": "0x3"},
        {f"castline_camera_latency_known{{{LINE}}}": "0 1 1 1"},
        ON_LINE,
        "line-1: the latency of the camera is neither set nor measured, so no picture is assigned to a part",
    ),
    AlertCase(
        "CameraLatencyWrong",
        2,
        {f"castline_camera_latency_suspended{{{LINE}}}": "0 0 1"},
        {f"castline_camera_latency_suspended{{{LINE}}}": "0 1 0"},
        ON_LINE,
        "line-1: the latency of the camera is no longer right, so no picture is assigned to a part",
    ),
    AlertCase(
        "CameraLatencyDrifts",
        3,
        {f"castline_camera_offset_share{{{LINE}}}": "0 -0.1 -0.2 -0.2"},
        {f"castline_camera_offset_share{{{LINE}}}": "0 -0.1 0.1 -0.12"},
        ON_LINE,
        "line-1: the median time between a picture and its part is 20% of the time between two parts",
    ),
    AlertCase(
        "CameraClockWrong",
        10,
        {f"castline_picture_times_replaced_total{{{LINE}}}": "0x5 1 2 2 2 2"},
        {f"castline_picture_times_replaced_total{{{LINE}}}": "5x10"},
        ON_LINE,
        "line-1: 2 pictures in 10 minutes had a time that cannot be right",
    ),
    AlertCase(
        "NoInspector",
        4,
        {f"castline_process_ready{{{WORKER}}}": "1 1 0 0 0", 'castline_process_ready{plant="north",role="gateway"}': "1x4"},
        {f"castline_process_ready{{{WORKER}}}": "1x4", 'castline_process_ready{plant="north",role="inspector",instance_name="b"}': "0x4"},
        {"plant": "north"},
        "no inspector of plant north is ready, so no picture is judged",
    ),
    AlertCase(
        "ProcessDown",
        4,
        {f"up{{{WORKER}}}": "1 1 0 0 0"},
        {f"up{{{WORKER}}}": "1 1 1 1 1", 'up{job="another"}': "0x4"},
        ON_WORKER,
        "inspector-1 of pc1 does not answer on its page /metrics",
    ),
    AlertCase(
        "ThreadFailing",
        10,
        {f'castline_thread_failures_total{{{WORKER},thread="lag"}}': "0x5 2x5"},
        {f'castline_thread_failures_total{{{WORKER},thread="lag"}}': "2x10"},
        {"plant": "north", "machine": "pc1", "instance_name": "inspector-1", "thread": "lag"},
        "inspector-1 of pc1: the thread lag failed 2 times in 10 minutes",
    ),
    AlertCase(
        "ForgedRecords",
        10,
        {'castline_signatures_refused_total{plant="north",role="sorter",kind="verdicts"}': "0x5 1x5"},
        {'castline_signatures_refused_total{plant="north",role="sorter",kind="verdicts"}': "3x10"},
        {"plant": "north", "role": "sorter", "kind": "verdicts"},
        "sorter refused records on the topics of verdicts that no permitted role has signed",
    ),
    AlertCase(
        "AuditLogNotShipped",
        14,
        {'castline_audit_shipping_failing{plant="north",machine="pc1",instance_name="station"}': "0 0 1x12"},
        {'castline_audit_shipping_failing{plant="north",machine="pc1",instance_name="station"}': "0 0 1 1 1 1 1 0 1 1 1 1 1 1 1"},
        {"plant": "north", "machine": "pc1", "instance_name": "station"},
        "station of pc1 has not reached the log server of the audit log for 10 minutes",
    ),
    AlertCase(
        "TokensGuessed",
        10,
        {'castline_wrong_tokens_total{plant="north",line="line-1"}': "0+5x10"},
        {'castline_wrong_tokens_total{plant="north",line="line-1"}': "0+1x10"},
        {"plant": "north", "line": "line-1"},
        "the gateway got more than 20 requests with wrong tokens for line-1 in 10 minutes",
    ),
    AlertCase(
        "WorkerStalled",
        4,
        {f"castline_process_stalled{{{WORKER}}}": "0 0 1 1 1"},
        {f"castline_process_stalled{{{WORKER}}}": "0 0 1 0 1"},
        ON_WORKER,
        "inspector-1 of pc1 runs but finishes no work",
    ),
    AlertCase(
        "ProcessNotReady",
        8,
        {f"castline_process_ready{{{WORKER}}}": "1 1 0 0 0 0 0 0 0"},
        {f"castline_process_ready{{{WORKER}}}": "1 1 0 0 0 1 1 0 0"},
        ON_WORKER,
        "inspector-1 of pc1 has not been ready for 3 minutes",
    ),
    AlertCase(
        "LagGrowing",
        10,
        {f'castline_consumer_lag_records{{{LINE},role="inspector"}}': "0+20x10"},
        # As many pictures wait, but fewer every minute.
        {f'castline_consumer_lag_records{{{LINE},role="inspector"}}': "400-20x10"},
        ON_LINE,
        "line-1: 200 pictures wait for an inspector, and there are more every minute",
    ),
    AlertCase(
        "RecordsExpired",
        5,
        {f"castline_records_expired_total{{{LINE}}}": "0 0 0 16 16 16"},
        {f"castline_records_expired_total{{{LINE}}}": "0 0 0 0 0 0"},
        ON_LINE,
        "line-1: Kafka deleted 16 records before they were read",
    ),
    AlertCase(
        "BrokerDiskFilling",
        5,
        {f"castline_broker_disk_free_bytes{{{BROKER}}}": "3e9-3e8x10", f"castline_broker_disk_bytes{{{BROKER}}}": "1e10x10"},
        {f"castline_broker_disk_free_bytes{{{BROKER}}}": "1.5e11x10", f"castline_broker_disk_bytes{{{BROKER}}}": "2e12x10"},
        {"plant": "north", "machine": "pc1", "instance_name": "broker-1", "role": "broker"},
        "pc1: only 15% of the broker's disk are free",
    ),
    AlertCase(
        "BrokerDropsRecords",
        5,
        {f'castline_broker_drops_total{{{BROKER},what="judged-pictures"}}': "0 0 0 1 1 1"},
        {f'castline_broker_drops_total{{{BROKER},what="judged-pictures"}}': "0 0 0 0 0 0"},
        {"plant": "north", "machine": "pc1", "what": "judged-pictures"},
        "pc1: the broker dropped records of the kind judged-pictures, because its disk is nearly full",
    ),
    AlertCase(
        "BrokerClockDoubted",
        15,
        {f"castline_broker_clock_doubted{{{BROKER}}}": "1x20"},
        {f"castline_broker_clock_doubted{{{BROKER}}}": "1x8 0x12"},
        {"plant": "north", "machine": "pc1", "instance_name": "broker-1", "role": "broker"},
        "pc1: the broker deletes no records, because the clock of its machine was far ahead at the start",
    ),
    AlertCase(
        "ArchiveClockDoubted",
        185,
        {'castline_archive_clock_doubted{plant="north",machine="pc1",instance_name="archivist-1"}': "1x190"},
        {'castline_archive_clock_doubted{plant="north",machine="pc1",instance_name="archivist-1"}': "1x120 0x70"},
        {"plant": "north", "machine": "pc1", "instance_name": "archivist-1"},
        "pc1: the archive keeps old parts and pictures, because the archivist's clock may be wrong",
    ),
    AlertCase(
        "SpoolFilling",
        20,
        {
            'castline_spool_bytes{plant="north",machine="pc1",instance_name="gateway-1"}': "2e6+1e7x20",
            'castline_spool_limit_bytes{plant="north",machine="pc1",instance_name="gateway-1"}': "5e8x20",
        },
        {
            'castline_spool_bytes{plant="north",machine="pc1",instance_name="gateway-1"}': "2e6+1e5x20",
            'castline_spool_limit_bytes{plant="north",machine="pc1",instance_name="gateway-1"}': "5e8x20",
        },
        {"plant": "north", "machine": "pc1", "instance_name": "gateway-1"},
        "gateway-1 of pc1: the spool is filling up, because Kafka does not confirm the pictures",
    ),
    AlertCase(
        "PicturesRefused",
        10,
        {f'castline_pictures_refused_total{{{LINE},reason="spool-full"}}': "0x5 4x5"},
        {f'castline_pictures_refused_total{{{LINE},reason="spool-full"}}': "4x10"},
        {**ON_LINE, "reason": "spool-full"},
        "line-1: the gateway refused 4 pictures in 10 minutes, reason spool-full",
    ),
    AlertCase(
        "CameraDown",
        5,
        {f"castline_camera_up{{{LINE}}}": "0x5"},
        {f"castline_camera_up{{{LINE}}}": "1x5"},
        ON_LINE,
        "line-1: the gateway cannot reach the camera or its folder",
    ),
    AlertCase(
        "CameraComplains",
        5,
        {f"castline_camera_complaints{{{LINE}}}": "2x5"},
        {f"castline_camera_complaints{{{LINE}}}": "0x5"},
        ON_LINE,
        "line-1: 2 complaints about the camera or its folder",
    ),
    AlertCase(
        "PicturesLost",
        10,
        {f'castline_pictures_lost_total{{{LINE},reason="overwritten"}}': "0x5 4x5"},
        {f'castline_pictures_lost_total{{{LINE},reason="overwritten"}}': "4x10"},
        {**ON_LINE, "reason": "overwritten"},
        "line-1: 4 pictures were lost in 10 minutes before they could be read, reason overwritten",
    ),
    AlertCase(
        "DeadLettersRising",
        10,
        {f'castline_dead_letters_total{{{LINE},reason="truncated"}}': "0+1x10"},
        {f'castline_dead_letters_total{{{LINE},reason="truncated"}}': "0x5 2x5"},
        {**ON_LINE, "reason": "truncated"},
        "line-1: 10 records could not be processed in 10 minutes, reason truncated",
    ),
    AlertCase(
        "BatchesSplit",
        10,
        {f"castline_batches_split_total{{{WORKER}}}": "0x5 1x5"},
        {f"castline_batches_split_total{{{WORKER}}}": "1x10"},
        {"plant": "north", "machine": "pc1", "instance_name": "inspector-1"},
        "inspector-1 of pc1: the networks failed on a batch, so the inspector split the batch",
    ),
    AlertCase(
        "BatchesUnreadable",
        5,
        {'castline_batches_unreadable_total{plant="north",role="inspector",kind="images"}': "0 0 0 1 1 1"},
        {'castline_batches_unreadable_total{plant="north",role="inspector",kind="images"}': "1 1 1 1 1 1"},
        {"plant": "north", "kind": "images"},
        "A batch of records on a topic of the kind images cannot be decoded, so its records are skipped",
    ),
    AlertCase(
        "EventLoopBlocked",
        15,
        {
            f'castline_event_loop_delay_seconds_bucket{{{WORKER},le="1"}}': "0+100x15",
            f'castline_event_loop_delay_seconds_bucket{{{WORKER},le="2"}}': "0+120x15",
            f'castline_event_loop_delay_seconds_bucket{{{WORKER},le="+Inf"}}': "0+120x15",
        },
        {
            f'castline_event_loop_delay_seconds_bucket{{{WORKER},le="1"}}': "0+120x15",
            f'castline_event_loop_delay_seconds_bucket{{{WORKER},le="2"}}': "0+120x15",
            f'castline_event_loop_delay_seconds_bucket{{{WORKER},le="+Inf"}}': "0+120x15",
        },
        {"plant": "north", "machine": "pc1", "instance_name": "inspector-1"},
        "inspector-1 of pc1: the event loop wakes up 1.94s late",
    ),
    AlertCase(
        "VerdictsDrift",
        1440,
        # The share is a tenth for most of the day, and a half in the last two hours.
        _verdicts("0+9x1320 11880+5x120", "0+1x1320 1320+5x120"),
        _verdicts("0+9x1440", "0+1x1440"),
        ON_LINE,
        "line-1: the share of defects in the last hour differs by 36.69% from that of the last day",
    ),
    AlertCase(
        "NetworksDisagree",
        120,
        {**_verdicts("0+10x120", "0x120"), f"castline_vote_disagreements_total{{{LINE}}}": "0+2x120"},
        # The same share of a handful of verdicts means nothing.
        {**_verdicts("0+1x120", "0x120"), f"castline_vote_disagreements_total{{{LINE}}}": "0+1x120"},
        ON_LINE,
        "line-1: the two networks disagree on 20% of the pictures",
    ),
    AlertCase(
        "ReviewShareHigh",
        120,
        _verdicts("0+9x120", "0x120", "0+1x120") | _review_limits("0", "0.05"),
        _verdicts("0+9x120", "0x120", "0+1x120") | _review_limits("0", "0.2"),
        ON_LINE,
        "line-1: 10% of the parts are left to a person's review",
    ),
    AlertCase(
        "ReviewShareLow",
        120,
        _verdicts("0+99x120", "0x120", "0+1x120") | _review_limits("0.02", "0.05"),
        _verdicts("0+99x120", "0x120", "0+1x120") | _review_limits("0", "0.05"),
        ON_LINE,
        "line-1: only 1% of the parts are left to a person's review",
    ),
    AlertCase(
        "ModelVersionsDiffer",
        20,
        {
            f'castline_model_info{{{LINE},model="a",instance_name="i-1"}}': "1x20",
            f'castline_model_info{{{LINE},model="b",instance_name="i-2"}}': "1x20",
        },
        {
            f'castline_model_info{{{LINE},model="a",instance_name="i-1"}}': "1x20",
            f'castline_model_info{{{LINE},model="a",instance_name="i-2"}}': "1x20",
        },
        ON_LINE,
        "2 model versions judge line-1 at the same time",
    ),
    AlertCase(
        "ModelRefused",
        60,
        {f'castline_model_refused_total{{{LINE},reason="damaged"}}': "0x30 1x30"},
        {f'castline_model_refused_total{{{LINE},reason="damaged"}}': "1x60"},
        {**ON_LINE, "reason": "damaged"},
        "line-1: a chosen model version was refused, reason damaged",
    ),
    AlertCase(
        "CameraFrozen",
        5,
        {f'castline_camera_state{{{LINE},state="frozen"}}': "0 0 0 1 1 1"},
        {f'castline_camera_state{{{LINE},state="frozen"}}': "1 1 1 0 0 0", f'castline_camera_state{{{LINE},state="gap"}}': "0x5"},
        ON_LINE,
        "line-1: the camera sends the same picture again and again",
    ),
    AlertCase(
        "CameraDarkOrBright",
        5,
        {f'castline_camera_state{{{LINE},state="dark"}}': "0 0 0 1 1 1", f'castline_camera_state{{{LINE},state="bright"}}': "0x5"},
        # The picture was dark for a moment only, because somebody stood in the light.
        {f'castline_camera_state{{{LINE},state="dark"}}': "0 0 1 0 0 1", f'castline_camera_state{{{LINE},state="bright"}}': "0x5"},
        {**ON_LINE, "state": "dark"},
        "line-1: the pictures are too dark to be judged",
    ),
    AlertCase(
        "CameraBlurred",
        5,
        {f'castline_camera_state{{{LINE},state="blurred"}}': "0 0 1 1 1 1"},
        {f'castline_camera_state{{{LINE},state="blurred"}}': "0 0 1 0 1 1"},
        ON_LINE,
        "line-1: the pictures are not sharp",
    ),
    AlertCase(
        "CameraGap",
        10,
        {
            f'castline_camera_state{{{LINE},state="gap",instance_name="i-1"}}': "0x5 1x5",
            f'castline_camera_state{{{LINE},state="gap",instance_name="i-2"}}': "0x5 1x5",
            f"castline_parts_counted_total{{{LINE}}}": "0+30x10",
        },
        # The belt of line-1 stands, and another inspector now gets the pictures of line-2.
        {
            f'castline_camera_state{{{LINE},state="gap",instance_name="i-1"}}': "0x5 1x5",
            f"castline_parts_counted_total{{{LINE}}}": "300x10",
            'castline_camera_state{plant="north",line="line-2",state="gap",instance_name="i-1"}': "0x5 1x5",
            'castline_camera_state{plant="north",line="line-2",state="gap",instance_name="i-2"}': "0x10",
        },
        ON_LINE,
        "line-1: no more pictures come",
    ),
    AlertCase(
        "PicturesDrift",
        20,
        {f'castline_drift_psi{{{LINE},of="brightness"}}': "0.05x5 0.6x15", f'castline_drift_psi{{{LINE},of="sharpness"}}': "0.05x20"},
        {f'castline_drift_psi{{{LINE},of="brightness"}}': "_x10 0.2x10", f'castline_drift_psi{{{LINE},of="sharpness"}}': "0.05x20"},
        {**ON_LINE, "of": "brightness"},
        "line-1: the brightness of the pictures differs from that of the version's reference pictures",
    ),
    AlertCase(
        "ReviewQueueOverdue",
        60,
        {
            'castline_review_queue_oldest_seconds{plant="north"}': "85800+60x60",
            'castline_review_overdue_seconds{plant="north"}': "86400x60",
        },
        {
            'castline_review_queue_oldest_seconds{plant="north"}': "85800+60x15 0x45",
            'castline_review_overdue_seconds{plant="north"}': "86400x60",
        },
        {"plant": "north"},
        "a part has waited 1d 0h 50m 0s for a person's review",
    ),
    AlertCase(
        "GoldenPartWrong",
        10,
        {f"castline_golden_parts_wrong{{{LINE}}}": "0x3 1x10"},
        {f"castline_golden_parts_wrong{{{LINE}}}": "0x13", f"castline_golden_parts_missing{{{LINE}}}": "2x13"},
        ON_LINE,
        "line-1: golden parts with a wrong verdict: 1",
    ),
    AlertCase(
        "GoldenPartMissing",
        30,
        {f"castline_golden_parts_missing{{{LINE}}}": "0x10 2x20"},
        {f"castline_golden_parts_missing{{{LINE}}}": "0x30", f"castline_golden_parts_wrong{{{LINE}}}": "1x30"},
        ON_LINE,
        "line-1: golden parts that were not shown in the last shift: 2",
    ),
    *(_state_case(state) for state in STATE_ALARMS),
)
