"""The Faust application of an agent, set up so that nothing is lost and a restart is quick; and how it is run and stopped.

The numbers here were found by killing workers and brokers under load; ARCHITECTURE.md tells which.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence

import faust
from faust.types import AppT

from streams import metrics
from streams.kafka import make_faust_credentials
from streams.settings import Settings

log = logging.getLogger(__name__)

# From the last commit to the last connection closed, and once more to the process' end where Kafka is away.
_LEAVING_S = 3.0


def make_app(settings: Settings, role: str, instance: str, buffer: int) -> AppT[object]:
    """The application of `role`, a consumer group of that name; `instance` is this worker's stable name within it.

    `buffer` bounds the records fetched ahead and so the worker's memory.
    """
    kafka, topics = settings.kafka, settings.topics
    group = f"{topics.prefix}-{role}"
    request_bytes = topics.max_message_bytes + 2**17
    folder = settings.service.run_dir / "faust" / instance
    folder.parent.mkdir(parents=True, exist_ok=True)  # Faust makes the last step of the way only
    app: AppT[object] = faust.App(
        id=group,
        broker=[f"kafka://{address}" for address in settings.bootstrap.split(",")],
        broker_credentials=make_faust_credentials(kafka),
        broker_client_id=f"castline-{instance}",
        # Static membership: a worker killed and started again gets its partitions back without waiting for the session to end.
        consumer_group_instance_id=f"{group}-{instance}",
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.session_timeout_s / 5,
        broker_request_timeout=max(40.0, kafka.session_timeout_s + 5),
        broker_commit_interval=kafka.commit_interval_s,
        broker_max_poll_records=min(256, max(64, buffer // 2)),
        consumer_max_fetch_size=request_bytes,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=buffer,
        # Stream tasks acknowledge by themselves; waiting for "empty" would wait for pictures still in a batch.
        stream_wait_empty=False,
        producer_acks=-1,
        producer_linger=0.0,
        producer_max_request_size=request_bytes,
        producer_request_timeout=kafka.request_timeout_s,
        processing_guarantee="at_least_once",
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        store="memory://",
        # Faust makes this folder and leaves it empty: without tables nothing is written to it.
        datadir=folder,
        web_enabled=False,
        autodiscover=False,
        logging_config=None,
        worker_redirect_stdouts=False,
    )
    return app


Drain = Callable[[], Awaitable[None]]


class _Worker(faust.Worker):  # type: ignore[misc]  # Faust ships no types
    """Faust's worker with our order of stopping: no new work, finish what is in hand, commit, leave."""

    def __init__(self, app: AppT[object], beside: Sequence[AppT[object]], drain: Drain, grace_s: float) -> None:
        super().__init__(
            app, *beside, override_logging=False, redirect_stdouts=False, blocking_timeout=0.0, quiet=True, loop=asyncio.get_running_loop()
        )
        self.spinner = None
        self._apps = (app, *beside)
        self._drain = drain
        self._grace_s = grace_s
        self._stopping: asyncio.Task[None] | None = None

    def install_signal_handlers(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(signum, self._begin_stop)

    def _begin_stop(self) -> None:
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._finish_and_stop())

    async def _finish_and_stop(self) -> None:
        log.info("stopping: finishing what is in hand, at most %.0f s", self._grace_s)
        try:
            async with asyncio.timeout(self._grace_s):
                await self._drain()
                for app in self._apps:
                    await app.consumer.commit()
        except TimeoutError:
            log.warning("stopping with work in hand after %.0f s: it will be done again after the next start", self._grace_s)
        await self.stop()

    async def ended(self) -> None:
        """Returns when all has stopped. The event loop must live until then: cut short, Faust would wait for ever for a producer
        whose sender is cancelled already.
        """
        stopping = self._stopping or asyncio.create_task(self.stop())
        await asyncio.wait([stopping], timeout=self._grace_s + _LEAVING_S)
        if stopping.done():
            return
        log.warning("Kafka did not let this worker leave: its partitions wait until the session ends")
        # Faust's consumer has a thread of its own that waits for Kafka, and the interpreter waits for that thread.
        last_resort = threading.Timer(_LEAVING_S, os._exit, (0,))
        last_resort.daemon = True
        last_resort.start()
        # Once is not enough: Faust passes over a cancellation and waits for the next thing that Kafka does not answer.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.sleep(0.05)


async def run_app(app: AppT[object], role: str, drain: Drain, grace_s: float, beside: Sequence[AppT[object]] = ()) -> int:
    """Runs `app`, and those `beside` it, until SIGTERM or a crash; returns the exit status: 0 after a clean stop, 1 after a crash.

    On SIGTERM `drain` is awaited, at most `grace_s`, then offsets are committed and the group is left.
    """
    worker = _Worker(app, beside, drain, grace_s)
    watching = asyncio.create_task(_watch_loop(role))
    try:
        await worker.start()
        await worker.wait_until_stopped()
    finally:
        watching.cancel()
        await worker.ended()
    if crash := worker.crash_reason or next((each.crash_reason for each in (app, *beside) if each.crash_reason), None):
        log.error("stopped by a crash: %r", crash)
        return 1
    return 0


async def _watch_loop(role: str, every_s: float = 0.25) -> None:
    """Measures how late the event loop wakes: what blocks it delays commits and heartbeats."""
    loop = asyncio.get_running_loop()
    observe = metrics.event_loop_delay_seconds.labels(role).observe
    while True:
        due = loop.time() + every_s
        await asyncio.sleep(every_s)
        observe(max(0.0, loop.time() - due))
