"""Kafka, as those see it who depend on it: is it there, is it quick, does it keep up?"""

from __future__ import annotations

from dashboards.panels import Page, Query, number, rising, trend
from dashboards.queries import LINE, PLANT, p50, p99, rate

# A metric without labels is on every process' page, at 0 where nobody sets it.
_GATEWAY = f'{PLANT},role="gateway"'
_INSPECTOR = 'role="inspector"'

PAGE = Page(
    "castline-kafka",
    "Castline: Kafka",
    "Kafka as its clients see it: is it there, is it quick, does it keep up?",
    (
        number(
            "How full is the gateway's disk?",
            Query(f"castline_spool_bytes{{{_GATEWAY}}} / castline_spool_limit_bytes{{{_GATEWAY}}}", "{{plant}} {{instance_name}}"),
            unit="percentunit",
            why="Pictures wait there while Kafka does not confirm. Full, they are refused.",
            steps=rising(0.5, 0.9),
            alerts=("SpoolFilling",),
            width=12,
        ),
        number(
            "How many pictures wait on the gateway's disk?",
            f"castline_spool_pictures{{{LINE}}}",
            unit="short",
            why="Every picture passes the spool; more than a few mean that Kafka is away or slow.",
            steps=rising(10, 100),
            alerts=("SpoolFilling",),
            width=12,
        ),
        trend(
            "How quickly does Kafka confirm a picture?",
            Query(p99("castline_send_seconds"), "{{line}} 99 %"),
            Query(p50("castline_send_seconds"), "{{line}} half"),
            unit="s",
            why="From capture to the brokers' confirmation by all replicas.",
            steps=rising(0.5, 1),
        ),
        trend(
            "How quickly does Kafka confirm verdicts?",
            Query(p99("castline_deliver_seconds", "instance_name", _INSPECTOR, scope=PLANT), "{{instance_name}} 99 %"),
            Query(p50("castline_deliver_seconds", "instance_name", _INSPECTOR, scope=PLANT), "{{instance_name}} half"),
            unit="s",
            why="A batch of verdicts, confirmed by all replicas.",
            steps=rising(0.1, 0.5),
        ),
        trend(
            "How much flows into Kafka?",
            Query(rate("castline_picture_bytes_total"), "{{line}}"),
            unit="Bps",
            why="Encoded pictures. Times `topics.image_hours` it is what the brokers' disks hold.",
        ),
        trend(
            "How many pictures come, and how many are confirmed?",
            Query(rate("castline_pictures_received_total"), "{{line}} received"),
            Query(rate("castline_pictures_sent_total"), "{{line}} confirmed"),
            unit="cps",
            why="On top of each other in health; apart, the difference is on the gateway's disk.",
        ),
        trend(
            "Does each consumer keep up?",
            Query(f"castline_consumer_lag_records{{{LINE}}}", "{{instance_name}} {{line}}"),
            unit="short",
            why="By worker: one that grows alone has lost touch with its group.",
            steps=rising(30, 300),
            alerts=("LagGrowing",),
        ),
        trend(
            "Who waits for Kafka?",
            Query(f"castline_process_ready{{{PLANT}}}", "{{instance_name}}"),
            unit="short",
            why="0 for all of a plant at once: the brokers are away. 0 for one: see its /readyz.",
            alerts=("ProcessNotReady",),
        ),
    ),
)
