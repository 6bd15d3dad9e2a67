"""The inspector: image records in, one verdict for each out.

    arrive -> decoder threads -> batcher -> networks (threads of their own) -> delivery -> acknowledgement

Which ensemble judges a line is agents.inspector.model_switcher's; a batch of lines with different versions is judged in as many calls.
Each step takes in order and hands on in order, so that a record is acknowledged only after all before it: Faust commits up to
the last acknowledged record it can reach from the lowest one, and would otherwise commit over one still in hand.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from agents.inspector.counting import count, report_ages
from agents.inspector.decoding import Arrival, Decoded, decode_arrival, now, receive
from agents.inspector.drift_watch import DriftWatch
from agents.inspector.judging import Judged, by_judge, judge, verdict
from agents.inspector.localiser import Localiser, OpenMapper
from agents.inspector.model_switcher import Duty, Serving
from agents.inspector.shadow import Shadow, Witness, fits
from models.pictures.decoder import DecodedPicture
from models.registry import Version
from streams import metrics
from streams.batcher import Batcher, QueuedItem
from streams.errors import IdentityError, PictureError
from streams.object_store import ObjectStore
from streams.record_producer import ConsumedRecord, ProducerRecord, RecordProducer, make_dead_letter, make_json_record
from streams.records import Verdict
from streams.settings import Settings
from streams.topics import TopicNames
from streams.worker import ReceivedRecord

log = logging.getLogger(__name__)

ROLE = "inspector"
# Beside those that are computed a full one waits, so that the networks go on without a pause. Delivered while the next is computed.
# More would only move the queue to where it cannot be seen.
_BATCHES_AHEAD = 1
_STORE_AGAIN_S = 1.0


@dataclass(frozen=True)
class InHand:
    """A record that came and is not yet acknowledged: being decoded, or refused because it names no part."""

    received: ReceivedRecord
    came: ConsumedRecord
    line: str
    captured_at: datetime
    decoding: Future[Decoded] | IdentityError
    taken_s: float


@dataclass(frozen=True)
class JudgedBatch:
    """A batch that the networks are done with; `judged` are those of `in_hand` that name a part, in its order, each by its line's duty."""

    in_hand: list[InHand]
    judged: list[Judged]
    duties: list[Duty]
    decided_at: datetime


