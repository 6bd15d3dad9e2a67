"""The dashboard "Castline: pipeline" shows where pictures and records wait, and for how long.

This module also defines the alerts about processes, queues and disks.
"""

from __future__ import annotations

from dashboards.pages import kafka, plant
from dashboards.panels import DashboardPage, Query, rising, timeseries_panel
from dashboards.promql import LINE, PLANT, p50, p99, rate, select
from dashboards.rules import Alert, Runbook

_LAG = f'castline_consumer_lag_records{{{LINE},role="inspector"}}'
# Several roles can export the same metric, but only one of them sets its value. In the other roles, the value is always 0. So a query names
# the role whose value it reads.
_INSPECTOR = 'role="inspector"'
_ARCHIVIST = 'role="archivist"'

WAITING = "How many pictures wait for an inspector?"
ARCHIVED_PICTURES = "Which pictures does the archive keep, and which does it drop?"
FURTHER_WORK = "How long do kinds of defect and small defects take?"
REFUSED = "Which pictures does the gateway refuse?"
COMPLAINTS = "Which cameras need a person?"
DEAD_LETTERS = "What could not be judged, and why?"
STALLED = "Which process gets nothing done?"
WRONG_TOKENS = "Who sends wrong tokens to the gateway?"
AUDIT_COPY = "Does the log server get the audit log?"
EVENT_LOOP = "How late do the event loops wake?"


def _p99(metric: str, by: str) -> str:
    return p99(metric, by, scope=PLANT)


