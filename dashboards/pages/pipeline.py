"""The dashboard "Castline: pipeline": where time and lag build up, and the alerts about processes, queues and disks."""

from __future__ import annotations

from dashboards.pages import kafka, plant
from dashboards.panels import DashboardPage, Query, rising, timeseries_panel
from dashboards.promql import LINE, PLANT, p50, p99, rate, select
from dashboards.rules import Alert, Runbook

_LAG = f'castline_consumer_lag_records{{{LINE},role="inspector"}}'
# A metric without labels appears on the metrics page of every process, with the value 0 if the process does not set it.
_INSPECTOR = 'role="inspector"'
_ARCHIVIST = 'role="archivist"'

WAITING = "How many pictures wait for an inspector?"
REFUSED = "Which pictures does the gateway refuse?"
COMPLAINTS = "What has a person to mend at the cameras?"
DEAD_LETTERS = "What could not be judged, and why?"
STALLED = "Which process gets nothing done?"
EVENT_LOOP = "How late do the event loops wake?"


def _p99(metric: str, by: str) -> str:
    return p99(metric, by, scope=PLANT)


PAGE = DashboardPage(
    "castline-pipeline",
    "Castline: pipeline",
    "Where do time and lag build up? The panels follow the way of a picture.",
    (
        timeseries_panel(
            "In which stage does a picture spend its time?",
            Query(_p99("castline_send_seconds", "plant"), "camera to Kafka"),
            Query(_p99("castline_decode_seconds", "plant"), "decoding"),
            Query(_p99("castline_batch_wait_seconds", "plant"), "waiting for a batch"),
            Query(_p99("castline_inference_seconds", "plant"), "networks"),
            Query(_p99("castline_deliver_seconds", "plant"), "verdict to Kafka"),
            Query(_p99("castline_verdict_tell_seconds", "plant"), "verdict to the board"),
            unit="s",
            description="99th percentile of each stage. If verdicts are late, look at the stage whose time has grown.",
            alerts=("VerdictsTooOld",),
        ),
        timeseries_panel(
            WAITING,
            Query(f"sum by (line) ({_LAG})", "{{line}}"),
            Query(f'sum by (line) (castline_consumer_lag_records{{{LINE},role="sorter"}})', "{{line}} verdicts for the sorter"),
            unit="short",
            description="Records on the brokers that no worker has finished. The number should fall back to a few within seconds.",
            thresholds=rising(30, 300),
            alerts=("LagGrowing",),
        ),
        timeseries_panel(
            "How old is the oldest picture that is not judged?",
            f"max by (line) (castline_consumer_lag_seconds{{{LINE}}})",
            unit="s",
            description="The lag in seconds. A part on the belt waits this long for its verdict.",
            thresholds=rising(1, 3),
        ),
        timeseries_panel(
            "How many pictures has each inspector fetched and not judged?",
            Query(select("castline_buffered_pictures", _INSPECTOR, PLANT), "{{instance_name}}"),
            unit="short",
            description="The setting `inspector.buffer` bounds this number. At the bound, further pictures wait in Kafka.",
            thresholds=rising(128, 256),
        ),
        timeseries_panel(
            "How full are the batches?",
            Query(p50("castline_batch_pictures", "instance_name", _INSPECTOR, scope=PLANT), "{{instance_name}} median"),
            Query(p99("castline_batch_pictures", "instance_name", _INSPECTOR, PLANT), "{{instance_name}} 99 %"),
            unit="short",
            description="If batches are always full, the networks are the bottleneck. If they always hold one picture, there is computing "
            "power to spare, or `batch.max_wait_s` is too short.",
        ),
        timeseries_panel(
            "How long do the networks take, by runtime?",
            Query(_p99("castline_inference_seconds", "instance_name, runtime"), "{{instance_name}} {{runtime}} 99 %"),
            Query(p50("castline_inference_seconds", "instance_name, runtime", scope=PLANT), "{{instance_name}} {{runtime}} median"),
            unit="s",
            description="Time for one batch. The time grows when another program computes on the machine.",
        ),
        timeseries_panel(
            REFUSED,
            Query(rate("castline_pictures_refused_total", "line, reason"), "{{line}} {{reason}}"),
            unit="cps",
            description="The part of a refused picture is never judged.",
            thresholds=rising(0.0001, 0.01),
            alerts=("PicturesRefused",),
        ),
        timeseries_panel(
            COMPLAINTS,
            Query(f"max by (line) ({select('castline_camera_complaints')})", "{{line}} complaints"),
            Query(rate("castline_pictures_lost_total", "line, reason"), "{{line}} pictures lost: {{reason}}"),
            Query(rate("castline_files_put_aside_total", "line, reason"), "{{line}} files put aside: {{reason}}"),
            Query(rate("castline_files_incomplete_total"), "{{line}} files without their end"),
            Query(rate("castline_files_changed_after_move_total"), "{{line}} files changed after they were taken"),
            Query(rate("castline_files_ignored_total", "line, reason"), "{{line}} entries ignored: {{reason}}"),
            Query(rate("castline_camera_failures_total"), "{{line}} interruptions of the camera"),
            unit="short",
            description="Complaints stand as sentences on the page /healthz of the gateway. They say which file, folder or stream is "
            "meant and what to change at the camera. The other curves are events a second.",
            thresholds=rising(0.0001, 1),
            alerts=("CameraComplains", "PicturesLost"),
        ),
        timeseries_panel(
            DEAD_LETTERS,
            Query(rate("castline_dead_letters_total", "line, reason"), "{{line}} {{reason}}"),
            Query(rate("castline_batches_split_total", "instance_name", _INSPECTOR, scope=PLANT), "{{instance_name}} batch split"),
            unit="cps",
            description="Records that were set aside on the topic `castings.dead-letters`. `castline dead-letters list` shows them.",
            thresholds=rising(0.001, 0.1),
            alerts=("DeadLettersRising", "BatchesSplit"),
        ),
        timeseries_panel(
            "Does the archive keep up?",
            Query(f'sum by (line) (castline_consumer_lag_records{{{LINE},role="archivist"}})', "{{line}} records wait"),
            Query(rate("castline_records_archived_total", "kind", scope=PLANT), "{{kind}} a second"),
            Query(rate("castline_archive_rows_total", "plant", _ARCHIVIST, PLANT), "rows written a second"),
            unit="short",
            description="Records that wait for the archivist are missing on the station's pages. They are not lost, because Kafka keeps "
            "them.",
            thresholds=rising(1000, 100_000),
        ),
        timeseries_panel(
            "How long does the archive's database take?",
            Query(p99("castline_archive_write_seconds", "instance_name", _ARCHIVIST, PLANT), "{{instance_name}} 99 %"),
            Query(p50("castline_archive_write_seconds", "instance_name", _ARCHIVIST, scope=PLANT), "{{instance_name}} median"),
            unit="s",
            description="Time for one transaction of at most `archivist.batch` records. If the time grows with the table, look at the "
            "disk.",
            thresholds=rising(0.5, 5),
        ),
        timeseries_panel(
            "Which pictures does the archive keep, and which does it drop?",
            Query(rate("castline_pictures_kept_total", "plant", _ARCHIVIST, PLANT), "kept a second"),
            Query(rate("castline_pictures_gone_total", "plant", _ARCHIVIST, PLANT), "no longer available a second"),
            Query(select("castline_archive_pictures_wanted", _ARCHIVIST, PLANT), "wait to be fetched"),
            Query(rate("castline_archive_dropped_total", "what", scope=PLANT), "{{what}} dropped a second"),
            unit="short",
            description="The image topic keeps a picture for `topics.image_hours`. A picture that waits longer to be fetched is lost for "
            "the archive.",
            thresholds=rising(1000, 10_000),
        ),
        timeseries_panel(
            "How much disk do the archive's pictures take?",
            Query(select("castline_archive_kept_bytes", _ARCHIVIST, PLANT), "{{instance_name}}"),
            unit="bytes",
            description="Above `archivist.keep_bytes` the oldest pictures are dropped.",
        ),
        timeseries_panel(
            STALLED,
            Query(f"castline_process_stalled{{{PLANT}}}", "{{instance_name}}"),
            unit="short",
            description="1 means that work waits and the process finishes none, or that a part of the process has ended. The process's "
            "page /healthz gives the reason.",
            thresholds=rising(0.5, 1),
            alerts=("WorkerStalled",),
        ),
        timeseries_panel(
            EVENT_LOOP,
            Query(_p99("castline_event_loop_delay_seconds", "instance_name"), "{{instance_name}}"),
            unit="s",
            description="Delay of the process's event loop, 99th percentile. Above one second, heartbeats and commits to Kafka come late.",
            thresholds=rising(0.1, 1),
            alerts=("EventLoopBlocked",),
        ),
        timeseries_panel(
            "Which process uses the processors?",
            Query(f'rate(process_cpu_seconds_total{{job="castline",{PLANT}}}[$__rate_interval])', "{{instance_name}}"),
            unit="short",
            description="Processor cores used. When the sum reaches the cores of the machine, every process becomes slower.",
        ),
        timeseries_panel(
            "Does a process's memory grow?",
            Query(f'process_resident_memory_bytes{{job="castline",{PLANT}}}', "{{instance_name}}"),
            Query(f'process_open_fds{{job="castline",{PLANT}}}', "{{instance_name}} open files"),
            unit="bytes",
            description="All queues are bounded, so memory that rises over days is a leak.",
            thresholds=rising(3e9, 6e9),
            alerts=("BatchesSplit",),
        ),
    ),
)

