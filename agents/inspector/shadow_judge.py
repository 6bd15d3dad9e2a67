"""Lets a shadow version judge pictures that already have their verdict, so that people can compare it with the version in use.

If the two versions give different labels, the difference is counted and logged. A label of the shadow version never moves a gate.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from agents.inspector.background_loop import BackgroundLoop
from agents.inspector.decoding import DecodedImage
from agents.inspector.judging import JudgedImage, LineRule, judge_images
from models.inference.ensemble import Ensemble
from models.inference.soft_vote import Prediction
from models.registry import Version
from streams import metrics

log = logging.getLogger(__name__)

# Limits for the pictures that wait for a shadow version: their number, and the size of their records in bytes. If a limit is reached,
# further pictures are dropped.
_MAX_SAMPLES = 64
_MAX_SAMPLE_BYTES = 32 * 2**20
# A shadow version judges this many pictures at a time. The number is small, because pictures from cameras wait until the shadow
# version is done.
_MAX_BATCH = 4
_BUSY_WAIT_S = 0.02

# A function that decodes an image again for the given ensemble. A shadow version can need pictures of another size than the version in use.
DecodeAgain = Callable[[DecodedImage, Ensemble], DecodedImage]

# A function that returns the rule for the labels of a line. The arguments are the name of the line and the version that judges its images.
FindRule = Callable[[str, Version], LineRule]


@dataclass(frozen=True)
class ShadowSample:
    """An image for the comparison of two versions.

    `ensemble` belongs to the version in use and has judged the image already. `shadow` belongs to the shadow version and judges it later.
    """

    judged: JudgedImage
    ensemble: Ensemble
    shadow: Ensemble

    @property
    def size_bytes(self) -> int:
        """The size of the picture in its Kafka record. A picture in the object store counts as 0 bytes."""
        return len(self.judged.decoded.record.source.value or b"")


class ShadowJudge:
    """Lets shadow versions judge queued images while `is_idle` returns True. `executor` holds the threads in which networks run."""

    def __init__(self, executor: Executor, is_idle: Callable[[], bool], decode_again: DecodeAgain, find_rule: FindRule) -> None:
        self._executor = executor
        self._is_idle = is_idle
        self._decode_again = decode_again
        self._find_rule = find_rule
        self._samples: deque[ShadowSample] = deque()
        self._loop = BackgroundLoop()

    def add_samples(self, samples: Sequence[ShadowSample]) -> None:
        """Queues decoded images, which shadow versions judge later. Images that have no room in the queue are dropped and counted."""
        for sample in samples:
            if len(self._samples) < _MAX_SAMPLES and sum(queued.size_bytes for queued in self._samples) < _MAX_SAMPLE_BYTES:
                self._samples.append(sample)
            else:
                metrics.shadow_dropped.labels(sample.judged.decoded.record.part.line).inc()
        self._loop.wake()

    def close(self) -> None:
        """Ends the loop of `run`. Images that are still queued are dropped."""
        self._loop.close()

    async def run(self) -> None:
        """Lets shadow versions judge the queued images, until `close` is called."""
        while not self._loop.is_closed:
            if not self._samples:
                await self._loop.wait()
            elif self._is_idle():
                await asyncio.get_running_loop().run_in_executor(self._executor, self._compare, self._take_batch())
            else:
                await self._loop.wait(_BUSY_WAIT_S)

    def _take_batch(self) -> list[ShadowSample]:
        """Removes the next images with the same shadow version from the queue, and returns them."""
        shadow = self._samples[0].shadow
        batch: list[ShadowSample] = []
        while self._samples and self._samples[0].shadow is shadow and len(batch) < min(_MAX_BATCH, shadow.max_batch):
            batch.append(self._samples.popleft())
        return batch

    def _compare(self, batch: Sequence[ShadowSample]) -> None:
        """Lets the shadow version judge `batch`. Counts and logs each label that differs from the verdict. Runs in a network thread."""
        shadow = batch[0].shadow
        images = [self._fit(sample.judged.decoded, shadow) for sample in batch]
        rules = [self._find_rule(image.record.part.line, shadow.version) for image in images]
        for sample, rule, judged in zip(batch, rules, judge_images(images, shadow, rules), strict=True):
            other = rule.apply(judged)
            part = sample.judged.decoded.record.part
            metrics.shadow_judged.labels(part.line, shadow.version_name).inc()
            if other.label != sample.judged.label:
                metrics.shadow_disagreements.labels(part.line, shadow.version_name).inc()
                log.info(
                    "Part %s: version %s gives the label %s, but the shadow version %s gives %s.",
                    part,
                    sample.ensemble.version_name,
                    _describe_prediction(sample.judged),
                    shadow.version_name,
                    _describe_prediction(other),
                    extra={"part": str(part)},
                )

    def _fit(self, image: DecodedImage, ensemble: Ensemble) -> DecodedImage:
        fitting = image if image.fits(ensemble.side_px, ensemble.details, image.regions) else self._decode_again(image, ensemble)
        return fitting.check(ensemble.part_reference)


def _describe_prediction(judged: JudgedImage) -> str:
    prediction = judged.prediction
    if isinstance(prediction, Prediction):
        return f"{prediction.label} ({prediction.rank:.3f})"
    return f"review ({prediction.reason})"