class Inspector:
    """One worker's way from image records to verdicts."""

    def __init__(
        self,
        settings: Settings,
        serving: Serving,
        store: ObjectStore,
        courier: RecordProducer,
        open_mapper: OpenMapper,
        trouble: Callable[[str, str], None],
        at_once: int = 1,
    ) -> None:
        """`serving` has begun, for `at_once` batches at a time. `trouble` is told, from any thread, what is wrong; "" when it is over."""
        self._trouble = trouble
        self._settings = settings
        self._serving = serving
        self._store = store
        self._courier = courier
        self._names = TopicNames(settings.topics.prefix)
        self._lines = {self._names.images(line.name): line for line in settings.lines}
        self._at_networks = 0  # batches
        self._room_at_networks = asyncio.Semaphore(at_once + _BATCHES_AHEAD)
        most, busy = settings.inspector.buffer, lambda: self._at_networks >= at_once
        self._batcher: Batcher[InHand] = Batcher(settings.batch, most, time.monotonic, busy)
        self._delivery: asyncio.Queue[asyncio.Future[JudgedBatch] | None] = asyncio.Queue(at_once + _BATCHES_AHEAD)
        self._decoders = ThreadPoolExecutor(settings.inspector.decoders, "decoder")
        self._networks = ThreadPoolExecutor(at_once, "networks")
        self.shadow = Shadow(self._networks, self._idle, self._decode_again)
        self.localiser = Localiser(self._networks, self._idle, self._in_force, settings.inspector, self._names, store, courier, open_mapper)
        self.drift = DriftWatch(line.name for line in settings.lines if line.name not in settings.inspector.explain_lines)
        self._done = asyncio.Event()

    @property
    def lines_by_topic(self) -> Mapping[str, str]:
        """The image topics of all lines."""
        return {topic: line.name for topic, line in self._lines.items()}

    @property
    def background_tasks(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """The coroutine functions that run for as long as the worker lives."""
        return self.judge_batches, self.deliver_batches, self.shadow.run, self.localiser.run, self.drift.run

    async def accept(self, received: ReceivedRecord) -> None:
        """Takes a record; waits while the worker holds as many as it may."""
        came = received.record
        line = self._lines[came.topic]
        captured_at = received.broker_time
        deadline_s = None
        decoding: Future[Decoded] | IdentityError
        try:
            arrival = receive(came, line, captured_at, now())
            captured_at = arrival.captured_at
            deadline_s = _on_monotonic_clock(arrival.deadline)
            # Awaited by the networks' thread: the event loop would be woken for every picture.
            decoding = self._decoders.submit(self._decode, arrival, self._side_px(line.name))
        except IdentityError as error:
            decoding = error
        await self._batcher.put(InHand(received, came, line.name, captured_at, decoding, time.monotonic()), deadline_s)
        metrics.buffered_pictures.set(len(self._batcher))

    def _idle(self) -> bool:
        """Whether no picture waits for its verdict."""
        return self._at_networks == 0 and len(self._batcher) == 0

    def _in_force(self) -> list[Version]:
        return [duty.judge.version for duty in self._serving.duties.values()]

    def _side_px(self, line: str) -> int:
        return self._serving.duties[line].judge.side_px

    def _decode_again(self, decoded: Decoded, side_px: int) -> Decoded:
        return self._decode(decoded.arrival, side_px)

    def _decode(self, arrival: Arrival, side_px: int) -> Decoded:
        waited = False
        while True:
            try:
                with metrics.decode_seconds.time():
                    decoded = decode_arrival(arrival, side_px, self._settings.pictures, self._store)
            except OSError as error:
                # The store is at fault, not the picture: it is asked again, and what comes after waits.
                if self.draining:
                    raise
                self._trouble(f"expected the object store at {self._settings.store.url} to answer, it did not: {error}", "store")
                waited = True
                time.sleep(_STORE_AGAIN_S)
                continue
            if waited:
                self._trouble("", "store")
            return decoded

    async def judge_batches(self) -> None:
        """Takes batch after batch to the networks, in turn with the delivery, until drained."""
        loop = asyncio.get_running_loop()
        while batch := await self._next_batch():
            started_s = time.monotonic()
            in_hand = [waiting.item for waiting in batch]
            for item in in_hand:
                metrics.batch_wait_seconds.observe(started_s - item.taken_s)
            metrics.batch_pictures.observe(len(batch))
            report_ages((item.line, item.captured_at) for item in in_hand)
            self._at_networks += 1
            judging = loop.run_in_executor(self._networks, self._judge_batch, in_hand)
            judging.add_done_callback(self._networks_are_done)
            # Turned into records by the delivery, while the networks are at the next batch already.
            await self._delivery.put(judging)
            metrics.buffered_pictures.set(len(self._batcher))
        self.shadow.close()
        self.localiser.close()
        self.drift.close()
        await self._delivery.put(None)

    async def _next_batch(self) -> list[QueuedItem[InHand]]:
        await self._room_at_networks.acquire()
        return await self._batcher.get_batch()

    def _networks_are_done(self, _: object) -> None:
        self._at_networks -= 1
        self._room_at_networks.release()
        self._batcher.reconsider()

    def _judge_batch(self, in_hand: list[InHand]) -> JudgedBatch:
        """In a thread of the networks."""
        decoded = [item.decoding.result() for item in in_hand if not isinstance(item.decoding, IdentityError)]
        # Looked up once, so that the whole batch is judged by what is in force now, whatever comes into force meanwhile.
        table = self._serving.duties
        duties = [table[one.arrival.part.line] for one in decoded]
        # Once more from the record where another version came into force meanwhile that takes another side.
        fitting = [
            one if fits(one, duty.judge.side_px) else self._decode_again(one, duty.judge.side_px)
            for one, duty in zip(decoded, duties, strict=True)
        ]
        return JudgedBatch(in_hand, self._judge(fitting, duties), duties, now())

    def _judge(self, decoded: list[Decoded], duties: list[Duty]) -> list[Judged]:
        answers: dict[int, Judged] = {}
        for ensemble, places in by_judge([duty.judge for duty in duties]):
            with metrics.inference_seconds.labels(ensemble.runtime.name).time():
                answers.update(zip(places, judge([decoded[place] for place in places], ensemble), strict=True))
        return [answers[place] for place in range(len(decoded))]

    def _verdicts(self, batch: JudgedBatch) -> list[Verdict]:
        return [
            verdict(judged, duty.judge.version_name, duty.judge.threshold, batch.decided_at)
            for judged, duty in zip(batch.judged, batch.duties, strict=True)
        ]

    def _records(self, batch: JudgedBatch, verdicts: list[Verdict]) -> list[ProducerRecord]:
        records = []
        for judged, found in zip(batch.judged, verdicts, strict=True):
            part = found.part_id
            records.append(make_json_record(self._names.verdicts(part.line), part.key, found, ROLE, found.verdict_id))
            if isinstance(judged.opinion, PictureError):
                log.warning("part %s cannot be judged: %s", part, judged.opinion, extra={"part": str(part)})
                records.append(self._letter(judged.decoded.arrival.came, judged.opinion.reason, str(judged.opinion)))
        for item in batch.in_hand:
            if isinstance(item.decoding, IdentityError):
                log.warning("a record names no part: %s", item.decoding, extra={"offset": item.came.offset, "topic": item.came.topic})
                records.append(self._letter(item.came, "identity", str(item.decoding)))
        return records

    def _letter(self, came: ConsumedRecord, reason: str, detail: str) -> ProducerRecord:
        metrics.dead_letters.labels(self._lines[came.topic].name, reason).inc()
        return make_dead_letter(self._names.dead_letters, came, ROLE, reason, detail)

    async def deliver_batches(self) -> None:
        """Delivers batch after batch, then acknowledges its records; until drained."""
        while (judging := await self._delivery.get()) is not None:
            batch = await judging
            verdicts = self._verdicts(batch)
            with metrics.deliver_seconds.time():
                await self._courier.deliver(self._records(batch, verdicts))
            for item in batch.in_hand:
                await item.received.acknowledge()
            count(batch.judged, verdicts)
            self._show_shadows(batch)
            for judged, found, duty in zip(batch.judged, verdicts, batch.duties, strict=True):
                self.localiser.watch(judged, found, duty.judge.version)
                self.drift.see(judged, duty.judge.version, time.monotonic())
        self._done.set()

    def _show_shadows(self, batch: JudgedBatch) -> None:
        witnesses = [
            Witness(judged, duty.judge, duty.shadow)
            for judged, duty in zip(batch.judged, batch.duties, strict=True)
            if duty.shadow is not None and isinstance(judged.decoded.picture, DecodedPicture)
        ]
        if witnesses:
            self.shadow.watch(witnesses)

    @property
    def draining(self) -> bool:
        """Whether the worker stops."""
        return self._batcher.is_closed

    async def drain(self) -> None:
        """Takes nothing more; returns when all that was taken is delivered and acknowledged."""
        self._batcher.close()
        await self._done.wait()


def _on_monotonic_clock(deadline: datetime | None) -> float | None:
    if deadline is None:
        return None
    return time.monotonic() + (deadline - now()) / timedelta(seconds=1)