ALERTS: tuple[Alert, ...] = (
    Alert(
        "NoInspector",
        'count by (plant) (castline_process_ready) unless on (plant) (sum by (plant) (castline_process_ready{role="inspector"}) > 0)',
        "30s",
        "critical",
        "no inspector is ready in {{ $labels.plant }}, so no picture is judged",
        plant.PAGE.uid,
        plant.PROCESSES,
        Runbook(
            "The processes of the plant run, but none of its inspectors is ready.",
            "No part is judged, and every part of every line is treated by the line's safe action.",
            "Read the inspectors' log. It names a model version that was refused, Kafka that does not answer, or a lack of memory. "
            "`castline models list` verifies the versions.",
            "Start the inspectors. If a new version is refused, run `castline models roll-back`.",
        ),
    ),
    Alert(
        "ProcessDown",
        'up{job="castline"} == 0',
        "1m",
        "critical",
        "{{ $labels.instance_name }} does not answer on its metrics page",
        plant.PAGE.uid,
        plant.PROCESSES,
        Runbook(
            "A process that has registered for monitoring does not answer. It was killed, it hangs, or its machine cannot be reached.",
            "The impact depends on the role. Without its sorter a line gets no verdicts at its gate; without its gateway no camera of the "
            "machine delivers pictures.",
            "Check that the machine can be reached. `castline up` writes into its log why it restarts a process.",
            "Start the process. If it was removed for good, delete the file that it left in `<run_dir>/targets`.",
        ),
    ),
    Alert(
        "WorkerStalled",
        "castline_process_stalled > 0",
        "1m",
        "critical",
        "{{ $labels.instance_name }} runs but gets nothing done",
        PAGE.uid,
        STALLED,
        Runbook(
            "Work waits for the process, and it has finished none for `service.stall_s`, or a part of the process has ended.",
            "Parts of the process's lines reach the gate without a verdict, although the process seems to be alive.",
            "Run `curl <address>/healthz`, which gives the reason. The address stands in `<run_dir>/targets/<instance>.json`.",
            "`castline up` and Kubernetes restart the process after a while. To restart it by hand, send SIGTERM and start it again; "
            "nothing is lost.",
        ),
    ),
    Alert(
        "ProcessNotReady",
        "castline_process_ready == 0",
        "3m",
        "warning",
        "{{ $labels.instance_name }} has not been ready for 3 minutes",
        plant.PAGE.uid,
        plant.PROCESSES,
        Runbook(
            "The process runs but takes no work, because Kafka, the board, the model or the object store is missing.",
            "If an inspector is not ready, the others take over its parts. If a sorter is not ready, no verdict reaches its line's gate.",
            "Run `curl <address>/readyz`, which names what is missing.",
            "Restore the service that the page /readyz names, for instance Kafka, the board or the object store.",
        ),
    ),
    Alert(
        "LagGrowing",
        "line:castline_consumer_lag_records:sum > 30 and deriv(line:castline_consumer_lag_records:sum[5m]) > 0",
        "3m",
        "warning",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} pictures wait for an inspector, and there are more every minute',
        PAGE.uid,
        WAITING,
        Runbook(
            "The cameras deliver more pictures than the inspectors judge.",
            "Verdicts come later and later, until they come after their part has passed the gate.",
            "Look at the batches on the Pipeline dashboard. Full batches mean too little computing power; small ones mean that something "
            "else is slow.",
            "Start one more inspector for each that is at its limit, at most one for each image partition. Look for other programs that "
            "compute on the machine.",
        ),
    ),
    Alert(
        "SpoolFilling",
        "castline_spool_bytes / castline_spool_limit_bytes > 0.5 "
        "or (predict_linear(castline_spool_bytes[10m], 3600) > castline_spool_limit_bytes and castline_spool_bytes > 1e6)",
        "1m",
        "warning",
        "{{ $labels.instance_name }}: the spool on disk is filling up, because Kafka does not confirm the pictures",
        kafka.PAGE.uid,
        kafka.SPOOL_SHARE,
        Runbook(
            "Pictures wait in the spool, the gateway's queue on disk, because Kafka does not confirm them. The spool is half full, or "
            "will be full in an hour.",
            "Parts whose pictures wait get no verdict in time. When the spool is full, pictures are refused and those parts are never "
            "judged.",
            "Look on the Kafka dashboard whether the broker is away or slow. Run `df` on the gateway's machine.",
            "Bring Kafka back; the gateway then sends the pictures by itself, the oldest first. Raise `gateway.spool_max_bytes` if the "
            "disk has room.",
        ),
    ),
    Alert(
        "PicturesRefused",
        "sum by (plant, line, reason) (increase(castline_pictures_refused_total[10m])) > 0",
        "0m",
        "critical",
        '{{ $labels.line }}: the gateway refused {{ $value | printf "%.0f" }} pictures in 10 minutes, reason {{ $labels.reason }}',
        PAGE.uid,
        REFUSED,
        Runbook(
            "The gateway did not accept pictures. The reason is `spool-full`, `too-large` or `refused-by-kafka`.",
            "The parts on these pictures are never judged.",
            "Read the reason in the alert's text.",
            "For `spool-full` see SpoolFilling. For `too-large` change the camera's settings or `pictures.max_bytes`. For "
            "`refused-by-kafka` raise the largest record size of topic and broker, or give the gateway the right to write.",
        ),
    ),
    Alert(
        "CameraComplains",
        "max by (plant, line) (castline_camera_complaints) > 0",
        "1m",
        "warning",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} complaints about the camera or its folder',
        PAGE.uid,
        COMPLAINTS,
        Runbook(
            "The gateway found something at the camera, its folder or its stream that only a person can mend. The other lines go on.",
            "Pictures may be missing, and their parts get no verdict. Files that are put aside are tried again from time to time.",
            "Run `curl <address>/healthz` of the gateway, which gives each complaint as a sentence. The address stands in "
            "`<run_dir>/targets/<instance>.json`.",
            "Do what the sentence says. The page docs/cameras.md explains each of them. `castline gateway try <line>` shows what would "
            "become of the camera's pictures.",
        ),
    ),
    Alert(
        "PicturesLost",
        "sum by (plant, line, reason) (increase(castline_pictures_lost_total[10m])) > 0",
        "0m",
        "critical",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} pictures were lost in 10 minutes before they could be read, reason '
        "{{ $labels.reason }}",
        PAGE.uid,
        COMPLAINTS,
        Runbook(
            "The camera delivered pictures that were gone before the gateway could read them. The reason `overwritten` means that the next "
            "picture came under the same name too soon, `not-readable` that a file of a replay is gone or has no right to be read.",
            "The parts on these pictures get no verdict. The board treats them by the line's safe action.",
            "The page /healthz of the gateway names the file.",
            "For `overwritten` let the camera number its files or put the time into their names. For `not-readable` restore the files, or "
            "give the gateway the right to read them.",
        ),
    ),
    Alert(
        "DeadLettersRising",
        "sum by (plant, line, reason) (increase(castline_dead_letters_total[10m])) > 3",
        "0m",
        "warning",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} pictures could not be judged in 10 minutes, reason {{ $labels.reason }}',
        PAGE.uid,
        DEAD_LETTERS,
        Runbook(
            "Records were set aside on the topic `castings.dead-letters`, and each of these parts got the verdict `review`.",
            "The parts are treated by the line's setting `on_review`, and a person has to look at them.",
            "Run `castline dead-letters list`. `castline dead-letters save` writes the pictures to files.",
            "For `truncated` and `damaged` check the camera's cable and disk. For `not-an-image` find the program that writes other files "
            "into the camera's folder. For `identity` correct the producer that does not name line, run and part.",
        ),
    ),
    Alert(
        "BatchesSplit",
        "sum by (plant, instance_name) (increase(castline_batches_split_total[10m])) > 0",
        "0m",
        "warning",
        "{{ $labels.instance_name }}: the networks failed on a batch, so its pictures were judged one by one",
        PAGE.uid,
        DEAD_LETTERS,
        Runbook(
            "A picture or a lack of memory made the networks fail. The inspector split the batch until the picture at fault stood alone.",
            "One part of the batch has the verdict `review`, and all parts of the batch got their verdict later than usual.",
            "The inspector's log names the part and the error. Look at the process's memory on the Pipeline dashboard.",
            "If memory ran out, lower `batch.size` or run fewer inspectors on the machine. Otherwise keep the picture and report the "
            "error.",
        ),
    ),
    Alert(
        "EventLoopBlocked",
        "histogram_quantile(0.99, sum by (plant, instance_name, le) (rate(castline_event_loop_delay_seconds_bucket[5m]))) > 1",
        "5m",
        "warning",
        "{{ $labels.instance_name }}: the event loop wakes {{ $value | humanizeDuration }} late",
        PAGE.uid,
        EVENT_LOOP,
        Runbook(
            "Something blocks the event loop of the process, so commits, heartbeats and deliveries come late.",
            "Kafka may take the worker for dead and give its partitions to others, again and again. Verdicts are late meanwhile.",
            "Look at the processor use on the Pipeline dashboard. Are all cores of the machine busy?",
            "Run fewer processes on the machine, or lower `model.threads` so that the networks leave one core free.",
        ),
    ),
)
