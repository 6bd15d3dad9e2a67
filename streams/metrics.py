"""Every metric of Castline, declared here alone. Names `castline_*`, base units, labels bounded by lines, roles and models.

Stage latencies are our own histograms: Faust's do not see batches.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

_AGE_S = (0.01, 0.02, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 300, 3600)
_SHORT_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_SHARE = (*(step / 20 for step in range(1, 20)), 0.98, 0.99, 0.999, 1.0)
_BATCH = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256)

# Gateway
pictures_received = Counter("castline_pictures_received_total", "Pictures that a camera gave.", ["line"])
pictures_refused = Counter("castline_pictures_refused_total", "Pictures that the gateway refused, by reason.", ["line", "reason"])
pictures_sent = Counter("castline_pictures_sent_total", "Pictures that the brokers confirmed.", ["line"])
picture_bytes = Counter("castline_picture_bytes_total", "Encoded bytes of pictures confirmed.", ["line"])
send_seconds = Histogram("castline_send_seconds", "From a picture's capture to the brokers' confirmation.", ["line"], buckets=_AGE_S)
spool_pictures = Gauge("castline_spool_pictures", "Pictures that wait on the gateway's disk.", ["line"])
spool_bytes = Gauge("castline_spool_bytes", "Bytes that wait on the gateway's disk, all lines.")
spool_limit_bytes = Gauge("castline_spool_limit_bytes", "Size that the spool may reach.")
unmatched_pictures = Counter("castline_unmatched_pictures_total", "Pictures that no part of the board was matched to.", ["line"])
unmatched_parts = Counter("castline_unmatched_parts_total", "Parts of the board that no picture came for.", ["line"])

# Inspector
batch_pictures = Histogram("castline_batch_pictures", "Pictures in a batch.", buckets=_BATCH)
batch_wait_seconds = Histogram("castline_batch_wait_seconds", "From a picture's arrival to the start of its batch.", buckets=_SHORT_S)
decode_seconds = Histogram("castline_decode_seconds", "Decoding of one picture.", buckets=_SHORT_S)
inference_seconds = Histogram("castline_inference_seconds", "The networks' time for one batch.", ["runtime"], buckets=_SHORT_S)
deliver_seconds = Histogram("castline_deliver_seconds", "From a batch's decision to the brokers' confirmation.", buckets=_SHORT_S)
verdict_age_seconds = Histogram(
    "castline_verdict_age_seconds", "From a picture's capture to its verdict's confirmation.", ["line"], buckets=_AGE_S
)
verdict_deadline_seconds = Gauge(
    "castline_verdict_deadline_seconds", "From a picture's capture to the last verdict that is useful at the gate.", ["line"]
)
verdicts = Counter("castline_verdicts_total", "Verdicts confirmed.", ["line", "label", "model"])
verdicts_overdue = Counter("castline_verdicts_overdue_total", "Verdicts decided after the part's deadline.", ["line"])
reviews_by_reason = Counter("castline_reviews_total", "Verdicts `review`, by reason.", ["line", "reason"])
defect_probability = Histogram("castline_defect_probability", "Calibrated defect probability of judged pictures.", ["line"], buckets=_SHARE)
disagreements = Counter("castline_vote_disagreements_total", "Pictures on which the networks' own labels differ.", ["line"])
dead_letters = Counter("castline_dead_letters_total", "Records parked as dead letters, by reason.", ["line", "reason"])
batches_split = Counter("castline_batches_split_total", "Batches that failed and were split to find the culprit.")
model_info = Gauge("castline_model_info", "1 for the version in force.", ["line", "model", "runtime"])
model_shadow_info = Gauge("castline_model_shadow_info", "1 for the version that judges silently.", ["line", "model", "runtime"])
model_refused = Counter("castline_model_refused_total", "Versions that were chosen and stayed out, by reason.", ["line", "reason"])
model_open_seconds = Histogram("castline_model_open_seconds", "Verifying, loading and warming up a version.", buckets=_AGE_S)
shadow_judged = Counter("castline_shadow_judged_total", "Pictures that the shadow version judged.", ["line", "model"])
shadow_disagreements = Counter(
    "castline_shadow_disagreements_total", "Pictures that the shadow version labels otherwise.", ["line", "model"]
)
shadow_dropped = Counter("castline_shadow_dropped_total", "Pictures that the shadow version had no time for.", ["line"])
findings = Counter("castline_findings_total", "Heat maps confirmed.", ["line"])
findings_dropped = Counter("castline_findings_dropped_total", "Suspicious pictures that there was no time to explain.", ["line"])
findings_failed = Counter("castline_findings_failed_total", "Suspicious pictures whose heat map could not be made or kept.", ["line"])
finding_seconds = Histogram("castline_finding_seconds", "From a verdict's decision to its heat map's confirmation.", buckets=_AGE_S)
drift_psi = Gauge("castline_drift_psi", "Population stability index against the version's reference.", ["line", "of"])
camera_state = Gauge("castline_camera_state", "1 while a line's camera is in this trouble.", ["line", "state"])
consumer_lag = Gauge("castline_consumer_lag_records", "Records that wait for this worker, by line.", ["line"])
consumer_lag_seconds = Gauge("castline_consumer_lag_seconds", "Age of the oldest picture in hand, by line.", ["line"])
buffered_pictures = Gauge("castline_buffered_pictures", "Pictures fetched and not yet judged.")

# Sorter
gate_state = Gauge("castline_gate_state", "1 for the state the line's gate link is in.", ["line", "state"])
gate_round_trip_seconds = Histogram("castline_gate_round_trip_seconds", "From a command to the board's answer.", ["line"], buckets=_SHORT_S)
gate_resends = Counter("castline_gate_resends_total", "Commands sent to the board again.", ["line"])
gate_faults = Counter("castline_gate_faults_total", "Faults that the board reported, by code.", ["line", "code"])
gate_moves = Counter("castline_gate_moves_total", "Movements of the gate that the board reported.", ["line"])
verdict_tell_seconds = Histogram(
    "castline_verdict_tell_seconds",
    "From a verdict's decision to the board's acknowledgement.",
    ["line"],
    buckets=_AGE_S,
)
parts_sorted = Counter("castline_parts_sorted_total", "Parts that the board reported at the gate.", ["line", "action", "reason"])
verdicts_late = Counter("castline_verdicts_late_total", "Verdicts that came after their part had gone.", ["line"])
parts_counted = Counter("castline_parts_counted_total", "Parts that photo-eye 1 counted.", ["line"])
part_reports_failed = Counter("castline_part_reports_failed_total", "Part reports that the gateway did not take.", ["line"])

# Archivist
records_archived = Counter("castline_records_archived_total", "Records that the archive has, by kind; repeats count.", ["kind"])
archive_rows = Counter("castline_archive_rows_total", "Rows of parts made or changed in the database.")
archive_write_seconds = Histogram("castline_archive_write_seconds", "One transaction of the archive.", buckets=_SHORT_S)
pictures_kept = Counter("castline_pictures_kept_total", "Pictures put into the object store to be kept.")
pictures_gone = Counter("castline_pictures_gone_total", "Pictures that were to be kept and could not be had any more.")
archive_dropped = Counter("castline_archive_dropped_total", "What retention dropped: `rows`, `pictures`, `strays`.", ["what"])
archive_kept_bytes = Gauge("castline_archive_kept_bytes", "Bytes of kept pictures.")
archive_pictures_wanted = Gauge("castline_archive_pictures_wanted", "Pictures that are to be kept and not yet fetched.")

# Station
review_queue_parts = Gauge("castline_review_queue_parts", "Parts that wait for a person, by whose turn it is.", ["state"])
review_queue_oldest_seconds = Gauge(
    "castline_review_queue_oldest_seconds", "How long the part that waits longest has waited for a person; 0 where none waits."
)
review_overdue_seconds = Gauge("castline_review_overdue_seconds", "How long a part may wait for a person, as set.")

# Every process
event_loop_delay_seconds = Histogram("castline_event_loop_delay_seconds", "How late the event loop woke.", ["role"], buckets=_SHORT_S)
process_stalled = Gauge(
    "castline_process_stalled", "1 when /healthz complains: work waits and none is finished, or a part has ended.", ["role"]
)
process_ready = Gauge("castline_process_ready", "1 when the process takes work.", ["role"])


# Prometheus sees no increase in a counter whose first value is 1: what an alert waits for begins at 0.
_SEEN = {
    "gateway": (pictures_received, pictures_sent, picture_bytes, unmatched_pictures, unmatched_parts),
    "inspector": (verdicts_overdue, disagreements, findings, findings_dropped, findings_failed),
    "archivist": (),
    "sorter": (gate_resends, gate_moves, verdicts_late, parts_counted, part_reports_failed),
}
_REFUSALS = ("spool-full", "too-large", "refused-by-kafka")
_LETTERS = {
    "inspector": ("identity", "not-an-image", "truncated", "damaged", "empty", "inference-failed"),
    "sorter": ("verdict",),
    "archivist": ("not-a-record", "other-line", "empty", "identity", "refused-by-archive"),
}
_SORTINGS = (
    *(("diverted", reason) for reason in ("verdict", "no-verdict", "late-verdict", "fault")),
    *(("passed", reason) for reason in ("verdict", "no-verdict", "late-verdict", "fault")),
    *(("stopped", reason) for reason in ("no-verdict", "late-verdict", "fault")),
    *(("untracked", reason) for reason in ("board-restarted", "unmatched", "taken-off")),
)


def initialise_counters(role: str, line: str, fault_codes: Iterable[int] = ()) -> None:
    """Shows the counters of `role` for `line` at 0, before anything is counted. `fault_codes` are those a board may report."""
    for counter in _SEEN[role]:
        counter.labels(line)
    for reason in _LETTERS.get(role, ()):
        dead_letters.labels(line, reason)
    if role == "gateway":
        for reason in _REFUSALS:
            pictures_refused.labels(line, reason)
    if role == "sorter":
        for action, reason in _SORTINGS:
            parts_sorted.labels(line, action, reason)
        for code in fault_codes:
            gate_faults.labels(line, str(code))