PAGE = DashboardPage(
    "castline-pipeline",
    "Castline: pipeline",
    "Where do pictures lose time, and where do records wait? The panels follow a picture from the camera to the archive.",
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
            description="Time that pictures spend in each stage: 99 of 100 pictures need at most this time. If verdicts are late, look at "
            "the stage whose time has grown.",
            alerts=("VerdictsTooOld",),
        ),
        timeseries_panel(
            WAITING,
            Query(f"sum by (line) ({_LAG})", "{{line}}"),
            Query(f'sum by (line) (castline_consumer_lag_records{{{LINE},role="sorter"}})', "{{line}} verdicts for the sorter"),
            Query(rate("castline_records_expired_total"), "{{line}} records that expired unread, per second"),
            unit="short",
            description="Pictures that wait on the brokers for an inspector, and verdicts that wait for a sorter. After a rise, each "
            "number should fall to nearly 0 within seconds.",
            thresholds=rising(30, 300),
            alerts=("LagGrowing", "RecordsExpired"),
        ),
        timeseries_panel(
            "How old is the oldest picture that is not judged?",
            f"max by (line) (castline_consumer_lag_seconds{{{LINE}}})",
            unit="s",
            description="Age of the oldest picture that an inspector has fetched but not judged yet. A part on the belt waits about this "
            "long for its verdict.",
            thresholds=rising(1, 3),
        ),
        timeseries_panel(
            "How many pictures has each inspector fetched and not judged?",
            Query(select("castline_buffered_pictures", _INSPECTOR, PLANT), "{{machine}} {{instance_name}}"),
            unit="short",
            description="Pictures that an inspector has fetched from Kafka but not judged yet. The setting `inspector.buffer` limits "
            "their number. When the limit is reached, further pictures wait in Kafka.",
            thresholds=rising(128, 256),
        ),
        timeseries_panel(
            "How full are the batches?",
            Query(
                p50("castline_batch_pictures", "machine, instance_name", _INSPECTOR, scope=PLANT), "{{machine}} {{instance_name}} median"
            ),
            Query(p99("castline_batch_pictures", "machine, instance_name", _INSPECTOR, PLANT), "{{machine}} {{instance_name}} 99 %"),
            unit="short",
            description="Number of pictures in a batch. If the batches are always full, the networks are the bottleneck. If each batch "
            "holds only one picture, there is computing power to spare, or `batch.max_wait_s` is too short.",
        ),
        timeseries_panel(
            "How long do the networks take, by runtime?",
            Query(_p99("castline_inference_seconds", "machine, instance_name, runtime"), "{{machine}} {{instance_name}} {{runtime}} 99 %"),
            Query(
                p50("castline_inference_seconds", "machine, instance_name, runtime", scope=PLANT),
                "{{machine}} {{instance_name}} {{runtime}} median",
            ),
            unit="s",
            description="Time that the networks need for one batch of pictures. The time grows when another program uses the machine's "
            "processors.",
        ),
        timeseries_panel(
            FURTHER_WORK,
            Query(_p99("castline_kind_seconds", "machine, instance_name"), "{{machine}} {{instance_name}} naming types of defect, 99 %"),
            Query(
                _p99("castline_detail_seconds", "machine, instance_name"), "{{machine}} {{instance_name}} searching for small defects, 99 %"
            ),
            Query(rate("castline_details_skipped_total", "line, reason"), "{{line}} pictures a second not searched: {{reason}}"),
            unit="short",
            description="Time to find the types of defect in one batch of pictures, and time to search one large picture for small "
            "defects. A part whose picture could not be searched may have a small defect. So the inspector treats this part as one that "
            "differs from good parts.",
        ),
        timeseries_panel(
            REFUSED,
            Query(rate("castline_pictures_refused_total", "line, reason"), "{{line}} {{reason}}"),
            Query(rate("castline_uploads_timed_out_total"), "{{line}} not stored in time"),
            unit="cps",
            description="Pictures that the gateway refused, by reason. The parts on these pictures get no verdict. The panel also shows "
            "pictures that were not stored in time, because the disk or a camera is slow. The camera should send such a picture again.",
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
            Query(f"min by (line) ({select('castline_camera_up')})", "{{line}} camera is reached"),
            unit="short",
            description="The curve “complaints” shows how many problems the gateway reports for each camera at present. The curve “camera "
            "is reached” is 0 while the gateway cannot reach the camera. The other curves show events a second. The page /healthz of the "
            "gateway says what to change at the camera.",
            thresholds=rising(0.0001, 1),
            alerts=("CameraDown", "CameraComplains", "PicturesLost"),
        ),
        timeseries_panel(
            DEAD_LETTERS,
            Query(rate("castline_dead_letters_total", "line, reason"), "{{line}} {{reason}}"),
            Query(rate("castline_records_refused_total", "role", scope=PLANT), "{{role}}: refused by Kafka"),
            Query(rate("castline_records_skipped_total", "role, kind", scope=PLANT), "{{role}}: {{kind}} skipped"),
            Query(rate("castline_signatures_refused_total", "role, kind", scope=PLANT), "{{role}}: {{kind}} without a valid signature"),
            Query(rate("castline_batches_unreadable_total", "role, kind", scope=PLANT), "{{role}}: batch of {{kind}} cannot be decoded"),
            Query(
                rate("castline_batches_split_total", "machine, instance_name", _INSPECTOR, scope=PLANT),
                "{{machine}} {{instance_name}} batch split",
            ),
            unit="cps",
            description="Records that could not be processed and are now on the topic `castings.dead-letters`; `castline dead-letters "
            "list` shows them. The panel also shows batches that were split because the networks failed.",
            thresholds=rising(0.001, 0.1),
            alerts=("DeadLettersRising", "BatchesSplit", "BatchesUnreadable", "ForgedRecords"),
        ),
        timeseries_panel(
            "Does the archive keep up?",
            Query(f'sum by (line) (castline_consumer_lag_records{{{LINE},role="archivist"}})', "{{line}} records wait"),
            Query(rate("castline_records_archived_total", "kind", scope=PLANT), "{{kind}} a second"),
            Query(rate("castline_archive_rows_total", "plant", _ARCHIVIST, PLANT), "rows written a second"),
            unit="short",
            description="Records that wait for the archivist do not appear on the station's pages yet. They are not lost, because Kafka "
            "keeps them.",
            thresholds=rising(1000, 100_000),
        ),
        timeseries_panel(
            "How long does the archive's database take?",
            Query(p99("castline_archive_write_seconds", "machine, instance_name", _ARCHIVIST, PLANT), "{{machine}} {{instance_name}} 99 %"),
            Query(
                p50("castline_archive_write_seconds", "machine, instance_name", _ARCHIVIST, scope=PLANT),
                "{{machine}} {{instance_name}} median",
            ),
            unit="s",
            description="Time that the archivist needs to write at most `archivist.batch` records into the database in one transaction. "
            "If the time grows while the database grows, the disk may be too slow.",
            thresholds=rising(0.5, 5),
        ),
        timeseries_panel(
            ARCHIVED_PICTURES,
            Query(rate("castline_pictures_kept_total", "plant", _ARCHIVIST, PLANT), "kept a second"),
            Query(rate("castline_pictures_gone_total", "plant", _ARCHIVIST, PLANT), "no longer available a second"),
            Query(select("castline_archive_pictures_wanted", _ARCHIVIST, PLANT), "wait to be fetched"),
            Query(rate("castline_archive_dropped_total", "what", scope=PLANT), "{{what}} dropped a second"),
            Query(select("castline_archive_clock_doubted", _ARCHIVIST, PLANT), "{{machine}} {{instance_name}} does not trust its clock"),
            unit="short",
            description="The image topic keeps a picture for `topics.image_hours`. If the archivist does not fetch a picture within this "
            "time, the archive never gets the picture. While the archivist does not trust its clock, it deletes nothing by age.",
            thresholds=rising(1000, 10_000),
            alerts=("ArchiveClockDoubted",),
        ),
        timeseries_panel(
            "How much disk do the archive's pictures take?",
            Query(select("castline_archive_kept_bytes", _ARCHIVIST, PLANT), "{{machine}} {{instance_name}}"),
            unit="bytes",
            description="When the pictures take more than `archivist.keep_bytes`, the archivist deletes the oldest pictures.",
        ),
        timeseries_panel(
            STALLED,
            Query(f"castline_process_stalled{{{PLANT}}}", "{{machine}} {{instance_name}}"),
            Query(
                f"sum by (machine, instance_name, thread) (increase(castline_thread_failures_total{{{PLANT}}}[10m]))",
                "{{machine}} {{instance_name}} failures of {{thread}}",
            ),
            unit="short",
            description="The value 1 means that records wait but the process completes none of them, or that a task inside the process has "
            "ended. The page /healthz of the process gives the reason. Each curve “failures of” belongs to a thread, and shows how often "
            "this thread has failed in the last ten minutes.",
            thresholds=rising(0.5, 1),
            alerts=("WorkerStalled", "ThreadFailing"),
        ),
        timeseries_panel(
            AUDIT_COPY,
            Query(f"max by (plant, machine, instance_name) (castline_audit_shipping_failing{{{PLANT}}})", "{{machine}} {{instance_name}}"),
            unit="short",
            description="1 means that the station cannot send new entries of the audit log to the server of `station.audit_syslog`. "
            "0 means that the server has all entries, or that the setting is empty.",
            thresholds=rising(0.5, 1),
            alerts=("AuditLogNotShipped",),
        ),
        timeseries_panel(
            WRONG_TOKENS,
            Query(f"sum by (line) (increase(castline_wrong_tokens_total{{{PLANT}}}[10m]))", "{{line}}"),
            unit="short",
            description="Requests in the last ten minutes with a wrong token of the line, or with a wrong `gateway.token`. Either a camera "
            "has an old token, or somebody guesses.",
            thresholds=rising(1, 20),
            alerts=("TokensGuessed",),
        ),
        timeseries_panel(
            EVENT_LOOP,
            Query(_p99("castline_event_loop_delay_seconds", "machine, instance_name"), "{{machine}} {{instance_name}}"),
            unit="s",
            description="How late the event loop of a process wakes up: 99 of 100 delays are shorter than the value shown. If the delay "
            "is longer than one second, heartbeats and commits reach Kafka late.",
            thresholds=rising(0.1, 1),
            alerts=("EventLoopBlocked",),
        ),
        timeseries_panel(
            "Which process uses the processors?",
            Query(f'rate(process_cpu_seconds_total{{job="castline",{PLANT}}}[$__rate_interval])', "{{machine}} {{instance_name}}"),
            unit="short",
            description="Number of processor cores that each process uses. When the sum reaches the number of cores of the machine, every "
            "process becomes slower.",
        ),
        timeseries_panel(
            "Does a process's memory grow?",
            Query(f'process_resident_memory_bytes{{job="castline",{PLANT}}}', "{{machine}} {{instance_name}}"),
            Query(f'process_open_fds{{job="castline",{PLANT}}}', "{{machine}} {{instance_name}} open files"),
            unit="bytes",
            description="All queues have a maximum length, so memory that rises for days is a leak.",
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
        "no inspector of plant {{ $labels.plant }} is ready, so no picture is judged",
        plant.PAGE.uid,
        plant.PROCESSES,
        Runbook(
            "Processes of the plant run, but none of its inspectors is ready.",
            "No part is judged. The boards apply the safe action of their lines (divert, pass or stop) to every part.",
            "Read the log of the inspectors. Usually a model version was refused, Kafka does not answer, or there is too little "
            "memory.\n\n`castline models list` verifies the files of the versions.",
            "Start the inspectors. If a new version was refused, run `castline models roll-back`.",
        ),
    ),
    Alert(
        "ProcessDown",
        'up{job="castline"} == 0',
        "1m",
        "critical",
        "{{ $labels.instance_name }} of {{ $labels.machine }} does not answer on its page /metrics",
        plant.PAGE.uid,
        plant.PROCESSES,
        Runbook(
            "A process that has registered for monitoring does not answer. It was killed, it hangs, or its machine cannot be reached.",
            "The impact depends on the role of the process. Without its sorter, a line gets no verdicts at its gate. Without the gateway "
            "of a machine, the cameras of this machine deliver no pictures.",
            "Check that the machine can be reached. Read the log of `castline up`, which says why it restarted a process.",
            "Start the process. If it was removed for good, delete its file in `<run_dir>/targets`, so that Prometheus no longer expects "
            "the process.",
        ),
    ),
    Alert(
        "ThreadFailing",
        "sum by (plant, machine, instance_name, thread) (increase(castline_thread_failures_total[10m])) > 0",
        "0m",
        "warning",
        "{{ $labels.instance_name }} of {{ $labels.machine }}: "
        'the thread {{ $labels.thread }} failed {{ $value | printf "%.0f" }} times in 10 minutes',
        PAGE.uid,
        STALLED,
        Runbook(
            "A thread of a process failed with an error that its code does not handle. The process has started the thread again.",
            "While the thread pauses, for at most 30 s, its work waits. If the thread fails again and again, its work is never done.",
            "Run `curl <address>/healthz`, which names the thread and the error. The address is in the file "
            "`<run_dir>/targets/<instance>.json`. The log of the process has the traceback.",
            "Remove the cause, such as a full disk. If you find no cause, report the traceback as a fault of Castline.",
        ),
    ),
    Alert(
        "ForgedRecords",
        "sum by (plant, role, kind) (increase(castline_signatures_refused_total[10m])) > 0",
        "0m",
        "critical",
        "{{ $labels.role }} refused records on the topics of {{ $labels.kind }} that no permitted role has signed",
        PAGE.uid,
        DEAD_LETTERS,
        Runbook(
            "A record had no signature, or a wrong one, although `signing.public_keys` is set. Either a process has no key or a wrong "
            "key, or a stranger writes to the topic.",
            "The refused records have no effect. If the inspector has no key, the boards get no verdicts and apply the safe action of "
            "their lines to every part.",
            "`castline dead-letters list` shows the refused records and when they came. Find the machine that writes these records. Its "
            "private keys are in its folder `signing.private_keys`. For each private key, the machine that refuses the records needs the "
            "public key in its folder `signing.public_keys`.",
            "Give the machine its key again. If no machine of yours has written the records, change the passwords of the Kafka users as "
            "docs/kafka-access.md describes, and call `castline topics acls check`.",
        ),
    ),
    Alert(
        "AuditLogNotShipped",
        "max by (plant, machine, instance_name) (castline_audit_shipping_failing) > 0",
        "10m",
        "warning",
        "{{ $labels.instance_name }} of {{ $labels.machine }} has not reached the log server of the audit log for 10 minutes",
        PAGE.uid,
        AUDIT_COPY,
        Runbook(
            "The station cannot send new entries of the audit log to the log server that `station.audit_syslog` names.",
            "The station and all lines go on. The new entries are only in the database. Somebody who can write to the database "
            "could change these entries and compute all hashes again. Without the copies on the log server, nobody would notice this.",
            "The log of the station names the server and the error. Check whether the server runs, and whether a firewall blocks the "
            "connection.",
            "Restore the server or its network, or correct `station.audit_syslog` and restart the station. The station then sends all "
            "missing entries. Afterwards call `castline station audit verify` with the option `--head` and the newest hash that the server "
            "has.",
        ),
    ),
    Alert(
        "TokensGuessed",
        "sum by (plant, line) (increase(castline_wrong_tokens_total[10m])) > 20",
        "0m",
        "warning",
        "the gateway got more than 20 requests with wrong tokens for {{ $labels.line }} in 10 minutes",
        PAGE.uid,
        WRONG_TOKENS,
        Runbook(
            "A camera or a sorter sends a wrong token again and again, or somebody guesses the token of the line.",
            "The pictures of a camera with a wrong token are refused. After ten different wrong tokens from one network address, the "
            "gateway makes this address wait up to 10 s before the next attempt. The wait does not delay a camera that has sent its right "
            "token before.",
            "The page /healthz of the gateway names the address that sent the last wrong token. Check whether this is a camera of yours.",
            "Enter the right token at the camera, or set `CASTLINE_GATEWAY__TOKEN` for gateway and sorters. If a stranger tries to guess "
            "the token, block the address in the network, and check with `castline security check` that the tokens are long enough.",
        ),
    ),
    Alert(
        "WorkerStalled",
        "castline_process_stalled > 0",
        "1m",
        "critical",
        "{{ $labels.instance_name }} of {{ $labels.machine }} runs but finishes no work",
        PAGE.uid,
        STALLED,
        Runbook(
            "The process makes no progress. Either it has finished nothing for `service.stall_s` seconds although work is waiting, or a "
            "task inside the process has ended although it should run all the time.",
            "The process still runs, but it does no work. If it is a gateway, an inspector or a sorter, the parts of its lines reach the "
            "gate without a verdict.",
            "Run `curl <address>/healthz`, which prints the reason. The address is in the file `<run_dir>/targets/<instance>.json`.",
            "`castline up` and Kubernetes restart the process after a while. To restart it yourself, end it with SIGTERM and start it "
            "again. No record is lost.",
        ),
    ),
    Alert(
        "ProcessNotReady",
        "castline_process_ready == 0",
        "3m",
        "warning",
        "{{ $labels.instance_name }} of {{ $labels.machine }} has not been ready for 3 minutes",
        plant.PAGE.uid,
        plant.PROCESSES,
        Runbook(
            "The process runs but takes no work, because something that it needs is missing. This may be Kafka, the board, the model "
            "version or the object store.",
            "If an inspector is not ready, the other inspectors judge its parts. If a sorter is not ready, no verdict reaches the gate of "
            "its line.",
            "Run `curl <address>/readyz`, which names what is missing. The address is in the file `<run_dir>/targets/<instance>.json`.",
            "Restore what the page /readyz of the process names, for instance Kafka, the board or the object store. The process then "
            "continues by itself.",
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
            "The cameras deliver more pictures than the inspectors can judge, so more and more pictures wait.",
            "Verdicts come later and later. In the end, they come after their parts have passed the gate.",
            "On the Pipeline dashboard, open the panel “How full are the batches?”. If they are full, the machine has too little "
            "computing power.\n\nIf the batches are not full, find the slow stage in the panel “In which stage does a picture spend its "
            "time?”.",
            "Start more inspectors, at most one for each partition of the image topics. Look for other programs that use the machine's "
            "processors.",
        ),
    ),
    Alert(
        "RecordsExpired",
        "sum by (plant, line) (increase(castline_records_expired_total[15m])) > 0",
        "0m",
        "critical",
        '{{ $labels.line }}: Kafka deleted {{ $value | printf "%.0f" }} records before they were read',
        PAGE.uid,
        WAITING,
        Runbook(
            "Kafka deleted records before a worker had read them. The records had become too old, or Kafka needed their disk space.",
            "If the records were pictures, their parts have no verdict. A dead letter with the reason `expired` names topic, partition and "
            "offsets. If the records were verdicts or sortings, they are missing in the archive.",
            "Run `castline dead-letters list`. On the Pipeline dashboard, see how many records waited. On the Kafka dashboard, see the "
            "free disk space.",
            "Start more workers of the role that reads these records. To keep records longer, raise `topics.image_hours` or "
            "`topics.record_days`, or give the broker a larger disk.",
        ),
    ),
    Alert(
        "BrokerDiskFilling",
        kafka.BROKER_DISK_IS_FILLING,
        "30s",
        "warning",
        "{{ $labels.machine }}: only {{ $value | humanizePercentage }} of the broker's disk are free",
        kafka.PAGE.uid,
        kafka.BROKER_DISK,
        Runbook(
            "The disk of the embedded broker's data folder is filling up.",
            "If less than 10 % and less than 4 GiB of the disk are free, the broker drops judged pictures. If less than 5 % and less than "
            "512 MiB are free, the broker also drops waiting pictures, then sortings, then verdicts. Findings and dead letters are dropped "
            "last.\n\nIf the disk stays full after the broker has dropped records, files of other programs fill it. The broker then drops "
            "no more records.\n\nWhile the alert `BrokerClockDoubted` fires, the broker drops no records, and Kafka stops when the disk is "
            "full.",
            "Run `df` on the machine of the broker, and `du -s` on `broker.data_dir`. Find out whether Kafka or another program fills the "
            "disk.",
            "Delete files that Castline does not need. If Kafka's data fills the disk, lower `broker.max_bytes`. Then run "
            "`castline topics create` to apply the new limit.",
        ),
    ),
    Alert(
        "BrokerDropsRecords",
        "sum by (plant, machine, what) (increase(castline_broker_drops_total[15m])) > 0",
        "0m",
        "critical",
        "{{ $labels.machine }}: the broker dropped records of the kind {{ $labels.what }}, because its disk is nearly full",
        kafka.PAGE.uid,
        kafka.BROKER_DISK,
        Runbook(
            "The disk of the embedded broker is nearly full, so the broker dropped its oldest records of one kind.",
            "The alert names the kind of the dropped records. Records of the kind `judged-pictures` are needed only for heat maps and for "
            "the archive. If the kind is `waiting-pictures`, the parts on these pictures get no verdict. Records of the kind `evidence` "
            "are findings and dead letters.",
            "Run `df` on the machine of the broker. The log of the broker names each kind of records that was dropped.",
            "Free space on the disk at once. Then give the broker a larger disk, or lower `broker.max_bytes`.",
        ),
    ),
    Alert(
        "BrokerClockDoubted",
        "castline_broker_clock_doubted == 1",
        "10m",
        "warning",
        "{{ $labels.machine }}: the broker deletes no records, because the clock of its machine was far ahead at the start",
        kafka.PAGE.uid,
        kafka.BROKER_DISK,
        Runbook(
            "The embedded broker remembers the last time at which the clock of its machine was right. When the broker started, the clock "
            "was more than 31 days ahead of this time, so the clock is probably wrong.",
            "With a wrong clock, Kafka would take all records for too old, and would delete them. So Kafka now deletes no records, and "
            "the disk fills. When the disk is full, Kafka stops, but loses none of its records. The gateways keep new pictures in their "
            "spools, as long as the spools have room.",
            "Read the page `/healthz` of the broker, or run `castline security check` on its machine. Compare the clock of the machine "
            "with another clock. Run `df` on this machine. The alert `BrokerDiskFilling` still fires before the disk is full.",
            "Correct the clock, for example with NTP. If the clock is right, because the plant stood still for weeks, delete the file "
            "`clock` in `broker.data_dir`. After either change, the broker ends by itself, and `castline up` starts it again.\n\nIf the "
            "disk is full, free space on this disk.",
        ),
    ),
    Alert(
        "ArchiveClockDoubted",
        "castline_archive_clock_doubted == 1",
        "3h",
        "warning",
        "{{ $labels.machine }}: the archive keeps old parts and pictures, because the archivist's clock may be wrong",
        PAGE.uid,
        ARCHIVED_PICTURES,
        Runbook(
            "The archivist does not trust the clock of its machine. There are two possible reasons. Either the clock is more than 31 days "
            "ahead of the last time that the archivist trusted. Or a person or a program often sets the clock, each time by an hour or "
            "more.",
            "With a wrong clock, the archivist would take all parts and pictures for too old, and would delete them. So until the clock "
            "is corrected or confirmed, the archivist keeps all old parts and pictures. If the clock is really wrong, other processes on "
            "this machine write wrong times into their records.",
            "Read the page `/healthz` of the archivist, and compare the clock of its machine with another clock.",
            "Correct the clock, for example with NTP. If the clock is right, because the plant stood still for weeks, run "
            "`castline station confirm-clock` on this machine.",
        ),
    ),
    Alert(
        "SpoolFilling",
        "(castline_spool_bytes + (castline_spool_write_ahead_bytes or castline_spool_bytes * 0)) / castline_spool_limit_bytes > 0.5 "
        "or (predict_linear(castline_spool_bytes[10m], 3600) > castline_spool_limit_bytes and castline_spool_bytes > 1e6)",
        "1m",
        "warning",
        "{{ $labels.instance_name }} of {{ $labels.machine }}: the spool is filling up, because Kafka does not confirm the pictures",
        kafka.PAGE.uid,
        kafka.SPOOL_SHARE,
        Runbook(
            "Kafka does not confirm the pictures, so they wait in the spool, the gateway's queue on disk. The spool is half full, or will "
            "be full within an hour.",
            "The parts on the waiting pictures get no verdict in time. When the spool is full, the gateway refuses new pictures, and "
            "their parts are never judged.",
            "On the Kafka dashboard, check whether the broker is slow or cannot be reached. Run `df` on the gateway's machine to see how "
            "much disk space is free.",
            "Make Kafka reachable again. The gateway then sends the waiting pictures by itself, the oldest first. If the disk has room, "
            "raise `gateway.spool_max_bytes`.",
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
            "The gateway refused pictures. The reason is `spool-full` (the queue on disk is full), `too-large` or `refused-by-kafka`.",
            "The parts on the refused pictures get no verdict, so the board applies the line's safe action (divert, pass or stop).",
            "Read the alert's summary, which names the reason why the gateway refused the pictures.",
            "If the reason is `spool-full`, do what the runbook says under `SpoolFilling`. If the reason is `too-large`, make the "
            "camera's pictures smaller, or raise `pictures.max_bytes`.\n\nIf the reason is `refused-by-kafka`, raise the largest record "
            "size of the topic and the broker, or give the gateway the permission to write to the topic.",
        ),
    ),
    Alert(
        "CameraDown",
        "min by (plant, line) (castline_camera_up) < 1",
        "30s",
        "critical",
        "{{ $labels.line }}: the gateway cannot reach the camera or its folder",
        PAGE.uid,
        COMPLAINTS,
        Runbook(
            "The gateway cannot reach the camera of this line, its stream or its folder. Other lines are not affected.",
            "No pictures of this line arrive. Its parts get no verdict, so the board applies the line's safe action: divert, pass or stop.",
            "Run `curl <address>/readyz/<line>` with the address of the gateway. The page names the cause. The address is in the file "
            "`<run_dir>/targets/<instance>.json`.",
            "Repair the camera, its network or its shared folder. The gateway then opens the camera again by itself. No restart is needed.",
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
            "The gateway found a problem with the camera, its folder or its stream that only a person can solve. Other lines are not "
            "affected.",
            "Pictures may be missing, and a part without a picture gets no verdict. If a file cannot be read, the gateway tries it again "
            "from time to time.",
            "Run `curl <address>/healthz` with the address of the gateway. The page shows each complaint as a sentence. The address "
            "is in the file `<run_dir>/targets/<instance>.json`.",
            "Do what the complaint says. `docs/cameras.md` explains every complaint. `castline gateway try <line>` shows what would "
            "happen to the camera's pictures.\n\nIf the complaint names a damaged spool, do what `docs/operations.md` says under “Damaged "
            "spools and journals”. It also says when the damaged file may be deleted.",
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
            "The camera delivered pictures that were gone before the gateway could read them.\n\nThe reason `overwritten` means that "
            "a new picture with the same file name replaced a picture before the gateway had read it. The reason `not-readable` means "
            "that a file of a `folder` camera is missing or cannot be read.",
            "The parts on the lost pictures get no verdict, so the board applies the line's safe action (divert, pass or stop).",
            "Run `curl <address>/healthz` with the address of the gateway. The page names the file whose picture was lost. The address "
            "is in the file `<run_dir>/targets/<instance>.json`.",
            "If the reason is `overwritten`, let the camera give each file a new name, such as a number or the time. If the reason is "
            "`not-readable`, restore the files, or give the gateway the permission to read them.",
        ),
    ),
    Alert(
        "DeadLettersRising",
        "sum by (plant, line, reason) (increase(castline_dead_letters_total[10m])) > 3",
        "0m",
        "warning",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} records could not be processed in 10 minutes, reason {{ $labels.reason }}',
        PAGE.uid,
        DEAD_LETTERS,
        Runbook(
            "Some records could not be processed, and now lie on the topic `castings.dead-letters`. Usually they are pictures that could "
            "not be judged.",
            "A part whose picture could not be judged gets the verdict `review`. The gate follows the line's setting `on_review`, and a "
            "person has to look at the part.",
            "Run `castline dead-letters list`, which shows the reason for each record. `castline dead-letters save` writes one record, "
            "such as a picture, to a file.",
            "The dead letter names the reason. If the reason is `truncated`, `damaged` or `partly-blank`, check the camera's cable, its "
            "disk and its file transfer, which must be in binary mode. If the reason is `blank`, check the light and the lens cap.\n\n"
            "If the reason is `depth`, set `depth_bits` of the line to the number of bits that the camera delivers for a pixel.\n\n"
            "If the reason is `not-an-image`, find the program that writes other files into the camera's folder. If the reason is "
            "`identity`, correct the program that sends records without a valid line, run and part.",
        ),
    ),
    Alert(
        "BatchesSplit",
        "sum by (plant, machine, instance_name) (increase(castline_batches_split_total[10m])) > 0",
        "0m",
        "warning",
        "{{ $labels.instance_name }} of {{ $labels.machine }}: the networks failed on a batch, so the inspector split the batch",
        PAGE.uid,
        DEAD_LETTERS,
        Runbook(
            "The networks failed on a batch of pictures, because of one picture or because of too little memory. The inspector halved "
            "the batch until the networks succeeded or a single picture was left.",
            "All parts of the batch got their verdicts later than usual. A part whose picture failed even when it was judged alone "
            "has the verdict `review`.",
            "Read the inspector's log, which names the part and the error. On the Pipeline dashboard, look at the memory of the process.",
            "If memory ran out, lower `batch.size` or run fewer inspectors on the machine. Otherwise keep the picture, and report the "
            "error from the log to the developers of Castline.",
        ),
    ),
    Alert(
        "BatchesUnreadable",
        "max by (plant, kind) (increase(castline_batches_unreadable_total[15m])) > 0",
        "0m",
        "critical",
        "A batch of records on a topic of the kind {{ $labels.kind }} cannot be decoded, so its records are skipped",
        PAGE.uid,
        DEAD_LETTERS,
        Runbook(
            "Kafka holds a batch of records that Castline cannot decode. There are three possible causes. Another program has compressed "
            "the batch with zstd, lz4 or snappy, and the topic's setting `compression.type` lets the batch stay compressed. Or another "
            "program has given a header a name that is not UTF-8. Or a disk of a broker has damaged the batch.",
            "The records of the batch are skipped. If they are pictures, their parts have no verdict, and the line's safe action (divert, "
            "pass or stop) applies.",
            "Run `castline dead-letters list`. A dead letter with the reason `unreadable` names the topic, the partition and the offsets, "
            "and the error of the decoder.",
            "Run `castline topics create`, so that the brokers unpack compressed batches. Let the other program write the names of "
            "headers in ASCII. If the error is a wrong checksum or a wrong offset, check the disk of the broker.\n\nIf workers no longer "
            "read a partition in which records wait, perhaps the broker itself cannot read the damaged batch. In a cluster, stop the "
            "broker that leads the partition, delete the partition's folder on its disk, and start the broker again. It then copies the "
            "records from another broker.\n\nWith a single broker, delete the topic with Kafka's tools, and run `castline topics create`. "
            "All records of the topic are then lost.",
        ),
    ),
    Alert(
        "EventLoopBlocked",
        "histogram_quantile(0.99, sum by (plant, machine, instance_name, le) (rate(castline_event_loop_delay_seconds_bucket[5m]))) > 1",
        "5m",
        "warning",
        "{{ $labels.instance_name }} of {{ $labels.machine }}: the event loop wakes up {{ $value | humanizeDuration }} late",
        PAGE.uid,
        EVENT_LOOP,
        Runbook(
            "Something blocks the event loop of the process, so its commits, heartbeats and deliveries come late.",
            "Kafka may conclude that the worker is dead, and give its partitions to other workers. Each time Kafka moves partitions, "
            "verdicts are late. While the event loop is blocked, Kafka may move partitions several times.",
            "On the Pipeline dashboard, open the panel “Which process uses the processors?”, and check whether all cores of the machine "
            "are busy.",
            "Run fewer processes on the machine, or lower `model.threads`, so that the networks leave one core free.",
        ),
    ),
)
