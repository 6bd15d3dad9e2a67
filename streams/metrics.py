"""All Prometheus metrics of Castline. No other module declares metrics.

Names begin with `castline_` and use base units such as seconds and bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

_AGE_BUCKETS_S = (0.01, 0.02, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 300, 3600)
_SHORT_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_STEP_BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.012, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_SHARE_BUCKETS = (*(step / 20 for step in range(1, 20)), 0.98, 0.99, 0.999, 1.0)
_DISTANCE_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10)
_DISTANCE_SHARE_BUCKETS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 1)
_BATCH_BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256)

# Metrics of the gateway
pictures_received = Counter("castline_pictures_received_total", "Pictures that the gateway received from cameras.", ["line"])
pictures_refused = Counter("castline_pictures_refused_total", "Pictures that the gateway refused, by reason.", ["line", "reason"])
uploads_timed_out = Counter(
    "castline_uploads_timed_out_total",
    "Uploads and part reports to the gateway that got status 503, because the picture was not stored in time.",
    ["line"],
)
wrong_tokens = Counter(
    "castline_wrong_tokens_total",
    "Requests to the gateway with a wrong token, or after so many wrong tokens that the client had to wait. The label `line` is empty for "
    "the address of an unknown line.",
    ["line"],
)
pictures_sent = Counter("castline_pictures_sent_total", "Pictures that the gateway sent and the brokers confirmed.", ["line"])
picture_bytes = Counter("castline_picture_bytes_total", "Encoded bytes of the pictures that the brokers confirmed.", ["line"])
send_seconds = Histogram(
    "castline_send_seconds", "Time from the capture of a picture to the brokers' confirmation.", ["line"], buckets=_AGE_BUCKETS_S
)
spool_pictures = Gauge("castline_spool_pictures", "Pictures that wait in the spool, the gateway's queue on disk.", ["line"])
spool_bytes = Gauge("castline_spool_bytes", "Bytes of all lines that wait in the spool, the gateway's queue on disk.")
spool_limit_bytes = Gauge("castline_spool_limit_bytes", "Largest size of the spool, the gateway's queue on disk.")
spool_write_ahead_bytes = Gauge(
    "castline_spool_write_ahead_bytes", "Size of SQLite's write-ahead logs of all spools. It counts in the limit of the spool."
)
spool_flush_seconds = Histogram(
    "castline_spool_flush_seconds",
    "Time in which the spool forced pictures to the disk. A camera gets the receipt of its picture only after this time.",
    ["line"],
    buckets=_SHORT_BUCKETS_S,
)
camera_up = Gauge(
    "castline_camera_up",
    "1 if the gateway can reach the line's camera or its folder, 0 while it cannot. Always 1 for a camera of kind http.",
    ["line"],
)
unmatched_pictures = Counter("castline_unmatched_pictures_total", "Pictures for which the gateway found no part.", ["line"])
pictures_lost = Counter(
    "castline_pictures_lost_total",
    "Pictures that a camera delivered and that were gone before they could be read, by reason.",
    ["line", "reason"],
)
files_put_aside = Counter(
    "castline_files_put_aside_total",
    "Files of a camera that could not be read or moved after several attempts, by reason. They are tried again from time to time.",
    ["line", "reason"],
)
files_ignored = Counter(
    "castline_files_ignored_total", "Entries in the folder of a camera that are links or not pictures, by reason.", ["line", "reason"]
)
files_incomplete = Counter(
    "castline_files_incomplete_total",
    "Files that the gateway sent although the end of the picture was still missing after the time `end_wait_s` of the camera.",
    ["line"],
)
files_changed_after_move = Counter(
    "castline_files_changed_after_move_total",
    "Files that changed after the gateway had read them, and that the gateway read again.",
    ["line"],
)
camera_failures = Counter(
    "castline_camera_failures_total", "Errors that interrupted a camera or its stream. The camera is opened again after a while.", ["line"]
)
camera_complaints = Gauge(
    "castline_camera_complaints", "Complaints about a camera on the page /healthz of the gateway; 0 if there is none.", ["line"]
)
unmatched_parts = Counter("castline_unmatched_parts_total", "Parts that the board counted and for which no picture arrived.", ["line"])
picture_distance_seconds = Histogram(
    "castline_picture_distance_seconds",
    "Difference in time between a picture and the nearest part, after the latency of the camera is subtracted.",
    ["line"],
    buckets=_DISTANCE_BUCKETS_S,
)
picture_distance_share = Histogram(
    "castline_picture_distance_share",
    "castline_picture_distance_seconds divided by the time between two parts. Below 0.25 the picture is assigned to the nearest part.",
    ["line"],
    buckets=_DISTANCE_SHARE_BUCKETS,
)
camera_latency_known = Gauge(
    "castline_camera_latency_known", "0 if the latency of the line's camera is needed and neither set nor measured, otherwise 1.", ["line"]
)
camera_latency_seconds = Gauge("castline_camera_latency_seconds", "Latency that the gateway uses for the line's camera.", ["line"])
camera_latency_suspended = Gauge(
    "castline_camera_latency_suspended",
    "1 while no picture of the line is assigned to a part, because the latency of its camera is no longer right.",
    ["line"],
)
camera_offset_seconds = Gauge(
    "castline_camera_offset_seconds",
    "Median difference between the times of the last pictures and of their nearest parts, after the latency is subtracted. It is 0 if "
    "the gateway uses the right latency.",
    ["line"],
)
camera_offset_share = Gauge(
    "castline_camera_offset_share", "castline_camera_offset_seconds divided by the time between two parts, from -0.5 to 0.5.", ["line"]
)
picture_times_replaced = Counter(
    "castline_picture_times_replaced_total",
    "Pictures whose time was before 2020 or more than two days ahead, so that the gateway replaced it by the time of arrival.",
    ["line"],
)

# Metrics of the inspector
batch_pictures = Histogram("castline_batch_pictures", "Number of pictures in a batch.", buckets=_BATCH_BUCKETS)
batch_wait_seconds = Histogram(
    "castline_batch_wait_seconds", "Time from the arrival of a picture to the start of its batch.", buckets=_SHORT_BUCKETS_S
)
decode_seconds = Histogram("castline_decode_seconds", "Time for decoding one picture.", buckets=_SHORT_BUCKETS_S)
detail_seconds = Histogram("castline_detail_seconds", "Time for searching one picture for small defects.", buckets=_SHORT_BUCKETS_S)
details_skipped = Counter(
    "castline_details_skipped_total",
    "Pictures that could not be searched for small defects, by reason: `no-part`, `too-coarse` or `too-slow`.",
    ["line", "reason"],
)
inference_seconds = Histogram(
    "castline_inference_seconds", "Time that the networks need for one batch.", ["runtime"], buckets=_SHORT_BUCKETS_S
)
deliver_seconds = Histogram(
    "castline_deliver_seconds", "Time from the decision about a batch to the brokers' confirmation.", buckets=_SHORT_BUCKETS_S
)
verdict_age_seconds = Histogram(
    "castline_verdict_age_seconds",
    "Time from the capture of a picture to the brokers' confirmation of its verdict.",
    ["line"],
    buckets=_AGE_BUCKETS_S,
)
verdict_deadline_seconds = Gauge(
    "castline_verdict_deadline_seconds",
    "Longest time from the capture of a picture to a verdict that is still useful at the gate.",
    ["line"],
)
verdicts = Counter("castline_verdicts_total", "Verdicts that the brokers confirmed.", ["line", "label", "model"])
verdicts_overdue = Counter("castline_verdicts_overdue_total", "Verdicts that were decided after the deadline of their part.", ["line"])
reviews_by_reason = Counter("castline_reviews_total", "Verdicts with the label review, by reason.", ["line", "reason"])
review_share_limit = Gauge(
    "castline_review_share_limit",
    "The line's smallest (`low`) and largest (`high`) usual share of the verdict review, as the settings say.",
    ["line", "bound"],
)
defects_by_kind = Counter(
    "castline_defects_total",
    "Verdicts with the label defect, by type of the largest defect. `unknown` if the model version was not sure.",
    ["line", "kind"],
)
kind_seconds = Histogram(
    "castline_kind_seconds", "Time for naming the types of defect in the defective pictures of one batch.", buckets=_SHORT_BUCKETS_S
)
defect_probability = Histogram(
    "castline_defect_probability", "Calibrated defect probability of the judged pictures.", ["line"], buckets=_SHARE_BUCKETS
)
disagreements = Counter(
    "castline_vote_disagreements_total", "Pictures for which the networks of the ensemble give different labels.", ["line"]
)
dead_letters = Counter("castline_dead_letters_total", "Records that were sent to the dead-letter topic, by reason.", ["line", "reason"])
records_refused = Counter(
    "castline_records_refused_total",
    "Records of the role that Kafka refused for their size or content. A dead letter was sent instead.",
    ["role"],
)
records_skipped = Counter(
    "castline_records_skipped_total",
    "Invalid records that the role skipped without a dead letter, by kind of topic. Each process of the role counts the record.",
    ["role", "kind"],
)
batches_unreadable = Counter(
    "castline_batches_unreadable_total",
    "Batches of records that this process skipped because it cannot decode them, by kind of topic. Each process counts the batch.",
    ["kind"],
)
signatures_refused = Counter(
    "castline_signatures_refused_total",
    "Records that the role refused because no permitted role had signed them, by kind of topic.",
    ["role", "kind"],
)
batches_split = Counter("castline_batches_split_total", "Batches that failed and were split to find the picture that caused the failure.")
model_info = Gauge("castline_model_info", "1 for the model version that judges the line.", ["line", "model", "runtime"])
model_shadow_info = Gauge(
    "castline_model_shadow_info", "1 for the shadow version of the line, whose verdicts are only counted.", ["line", "model", "runtime"]
)
model_refused = Counter("castline_model_refused_total", "Model versions that were chosen and then refused, by reason.", ["line", "reason"])
model_open_seconds = Histogram(
    "castline_model_open_seconds", "Time for verifying, loading and warming up a model version.", buckets=_AGE_BUCKETS_S
)
shadow_judged = Counter("castline_shadow_judged_total", "Pictures that the shadow version judged.", ["line", "model"])
shadow_disagreements = Counter(
    "castline_shadow_disagreements_total",
    "Pictures to which the shadow version gives another label than the version that judges the line.",
    ["line", "model"],
)
shadow_dropped = Counter(
    "castline_shadow_dropped_total", "Pictures that the shadow version did not judge, because the inspector had no time for it.", ["line"]
)
drift_psi = Gauge(
    "castline_drift_psi",
    "Population stability index (PSI): how much recent pictures differ from the reference pictures of the model version.",
    ["line", "of"],
)
camera_state = Gauge("castline_camera_state", "1 while the line's camera is in this faulty state.", ["line", "state"])
consumer_lag = Gauge("castline_consumer_lag_records", "Records of the line that wait for this worker.", ["line"])
consumer_lag_seconds = Gauge(
    "castline_consumer_lag_seconds", "Age of the line's oldest picture in the latest batch of this worker.", ["line"]
)
buffered_pictures = Gauge("castline_buffered_pictures", "Pictures that this worker has fetched and not yet judged.")

# Metrics of the localiser
findings = Counter("castline_findings_total", "Heat maps that the brokers confirmed.", ["line"])
findings_dropped = Counter(
    "castline_findings_dropped_total", "Suspicious pictures that got no heat map, because the localiser had no time for it.", ["line"]
)
findings_failed = Counter("castline_findings_failed_total", "Suspicious pictures whose heat map could not be computed or stored.", ["line"])
finding_seconds = Histogram(
    "castline_finding_seconds",
    "Time from the decision about a verdict to the brokers' confirmation of its heat map.",
    buckets=_AGE_BUCKETS_S,
)

# Metrics of the sorter
gate_state = Gauge("castline_gate_state", "1 for the current state of the line's link to its board.", ["line", "state"])
gate_round_trip_seconds = Histogram(
    "castline_gate_round_trip_seconds", "Time from a command to the board's answer.", ["line"], buckets=_SHORT_BUCKETS_S
)
gate_resends = Counter("castline_gate_resends_total", "Commands that were sent to the board again.", ["line"])
gate_faults = Counter("castline_gate_faults_total", "Faults that the board reported, by error code.", ["line", "code"])
gate_moves = Counter("castline_gate_moves_total", "Movements of the gate that the board reported.", ["line"])
moves_confirmed = Counter(
    "castline_moves_confirmed_total",
    "Diverted parts, by whether the eye in the reject chute saw them. Parts that a fault removed are not included.",
    ["line", "confirmed"],
)
button_acknowledgements = Counter(
    "castline_button_acknowledgements_total", "Faults that a person ended with the push-button at the lane.", ["line"]
)
verdict_tell_seconds = Histogram(
    "castline_verdict_tell_seconds",
    "Time from the decision about a verdict to the board's acknowledgement of the verdict.",
    ["line"],
    buckets=_AGE_BUCKETS_S,
)
verdict_step_seconds = Histogram(
    "castline_verdict_step_seconds",
    "Duration of a step of a verdict on its way to the board. The steps are fetch (from the record's time stamp in Kafka to the sorter), "
    "send (until the command is written to the serial port) and board (until the board's answer arrives).",
    ["line", "step"],
    buckets=_STEP_BUCKETS_S,
)
parts_sorted = Counter(
    "castline_parts_sorted_total",
    "Parts by what the gate did with them (action) and why (reason). Parts that no gate treated are included.",
    ["line", "action", "reason"],
)
verdicts_late = Counter("castline_verdicts_late_total", "Verdicts that arrived after their part had left the gate.", ["line"])
parts_counted = Counter("castline_parts_counted_total", "Parts that photo-eye 1 counted.", ["line"])
part_reports_failed = Counter(
    "castline_part_reports_failed_total", "Part reports that the gateway refused, or did not accept in time.", ["line"]
)
part_reports_waiting = Gauge("castline_part_reports_waiting", "Part reports that the gateway has not answered yet.", ["line"])

# Metrics of the archivist
records_archived = Counter(
    "castline_records_archived_total", "Records that the archivist stored, by kind. Records that arrive again are counted again.", ["kind"]
)
archive_rows = Counter("castline_archive_rows_total", "Rows of parts that were inserted or changed in the database.")
archive_write_seconds = Histogram(
    "castline_archive_write_seconds", "Time for one database transaction of the archivist.", buckets=_SHORT_BUCKETS_S
)
pictures_kept = Counter("castline_pictures_kept_total", "Pictures that were put into the object store for the archive.")
pictures_gone = Counter(
    "castline_pictures_gone_total", "Pictures that could not be archived, because they were no longer in Kafka or in the object store."
)
archive_dropped = Counter(
    "castline_archive_dropped_total",
    "Items that the retention policy deleted: `rows` of parts, `pictures`, and `strays`, which are pictures without a part.",
    ["what"],
)
archive_clock_doubted = Gauge(
    "castline_archive_clock_doubted",
    "1 while the archivist does not delete anything for being too old, because its clock may be wrong; otherwise 0. The wait after each "
    "start does not count.",
)
archive_kept_bytes = Gauge("castline_archive_kept_bytes", "Bytes of all archived pictures. A picture that several parts share counts once.")
line_state = Gauge(
    "castline_line_state",
    "1 for the state of the line, 0 for all other states. If several states apply, the first one of this list counts: disconnected, "
    "gate-held, planned-stop, running-blind, camera-silent, late, no-castings, running.",
    ["line", "state"],
)
planned_stop_until = Gauge(
    "castline_planned_stop_until_seconds", "End of the planned stop of the line, in seconds since 1970; 0 if none is set.", ["line"]
)
archive_pictures_wanted = Gauge("castline_archive_pictures_wanted", "Pictures that the archivist has still to fetch for the archive.")

# Metrics of the station
review_queue_parts = Gauge(
    "castline_review_queue_parts", "Parts that wait for a review, by the state of the part in the review queue.", ["state"]
)
review_queue_oldest_seconds = Gauge(
    "castline_review_queue_oldest_seconds", "Time that the oldest part in the review queue has waited; 0 if the queue is empty."
)
review_overdue_seconds = Gauge("castline_review_overdue_seconds", "Time after which a part that waits for its review is overdue.")
golden_parts_wrong = Gauge("castline_golden_parts_wrong", "Golden parts of the line whose newest verdict is not the right one.", ["line"])
golden_parts_missing = Gauge(
    "castline_golden_parts_missing",
    "Golden parts of the line that got no verdict in the last complete shift, although the line had parts.",
    ["line"],
)

# Metrics of the embedded broker
broker_disk_free_bytes = Gauge("castline_broker_disk_free_bytes", "Free bytes on the disk that holds the embedded broker's data folder.")
broker_disk_bytes = Gauge("castline_broker_disk_bytes", "Size of the disk that holds the embedded broker's data folder, in bytes.")
broker_drops = Counter(
    "castline_broker_drops_total", "Times that the embedded broker dropped records because its disk was nearly full, by kind.", ["what"]
)
broker_clock_doubted = Gauge(
    "castline_broker_clock_doubted",
    "1 while the embedded broker deletes no records, because the clock of its machine was far ahead at the start; otherwise 0.",
)

# Metrics of all processes
records_expired = Counter("castline_records_expired_total", "Records that Kafka deleted before this process had read them.", ["line"])
event_loop_delay_seconds = Histogram(
    "castline_event_loop_delay_seconds", "Delay with which the event loop woke up.", ["role"], buckets=_SHORT_BUCKETS_S
)
process_stalled = Gauge(
    "castline_process_stalled",
    "1 while /healthz reports a problem: work waits and none is finished, or a part of the process has ended.",
    ["role"],
)
audit_shipping_failing = Gauge(
    "castline_audit_shipping_failing",
    "1 while the station cannot send new entries of the audit log to the log server of the setting station.audit_syslog, else 0.",
)
thread_failures = Counter(
    "castline_thread_failures_total",
    "Errors that ended the work of a thread or task that must live as long as its process. The process starts the work again.",
    ["thread"],
)
process_ready = Gauge("castline_process_ready", "1 while the process accepts work.", ["role"])
start_span_seconds = Gauge(
    "castline_start_span_seconds",
    "How long each step of the last start of the process took, until its first finished work.",
    ["role", "span"],
)


# These counters start with the value 0, because an alert on an increase would otherwise miss the first event.
_COUNTERS_BY_ROLE = {
    "gateway": (
        pictures_received,
        uploads_timed_out,
        wrong_tokens,
        pictures_sent,
        picture_bytes,
        unmatched_pictures,
        unmatched_parts,
        picture_times_replaced,
        files_incomplete,
        files_changed_after_move,
        camera_failures,
    ),
    "inspector": (verdicts_overdue, disagreements, records_expired),
    "localiser": (findings, findings_dropped, findings_failed, records_expired),
    "archivist": (records_expired,),
    "sorter": (gate_resends, gate_moves, button_acknowledgements, verdicts_late, parts_counted, part_reports_failed),
}
GATEWAY_REASONS = (
    (pictures_refused, ("spool-full", "too-large", "refused-by-kafka")),
    (pictures_lost, ("overwritten", "not-readable")),
    (files_ignored, ("no-picture", "link", "special", "too-deep", "not-readable")),
    (files_put_aside, ("not-readable", "not-movable", "internal")),
)
_DEAD_LETTER_REASONS_BY_ROLE = {
    "inspector": (
        "identity",
        "not-an-image",
        "truncated",
        "damaged",
        "empty",
        "depth",
        "blank",
        "partly-blank",
        "inference-failed",
        "expired",
        "unreadable",
    ),
    "sorter": ("verdict", "command"),
    "archivist": ("not-a-record", "other-line", "empty", "identity", "refused-by-archive", "unreadable"),
}
_SORTING_ACTIONS_AND_REASONS = (
    *(("diverted", reason) for reason in ("verdict", "no-verdict", "late-verdict", "fault", "unmatched")),
    *(("passed", reason) for reason in ("verdict", "no-verdict", "late-verdict", "fault", "unmatched")),
    *(("stopped", reason) for reason in ("no-verdict", "late-verdict", "fault", "unmatched")),
    *(("untracked", reason) for reason in ("board-restarted", "unmatched", "taken-off", "fault", "late-verdict")),
)
for _kind in ("images", "verdicts", "sorted", "findings", "dead-letters", "reviews", "models", "lines", "commands"):
    batches_unreadable.labels(_kind)


def initialise_counters(role: str, line: str, fault_codes: Iterable[int] = ()) -> None:
    """Creates the counters of `role` for `line` with the value 0. `fault_codes` are the error codes that a board can report."""
    for counter in _COUNTERS_BY_ROLE[role]:
        counter.labels(line)
    for reason in _DEAD_LETTER_REASONS_BY_ROLE.get(role, ()):
        dead_letters.labels(line, reason)
    if role == "gateway":
        for counter, reasons in GATEWAY_REASONS:
            for reason in reasons:
                counter.labels(line, reason)
    if role == "sorter":
        for action, reason in _SORTING_ACTIONS_AND_REASONS:
            parts_sorted.labels(line, action, reason)
        for confirmed in ("yes", "no", "not-equipped"):
            moves_confirmed.labels(line, confirmed)
        for code in fault_codes:
            gate_faults.labels(line, str(code))
