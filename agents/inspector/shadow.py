"""The silent judge: a second version's opinion on pictures already judged, in time that nobody else wants. It moves nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from agents.inspector.decoding import Decoded
from agents.inspector.judging import Judged, judge
from models.inference.ensemble import Ensemble
from models.pictures.decoder import DecodedPicture
from streams import metrics
from streams.errors import PictureError

log = logging.getLogger(__name__)

_MOST = 64  # pictures that wait: two batches, so that memory stays as it is
_AT_ONCE = 4  # a picture that comes meanwhile waits for no more than these
_LOOK_AGAIN_S = 0.02

Decode = Callable[[Decoded, int], Decoded]  # once more, at another side


@dataclass(frozen=True)
class Witness:
    """A picture judged by the version in force, and who else is to judge it."""

    judged: Judged
    judge: Ensemble
    shadow: Ensemble


class Shadow:
    """Judges what `watch` is given while `idle` says that nothing else waits, on the executor of the networks."""

    def __init__(self, networks: Executor, idle: Callable[[], bool], decode_again: Decode) -> None:
        self._networks = networks
        self._idle = idle
        self._decode_again = decode_again
        self._waiting: deque[Witness] = deque()
        self._come = asyncio.Event()
        self._closed = False

    def watch(self, witnesses: Sequence[Witness]) -> None:
        """Takes readable pictures as far as there is room; counts the others."""
        for witness in witnesses:
            if len(self._waiting) < _MOST:
                self._waiting.append(witness)
            else:
                metrics.shadow_dropped.labels(witness.judged.decoded.arrival.part.line).inc()
        self._come.set()

    def close(self) -> None:
        """What still waits is let go."""
        self._closed = True
        self._come.set()

    async def run(self) -> None:
        """Judges until closed."""
        while not self._closed:
            if not self._waiting:
                self._come.clear()
                await self._come.wait()
            elif self._idle():
                shadow = self._waiting[0].shadow
                piece: list[Witness] = []
                while self._waiting and self._waiting[0].shadow is shadow and len(piece) < min(_AT_ONCE, shadow.max_batch):
                    piece.append(self._waiting.popleft())
                await asyncio.get_running_loop().run_in_executor(self._networks, self._compare, piece, shadow)
            else:
                await asyncio.sleep(_LOOK_AGAIN_S)

    def _compare(self, piece: list[Witness], shadow: Ensemble) -> None:
        decoded = [self._fitting(witness.judged.decoded, shadow.side_px) for witness in piece]
        for witness, other in zip(piece, judge(decoded, shadow), strict=True):
            part = witness.judged.decoded.arrival.part
            metrics.shadow_judged.labels(part.line, shadow.version_name).inc()
            if label_of(other) != label_of(witness.judged):
                metrics.shadow_disagreements.labels(part.line, shadow.version_name).inc()
                log.info(
                    "part %s: %s in force says %s, %s in its shadow says %s",
                    part,
                    witness.judge.version_name,
                    _said(witness.judged),
                    shadow.version_name,
                    _said(other),
                    extra={"part": str(part)},
                )

    def _fitting(self, decoded: Decoded, side_px: int) -> Decoded:
        return decoded if fits(decoded, side_px) else self._decode_again(decoded, side_px)


def fits(decoded: Decoded, side_px: int) -> bool:
    """Whether a version that takes pictures of `side_px` can judge `decoded` as it is; an unreadable one fits any."""
    return not isinstance(decoded.picture, DecodedPicture) or decoded.picture.pixels.shape[0] == side_px


def label_of(judged: Judged) -> str:
    """The label that the verdict bears."""
    return "review" if isinstance(judged.opinion, PictureError) else judged.opinion.label


def _said(judged: Judged) -> str:
    opinion = judged.opinion
    return f"review ({opinion.reason})" if isinstance(opinion, PictureError) else f"{opinion.label} ({opinion.defect_probability:.3f})"
