"""The dashboard "Castline: Kafka" shows if the brokers answer, how quickly they confirm records, and how many records wait."""

from __future__ import annotations

from dashboards.panels import DashboardPage, Query, rising, stat_panel, timeseries_panel
from dashboards.promql import LINE, PLANT, p50, p99, rate

# The queries select the role that sets the metric. Other roles may export the same metric, but only with the value 0.
_GATEWAY = f'{PLANT},role="gateway"'
_INSPECTOR = 'role="inspector"'

BROKER_DISK = "How full is the disk of the embedded broker?"
# The queries about the broker's disk select the role `broker`, because the other roles export the same metrics with the value 0.
_BROKER_FREE = 'castline_broker_disk_free_bytes{role="broker"}'
BROKER_DISK_IS_FILLING = f'{_BROKER_FREE} / (castline_broker_disk_bytes{{role="broker"}} > 0) < 0.2 and {_BROKER_FREE} < 20 * 2^30'
SPOOL_SHARE = "How full is the spool on each gateway's disk?"

PAGE = DashboardPage(
    "castline-kafka",
    "Castline: Kafka",
    "Does Kafka answer the processes, how quickly does it confirm records, and do the processes keep up?",
    (
        stat_panel(
            SPOOL_SHARE,
            Query(
                f"castline_spool_bytes{{{_GATEWAY}}} / castline_spool_limit_bytes{{{_GATEWAY}}}", "{{plant}} {{machine}} {{instance_name}}"
            ),
            Query(
                f"castline_spool_write_ahead_bytes{{{_GATEWAY}}} / castline_spool_limit_bytes{{{_GATEWAY}}}",
                "{{plant}} {{machine}} {{instance_name}} write-ahead logs",
            ),
            unit="percentunit",
            description="The spool is the gateway's queue on disk. Pictures wait there until Kafka confirms them. When the spool is full, "
            "the gateway refuses pictures. SQLite's write-ahead logs take room in the spool, too.",
            thresholds=rising(0.5, 0.9),
            alerts=("SpoolFilling",),
            width=12,
        ),
        stat_panel(
            "How many pictures wait in the spool?",
            f"castline_spool_pictures{{{LINE}}}",
            unit="short",
            description="Every picture passes through the spool, the gateway's queue on disk. If more than a few pictures wait there, "
            "Kafka is slow or cannot be reached.",
            thresholds=rising(10, 100),
            alerts=("SpoolFilling",),
            width=12,
        ),
        timeseries_panel(
            "How quickly does Kafka confirm a picture?",
            Query(p99("castline_send_seconds"), "{{line}} 99 %"),
            Query(p99("castline_spool_flush_seconds"), "{{line}} flush to the disk, 99 %"),
            Query(p50("castline_send_seconds"), "{{line}} median"),
            unit="s",
            description="Time from the capture of a picture until all replicas of the topic have confirmed the picture.",
            thresholds=rising(0.5, 1),
        ),
        timeseries_panel(
            "How quickly does Kafka confirm verdicts?",
            Query(p99("castline_deliver_seconds", "machine, instance_name", _INSPECTOR, scope=PLANT), "{{machine}} {{instance_name}} 99 %"),
            Query(
                p50("castline_deliver_seconds", "machine, instance_name", _INSPECTOR, scope=PLANT), "{{machine}} {{instance_name}} median"
            ),
            unit="s",
            description="Time from the judgement of a batch of pictures until all replicas of the topic have confirmed the verdicts.",
            thresholds=rising(0.1, 0.5),
        ),
        timeseries_panel(
            "How many bytes of pictures flow into Kafka?",
            Query(rate("castline_picture_bytes_total"), "{{line}}"),
            unit="Bps",
            description="Bytes of encoded pictures a second. The brokers keep every picture for `topics.image_hours` hours, so their "
            "disks need room for all pictures of so many hours.",
        ),
        timeseries_panel(
            BROKER_DISK,
            Query(
                f"castline_broker_disk_free_bytes{{{PLANT}}} / (castline_broker_disk_bytes{{{PLANT}}} > 0)",
                "{{machine}} free",
            ),
            Query(rate("castline_broker_drops_total", "what", scope=PLANT), "{{what}} dropped, times per second"),
            Query(f"castline_broker_clock_doubted{{{PLANT}}}", "{{machine}} does not trust its clock"),
            unit="percentunit",
            description="Free share of the embedded broker's disk. An alert fires if less than 20 % and less than 20 GiB are free. If "
            "less than 10 % and 4 GiB are free, the broker deletes judged pictures. If less than 5 % and 512 MiB are free, it also "
            "deletes other records. While the broker does not trust its clock, it drops nothing.",
            alerts=("BrokerDiskFilling", "BrokerDropsRecords", "BrokerClockDoubted"),
        ),
        timeseries_panel(
            "How many pictures come, and how many are confirmed?",
            Query(rate("castline_pictures_received_total"), "{{line}} received"),
            Query(rate("castline_pictures_sent_total"), "{{line}} confirmed"),
            unit="cps",
            description="When all is well, the gateway receives as many pictures as Kafka confirms. If Kafka confirms fewer, the rest "
            "waits on the gateway's disk.",
        ),
        timeseries_panel(
            "Does each consumer keep up?",
            Query(f"castline_consumer_lag_records{{{LINE}}}", "{{machine}} {{instance_name}} {{line}}"),
            unit="short",
            description="Records that wait for each worker. If the lag of only one worker grows, this worker is too slow or hangs.",
            thresholds=rising(30, 300),
            alerts=("LagGrowing",),
        ),
        timeseries_panel(
            "Which processes are not ready?",
            Query(f"castline_process_ready{{{PLANT}}}", "{{machine}} {{instance_name}}"),
            unit="short",
            description="The value 1 means that the process is ready. If the values of all processes of a plant fall to 0 at once, Kafka "
            "cannot be reached. If the value of one process falls to 0, its page /readyz gives the reason.",
            alerts=("ProcessNotReady",),
        ),
    ),
)
