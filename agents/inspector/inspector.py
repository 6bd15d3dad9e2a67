"""The inspector: reads image records from Kafka and sends one verdict for each picture.

    accept -> decoder threads ------------------------> batcher -> networks (threads of their own) -> delivery -> acknowledgement
      uploads -> decoder process -> admission --------^

Uploaded pictures take the path in the second row. Pictures are acknowledged in the order in which they arrived. If a later picture were
acknowledged first, a crash could lose an earlier picture.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from agents.inspector.decoding import (
    DecodedImage,
    ImageRecord,
    decode_image,
    find_checksum,
    make_handling_error,
    read_image_record,
    utc_now,
)
from agents.inspector.drift_monitor import DriftMonitor
from agents.inspector.judging import (
    JudgedImage,
    LineRule,
    LineRules,
    group_by_predictor,
    judge_images,
    make_verdict,
    name_kinds,
)
from agents.inspector.model_switcher import ModelAssignment, ModelSwitcher
from agents.inspector.shadow_judge import ShadowJudge, ShadowSample
from agents.inspector.upload_admission import UploadAdmission
from models.anomaly.version_scorers import VersionDetails
from models.inference.ensemble import Ensemble
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture, decode_picture
from models.pictures.decoder_process import DecoderProcess
from models.pictures.refusal import RefusalReason
from models.pictures.regions import Regions
from streams import metrics
from streams.backoff import Backoff
from streams.batcher import Batcher, QueuedItem
from streams.consumed_offsets import ExpiredRecords
from streams.errors import IdentityError, PictureError, RecordError, drop_traceback
from streams.identity import EXPIRED_HEADER, PartId
from streams.object_store import ObjectStore
from streams.record_memory import measure_record
from streams.record_producer import (
    EXPIRED,
    HANDLING_FAILED,
    ConsumedRecord,
    ProducerRecord,
    RecordProducer,
    make_dead_letter,
    make_json_record,
)
from streams.records import Verdict, compute_disagreement
from streams.settings import Settings
from streams.topics import TopicNames
from streams.worker import ReceivedRecord

log = logging.getLogger(__name__)

ROLE = "inspector"
# One complete batch waits while the networks compute. More waiting batches would only make pictures wait longer.
_BATCHES_AHEAD = 1
_STORE_RETRY_S = 1.0


@dataclass(frozen=True)
class PendingImage:
    """A record of an image topic that the inspector has accepted and not yet acknowledged.

    `decoding` is the future of the decoded image, or the error if the record names no part or cannot be read.
    """

    received: ReceivedRecord
    line: str
    captured_at: datetime
    decoding: Future[DecodedImage] | IdentityError | RecordError
    accepted_s: float


@dataclass(frozen=True)
class JudgedBatch:
    """A batch that the networks have judged.

    - `judged`: the images, in the order of their records.
    - `assignments`: for each image, the model version that has judged it, and the shadow version that judges it later, or None.
    - `rules`: the rule that labelled each image.
    """

    records: list[PendingImage]
    judged: list[JudgedImage]
    assignments: list[ModelAssignment]
    rules: list[LineRule]
    decided_at: datetime


class Inspector:
    """Judges the pictures of the image records that one worker receives. It is the `RecordHandler` of the inspector's consumer group."""

    def __init__(
        self,
        settings: Settings,
        switcher: ModelSwitcher,
        store: ObjectStore,
        producer: RecordProducer,
        report_problem: Callable[[str, str], None],
        parallel_batches: int = 1,
        line_rules: LineRules | None = None,
    ) -> None:
        """Creates the inspector. `switcher` must be started already.

        - `parallel_batches`: how many batches the networks compute at the same time.
        - `line_rules`: the rules by which the settings of a line choose the labels. With None, the model versions choose the labels.
        - `report_problem`: called with a sentence and the failed service, such as "store".
        """
        self._settings = settings
        self._switcher = switcher
        self._line_rules = line_rules or LineRules()
        self._store = store
        self._producer = producer
        self._report_problem = report_problem
        self._names = TopicNames(settings.topics.prefix)
        self._lines = {self._names.images(line.name): line for line in settings.lines}
        self._batches_at_networks = 0
        self._room_at_networks = asyncio.Semaphore(parallel_batches + _BATCHES_AHEAD)
        self._batcher: Batcher[PendingImage] = Batcher(
            settings.batch, settings.inspector.buffer, time.monotonic, lambda: self._batches_at_networks >= parallel_batches
        )
        self._deliveries: asyncio.Queue[asyncio.Future[JudgedBatch] | None] = asyncio.Queue(parallel_batches + _BATCHES_AHEAD)
        self._decoders = ThreadPoolExecutor(settings.inspector.decoders, "decoder")
        # Uploaded pictures are decoded one at a time, in a separate process. So uploads need little memory, and the threads of
        # `_decoders` stay free for the pictures of cameras.
        self._upload_decoders = ThreadPoolExecutor(1, "upload decoder")
        self._upload_process = DecoderProcess(settings.pictures.upload_memory_bytes, settings.pictures.upload_time_s)
        self._uploads: UploadAdmission[PendingImage] = UploadAdmission(
            self._batcher.put, settings.inspector.buffer, settings.kafka.buffer_bytes // 8, self._is_idle, self._upload_process.abort
        )
        self._is_draining = False
        self._networks = ThreadPoolExecutor(parallel_batches, "networks")
        self.shadow_judge = ShadowJudge(self._networks, self._is_idle, self._decode_again, self._line_rules.find)
        self.drift_monitor = DriftMonitor(line.name for line in settings.lines if line.name not in settings.inspector.explain_lines)
        self.has_delivered = asyncio.Event()
        self._finished = asyncio.Event()

    @property
    def lines_by_topic(self) -> Mapping[str, str]:
        """Maps each image topic to the name of its line."""
        return {topic: line.name for topic, line in self._lines.items()}

    @property
    def background_tasks(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """The coroutine functions that the worker starts. They run until the inspector is drained."""
        return (
            self._uploads.run,
            self.judge_batches,
            self.deliver_batches,
            self.shadow_judge.run,
            self.drift_monitor.run,
        )

    async def accept(self, received: ReceivedRecord) -> None:
        """Starts decoding a record and queues it. Waits while the queue holds as many records as the setting `inspector.buffer` allows."""
        source = received.record
        line = self._lines[source.topic]
        captured_at = received.broker_time
        deadline_s = None
        decoding: Future[DecodedImage] | IdentityError | RecordError
        try:
            image = read_image_record(source, line, captured_at, utc_now())
            captured_at = image.captured_at
            deadline_s = _to_monotonic_clock(image.deadline)
            decoders = self._upload_decoders if self._is_upload(line.name) else self._decoders
            regions = self._line_rules.find_regions(line.name)
            decoding = decoders.submit(self._decode, image, self._assigned_ensemble(line.name), regions)
        except (IdentityError, RecordError) as error:
            decoding = drop_traceback(error)
        except Exception as error:  # noqa: BLE001  a record can cause any error, and only this record must fail
            decoding = RecordError(HANDLING_FAILED, f"The inspector failed on the record: {error!r}")
        pending = PendingImage(received, line.name, captured_at, decoding, time.monotonic())
        if self._is_upload(line.name):
            size = measure_record(source.key, source.value)
            await self._uploads.put(pending, decoding if isinstance(decoding, Future) else None, deadline_s, size)
        else:
            await self._batcher.put(pending, deadline_s)
        metrics.buffered_pictures.set(len(self._batcher))

    def _is_idle(self) -> bool:
        """Returns whether the networks have nothing to judge. Uploads that are still being decoded do not count."""
        return self._batches_at_networks == 0 and len(self._batcher) == 0

    def _assigned_ensemble(self, line: str) -> Ensemble:
        return self._switcher.assignments[line].ensemble

    def _is_upload(self, line: str) -> bool:
        """Returns whether people upload the pictures of `line`. Such pictures are less trusted than a camera's pictures."""
        return line == self._settings.station.upload_line

    def _decode(self, image: ImageRecord, ensemble: Ensemble, regions: Regions | None) -> DecodedImage:
        """Decodes an image for `ensemble`, and searches it for small defects inside `regions`. Waits until the object store answers.

        Raises OSError while the inspector stops.
        """
        is_upload = self._is_upload(image.part.line)
        if is_upload and self._uploads.is_crowded:
            return DecodedImage(image, find_checksum(image), _make_crowd_error(image.part))
        decoder = self._upload_process.decode_picture if is_upload else decode_picture
        limits = self._settings.pictures.for_uploads() if is_upload else self._settings.pictures
        backoff = Backoff(first_s=_STORE_RETRY_S, longest_s=_STORE_RETRY_S)
        while True:
            try:
                with metrics.decode_seconds.time():
                    decoded = decode_image(image, ensemble.side_px, limits, self._store, decoder, ensemble.details is not None)
            except OSError as error:
                if self._is_draining:
                    raise
                self._report_problem(f"The object store at {self._settings.store.url} does not answer: {error}", "store")
                time.sleep(backoff.failed())
                continue
            if backoff.failures:
                self._report_problem("", "store")
            return _isolate(decoded, partial(_search_details, details=ensemble.details, regions=regions))

    def _decode_again(self, decoded: DecodedImage, ensemble: Ensemble) -> DecodedImage:
        return self._decode(decoded.record, ensemble, decoded.regions)

    def _fit(self, decoded: DecodedImage, ensemble: Ensemble, regions: Regions | None) -> DecodedImage:
        """Returns the image in a form that `ensemble` can judge.

        Decodes the image again if it was decoded for another model version or for other regions.
        """
        if not decoded.fits(ensemble.side_px, ensemble.details, regions):
            decoded = self._decode(decoded.record, ensemble, regions)
        return replace(decoded, regions=regions)

    def _prepare(self, image: DecodedImage, ensemble: Ensemble, regions: Regions | None) -> DecodedImage:
        """Returns the image in the size that `ensemble` needs, and checks that the image shows a part."""
        return _isolate(image, lambda one: self._fit(one, ensemble, regions).check(ensemble.part_reference))

    async def judge_batches(self) -> None:
        """Passes one batch after another to the networks, and queues their results for delivery in the same order. Ends after `drain`."""
        loop = asyncio.get_running_loop()
        while batch := await self._get_batch():
            start_s = time.monotonic()
            records = [queued.item for queued in batch]
            for record in records:
                metrics.batch_wait_seconds.observe(start_s - record.accepted_s)
            metrics.batch_pictures.observe(len(batch))
            _report_ages(records)
            self._batches_at_networks += 1
            judging = loop.run_in_executor(self._networks, self._judge_batch, records)
            judging.add_done_callback(self._release_networks)
            # Another task (`deliver_batches`) delivers the verdicts of this batch. So the networks can begin the next batch at once.
            await self._deliveries.put(judging)
            metrics.buffered_pictures.set(len(self._batcher))
        self.shadow_judge.close()
        self.drift_monitor.close()
        await self._deliveries.put(None)

    async def _get_batch(self) -> list[QueuedItem[PendingImage]]:
        await self._room_at_networks.acquire()
        return await self._batcher.get_batch()

    def _release_networks(self, _: object) -> None:
        self._batches_at_networks -= 1
        self._room_at_networks.release()
        self._batcher.reconsider()

    def _judge_batch(self, records: list[PendingImage]) -> JudgedBatch:
        """Judges the pictures whose records name a part. Runs in one of the threads that call the networks."""
        decoded = [record.decoding.result() for record in records if isinstance(record.decoding, Future)]
        # `table` says which model version judges which line. It is read once for each batch, so that a switch to another version
        # affects only later batches.
        table = self._switcher.assignments
        assignments = [table[image.record.part.line] for image in decoded]
        rules = [
            self._line_rules.find(image.record.part.line, assignment.ensemble.version)
            for image, assignment in zip(decoded, assignments, strict=True)
        ]
        # The search for the part in each picture runs only in this thread. The search has many short steps, and several Python threads
        # would block each other.
        fitting = [
            self._prepare(image, assignment.ensemble, rule.regions)
            for image, assignment, rule in zip(decoded, assignments, rules, strict=True)
        ]
        judged = _judge_by_ensemble(fitting, assignments, rules)
        labelled = [_apply_rule(rule, image) for rule, image in zip(rules, judged, strict=True)]
        labelled = _name_kinds(labelled, assignments)
        return JudgedBatch(records, labelled, assignments, rules, utc_now())

    async def deliver_batches(self) -> None:
        """Delivers the verdicts of one batch after another and then acknowledges the batch's records. Ends after `drain`."""
        while (judging := await self._deliveries.get()) is not None:
            batch = await judging
            verdicts = [
                make_verdict(judged, assignment.ensemble.version_name, rule.threshold, batch.decided_at, rule.decision)
                for judged, assignment, rule in zip(batch.judged, batch.assignments, batch.rules, strict=True)
            ]
            with metrics.deliver_seconds.time():
                sent = [self._make_record(verdict) for verdict in verdicts]
                refused = await self._producer.deliver([*sent, *self._make_dead_letters(batch)])
            self.has_delivered.set()
            for record in batch.records:
                await record.received.acknowledge()
            _count_verdicts([item[:2] for item in zip(batch.judged, verdicts, sent, strict=True) if item[2] not in refused])
            self._pass_to_background(batch)
        self._finished.set()

    def _make_record(self, verdict: Verdict) -> ProducerRecord:
        part = verdict.part_id
        return make_json_record(self._names.verdicts(part.line), part.key, verdict, ROLE, verdict.verdict_id)

    def _make_dead_letters(self, batch: JudgedBatch) -> list[ProducerRecord]:
        """Returns a dead letter for each record that has no part, and for each picture that could not be judged."""
        records = []
        for judged in batch.judged:
            part, error = judged.decoded.record.part, judged.prediction
            if isinstance(error, PictureError):
                log.warning("The picture of part %s cannot be judged: %s", part, error, extra={"part": str(part)})
                records.append(self._make_dead_letter(judged.decoded.record.source, error.reason, str(error)))
        for pending in batch.records:
            refusal = pending.decoding
            if isinstance(refusal, IdentityError | RecordError):
                source, reason = pending.received.record, refusal.reason if isinstance(refusal, RecordError) else "identity"
                log.warning("A record gets no verdict: %s", refusal, extra={"offset": source.offset, "topic": source.topic})
                records.append(self._make_dead_letter(source, reason, str(refusal)))
        return records

    def _make_dead_letter(self, source: ConsumedRecord, reason: str, detail: str) -> ProducerRecord:
        metrics.dead_letters.labels(self._lines[source.topic].name, reason).inc()
        return make_dead_letter(self._names.dead_letters, source, ROLE, reason, detail)

    async def report_expired(self, expired: ExpiredRecords) -> None:
        """Sends one dead letter for all pictures in `expired`. Kafka deleted these pictures before they were judged.

        The dead letter holds no picture.
        """
        last = expired.first + expired.count - 1
        detail = (
            f"Kafka deleted {expired.count} pictures, from offset {expired.first} to {last}, before they were judged. Their parts have no "
            "verdict. Start more inspectors, or raise topics.image_hours."
        )
        source = ConsumedRecord(expired.topic, expired.partition, expired.first, None, None, {})
        letter = self._make_dead_letter(source, EXPIRED, detail)
        await self._producer.deliver([replace(letter, headers=[*letter.headers, (EXPIRED_HEADER, str(expired.count).encode())])])

    def _pass_to_background(self, batch: JudgedBatch) -> None:
        """Gives the images of a batch to the shadow versions and the drift monitor. Call this method after the verdicts were delivered."""
        samples = [
            ShadowSample(judged, assignment.ensemble, assignment.shadow)
            for judged, assignment in zip(batch.judged, batch.assignments, strict=True)
            if assignment.shadow is not None and isinstance(judged.decoded.picture, DecodedPicture)
        ]
        if samples:
            self.shadow_judge.add_samples(samples)
        for judged, assignment in zip(batch.judged, batch.assignments, strict=True):
            self.drift_monitor.add(judged, assignment.ensemble.version, time.monotonic())

    async def drain(self) -> None:
        """Accepts no more records. Returns when every accepted record has its verdict or dead letter and is acknowledged."""
        self._is_draining = True
        await self._uploads.drain()
        self._batcher.close()
        await self._finished.wait()
        self._upload_process.close()


def _make_crowd_error(part: PartId) -> PictureError:
    text = f"The upload {part} was not decoded, because too many uploads waited. Upload fewer pictures at once."
    return PictureError(RefusalReason.DECODER_LIMITS, text)


def _search_details(decoded: DecodedImage, details: VersionDetails | None, regions: Regions | None) -> DecodedImage:
    """Searches the original pixels of an image for small defects. Updates the metrics for this search."""
    if details is None or isinstance(decoded.picture, PictureError):
        return decoded.search_details(details, regions)
    with metrics.detail_seconds.time():
        searched = decoded.search_details(details, regions)
    if searched.inspection is not None and searched.inspection.skipped:
        part, reason = decoded.record.part, searched.inspection.skipped
        metrics.details_skipped.labels(part.line, reason).inc()
        log.warning("The picture of part %s could not be searched for small defects: %s.", part, reason, extra={"part": str(part)})
    return searched


def _isolate(image: DecodedImage, step: Callable[[DecodedImage], DecodedImage]) -> DecodedImage:
    """Returns `step(image)`. If `step` raises an error, returns `image` with this error in place of the picture.

    If `step` raises an OSError, the object store or the machine has failed, and the picture is perhaps good. So this function raises the
    OSError again.
    """
    try:
        return step(image)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  a picture can cause any error, and only this picture must fail
        return replace(image, picture=make_handling_error(image.record.part, error))


def _apply_rule(rule: LineRule, judged: JudgedImage) -> JudgedImage:
    try:
        return rule.apply(judged)
    except Exception as error:  # noqa: BLE001  a picture can cause any error, and only this picture must fail
        return replace(judged, prediction=make_handling_error(judged.decoded.record.part, error))


def _judge_by_ensemble(images: list[DecodedImage], assignments: list[ModelAssignment], rules: list[LineRule]) -> list[JudgedImage]:
    """Judges each image by the ensemble that is assigned to its line. All images of one ensemble are judged in one call."""
    judged: dict[int, JudgedImage] = {}
    for ensemble, indices in group_by_predictor([assignment.ensemble for assignment in assignments]):
        with metrics.inference_seconds.labels(ensemble.runtime.name).time():
            own_rules = [rules[index] for index in indices]
            judged.update(zip(indices, judge_images([images[index] for index in indices], ensemble, own_rules), strict=True))
    return [judged[index] for index in range(len(images))]


def _name_kinds(judged: list[JudgedImage], assignments: list[ModelAssignment]) -> list[JudgedImage]:
    """Returns the judged images. An image with the label `defect` gets the kind of its largest defect.

    Only an ensemble with a segmentation head can name kinds of defects.
    """
    named = list(judged)
    for ensemble, indices in group_by_predictor([assignment.ensemble for assignment in assignments]):
        if ensemble.segmentation is not None:
            with metrics.kind_seconds.time():
                for index, image in zip(indices, name_kinds([judged[index] for index in indices], ensemble.segmentation), strict=True):
                    named[index] = image
    return named


def _report_ages(records: Iterable[PendingImage]) -> None:
    """Sets the metric `castline_consumer_lag_seconds`. For each line, the value is the age of the line's oldest picture in the batch."""
    now = utc_now()
    oldest: dict[str, datetime] = {}
    for record in records:
        oldest[record.line] = min(record.captured_at, oldest.get(record.line, now))
    for line, captured_at in oldest.items():
        metrics.consumer_lag_seconds.labels(line).set((now - captured_at).total_seconds())


def _count_verdicts(confirmed: list[tuple[JudgedImage, Verdict]]) -> None:
    """Updates the metrics of verdicts after the brokers have confirmed the verdicts. `confirmed` holds pairs of image and verdict."""
    confirmed_at = utc_now()
    for judged, verdict in confirmed:
        line = verdict.line
        metrics.verdicts.labels(line, verdict.label, verdict.model).inc()
        metrics.verdict_age_seconds.labels(line).observe(max(0.0, (confirmed_at - verdict.captured_at).total_seconds()))
        if verdict.kind:
            metrics.defects_by_kind.labels(line, verdict.kind).inc()
        if verdict.overdue:
            metrics.verdicts_overdue.labels(line).inc()
        if verdict.label == "review":
            metrics.reviews_by_reason.labels(line, verdict.reason).inc()
        if isinstance(judged.prediction, Prediction) and judged.prediction.defect_probability is not None:
            metrics.defect_probability.labels(line).observe(judged.prediction.defect_probability)
            if compute_disagreement(verdict.votes, verdict.threshold) is not None:
                metrics.disagreements.labels(line).inc()


def _to_monotonic_clock(deadline: datetime | None) -> float | None:
    """Converts `deadline` to the clock of `time.monotonic`, in seconds."""
    if deadline is None:
        return None
    return time.monotonic() + (deadline - utc_now()) / timedelta(seconds=1)
