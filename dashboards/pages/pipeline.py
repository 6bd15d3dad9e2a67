"""Pipeline: where do time and lag build up?"""

from __future__ import annotations

from dashboards.panels import Page, Query, rising, trend
from dashboards.queries import LINE, PLANT, p50, p99, rate, selected

_LAG = f'castline_consumer_lag_records{{{LINE},role="inspector"}}'

# A metric without labels is on every process' page, at 0 where nobody sets it.
_INSPECTOR = 'role="inspector"'
_ARCHIVIST = 'role="archivist"'


def _p99(metric: str, by: str) -> str:
    return p99(metric, by, scope=PLANT)


PAGE = Page(
    "castline-pipeline",
    "Castline: pipeline",
    "Where do time and lag build up? Read from left to right, as a picture goes.",
    (
        trend(
            "Where is a picture's time spent?",
            Query(_p99("castline_send_seconds", "plant"), "camera to Kafka"),
            Query(_p99("castline_decode_seconds", "plant"), "decoding"),
            Query(_p99("castline_batch_wait_seconds", "plant"), "waiting for a batch"),
            Query(_p99("castline_inference_seconds", "plant"), "networks"),
            Query(_p99("castline_deliver_seconds", "plant"), "verdict to Kafka"),
            Query(_p99("castline_verdict_tell_seconds", "plant"), "verdict to the board"),
            unit="s",
            why="99th percentile of each stage; the one that has grown is where to look.",
            alerts=("VerdictsTooOld",),
        ),
        trend(
            "How many pictures wait for an inspector?",
            Query(f"sum by (line) ({_LAG})", "{{line}}"),
            Query(f'sum by (line) (castline_consumer_lag_records{{{LINE},role="sorter"}})', "{{line}} verdicts for the sorter"),
            unit="short",
            why="Records on the brokers that no worker has finished. It should come back to a few within seconds.",
            steps=rising(30, 300),
            alerts=("LagGrowing",),
        ),
        trend(
            "How old is the oldest picture in hand?",
            f"max by (line) (castline_consumer_lag_seconds{{{LINE}}})",
            unit="s",
            why="The same lag in seconds: what a part on the belt feels.",
            steps=rising(1, 3),
        ),
        trend(
            "How many pictures has each inspector fetched and not judged?",
            Query(selected("castline_buffered_pictures", _INSPECTOR, PLANT), "{{instance_name}}"),
            unit="short",
            why="Bounded by `inspector.buffer`; at the bound, Kafka keeps the rest.",
            steps=rising(128, 256),
        ),
        trend(
            "How full are the batches?",
            Query(p50("castline_batch_pictures", "instance_name", _INSPECTOR, scope=PLANT), "{{instance_name}} half"),
            Query(p99("castline_batch_pictures", "instance_name", _INSPECTOR, PLANT), "{{instance_name}} 99 %"),
            unit="short",
            why="Always full: the networks are the limit. Always 1: there is room, or `batch.max_wait_s` is too short.",
        ),
        trend(
            "How long do the networks take, by runtime?",
            Query(_p99("castline_inference_seconds", "instance_name, runtime"), "{{instance_name}} {{runtime}} 99 %"),
            Query(p50("castline_inference_seconds", "instance_name, runtime", scope=PLANT), "{{instance_name}} {{runtime}} half"),
            unit="s",
            why="For one batch. It grows when something else computes on the machine.",
        ),
        trend(
            "Are pictures refused at the door?",
            Query(rate("castline_pictures_refused_total", "line, reason"), "{{line}} {{reason}}"),
            unit="cps",
            why="A refused picture's part is never judged.",
            steps=rising(0.0001, 0.01),
            alerts=("PicturesRefused",),
        ),
        trend(
            "What could not be judged, and why?",
            Query(rate("castline_dead_letters_total", "line, reason"), "{{line}} {{reason}}"),
            Query(rate("castline_batches_split_total", "instance_name", _INSPECTOR, scope=PLANT), "{{instance_name}} batch split"),
            unit="cps",
            why="Parked on `castings.dead-letters`; look with `castline dead-letters list`.",
            steps=rising(0.001, 0.1),
            alerts=("DeadLettersRising", "BatchesSplit"),
        ),
        trend(
            "Does the archive keep up?",
            Query(f'sum by (line) (castline_consumer_lag_records{{{LINE},role="archivist"}})', "{{line}} records wait"),
            Query(rate("castline_records_archived_total", "kind", scope=PLANT), "{{kind}} a second"),
            Query(rate("castline_archive_rows_total", "plant", _ARCHIVIST, PLANT), "rows made or changed a second"),
            unit="short",
            why="Records that wait for the archivist are on no page of the station yet. Nothing is lost while Kafka keeps them.",
            steps=rising(1000, 100_000),
        ),
        trend(
            "How long does the archive's database take?",
            Query(p99("castline_archive_write_seconds", "instance_name", _ARCHIVIST, PLANT), "{{instance_name}} 99 %"),
            Query(p50("castline_archive_write_seconds", "instance_name", _ARCHIVIST, scope=PLANT), "{{instance_name}} half"),
            unit="s",
            why="One transaction, at most `archivist.batch` records. When it grows with the table, look at the disk.",
            steps=rising(0.5, 5),
        ),
        trend(
            "Which pictures are kept, and which are dropped?",
            Query(rate("castline_pictures_kept_total", "plant", _ARCHIVIST, PLANT), "kept a second"),
            Query(rate("castline_pictures_gone_total", "plant", _ARCHIVIST, PLANT), "could not be had a second"),
            Query(selected("castline_archive_pictures_wanted", _ARCHIVIST, PLANT), "wait to be fetched"),
            Query(rate("castline_archive_dropped_total", "what", scope=PLANT), "{{what}} dropped a second"),
            unit="short",
            why="A picture that waits longer than the image topic keeps it (`topics.image_hours`) is gone.",
            steps=rising(1000, 10_000),
        ),
        trend(
            "How large are the kept pictures?",
            Query(selected("castline_archive_kept_bytes", _ARCHIVIST, PLANT), "{{instance_name}}"),
            unit="bytes",
            why="Beyond `archivist.keep_bytes` the oldest are dropped.",
        ),
        trend(
            "Which process complains about itself?",
            Query(f"castline_process_stalled{{{PLANT}}}", "{{instance_name}}"),
            unit="short",
            why="1: work waits and none is finished, or a part of the process has ended. /healthz says which.",
            steps=rising(0.5, 1),
            alerts=("WorkerStalled",),
        ),
        trend(
            "Is a process out of breath?",
            Query(_p99("castline_event_loop_delay_seconds", "instance_name"), "{{instance_name}}"),
            unit="s",
            why="How late its event loop wakes. Past a second, heartbeats and commits suffer.",
            steps=rising(0.1, 1),
            alerts=("EventLoopBlocked",),
        ),
        trend(
            "Who uses the processors?",
            Query(f'rate(process_cpu_seconds_total{{job="castline",{PLANT}}}[$__rate_interval])', "{{instance_name}}"),
            unit="short",
            why="Cores. When their sum is the machine's, everything waits for everything.",
        ),
        trend(
            "Does a process's memory grow?",
            Query(f'process_resident_memory_bytes{{job="castline",{PLANT}}}', "{{instance_name}}"),
            Query(f'process_open_fds{{job="castline",{PLANT}}}', "{{instance_name}} open files"),
            unit="bytes",
            why="All queues are bounded: memory that rises over days is a leak.",
            steps=rising(3e9, 6e9),
            alerts=("BatchesSplit",),
        ),
    ),
)
