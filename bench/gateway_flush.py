"""Measures how much the flush of each picture to the disk slows down the gateway.

The gateway first forces a picture to the disk, and then confirms the picture to the camera.

Rounds with and without the flush alternate in one run. Kafka is not measured: a channel in memory confirms each picture at once.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

from aiohttp import ClientSession
from pydantic import SecretStr

from agents.gateway.gateway import run_camera
from agents.gateway.intake import Intake
from agents.gateway.sender import PictureChannel, Sender, SendResult
from agents.gateway.spool import Spool, SpoolBudget, SpooledPicture
from agents.gateway.upload_camera import LineEndpoint, UploadCamera, build_app
from agents.gateway.web_server import start_site
from deploy.demo.audit import compute_percentile
from streams.complaints import Complaints
from streams.health import ProgressWatchdog
from streams.settings import CameraSettings

_LINE = "line-1"
_TOKEN = "bench"
_WARM_UP_S = 0.5


@dataclass(frozen=True)
class RoundFigures:
    """The figures of one round: confirmed pictures a second, and the 99th percentile of the time from upload to receipt, in ms."""

    pictures_per_s: float
    p99_ms: float


@dataclass(frozen=True)
class FlushComparison:
    """The result of the comparison of a gateway that flushes each picture to the disk with a gateway that does not.

    `with_flush` and `without_flush` are medians over all rounds. In each pair of rounds, the throughput with the flush is divided by the
    throughput without the flush. `ratio` is the median of these quotients.
    """

    pairs: int
    with_flush: RoundFigures
    without_flush: RoundFigures
    ratio: float


class _UnflushedSpool(Spool):
    """A spool that does not wait for the disk. It confirms pictures that can still be lost by a power cut."""

    def flush(self) -> None:
        pass


class _MemoryChannel:
    """Takes the place of the channel to Kafka, and confirms each picture immediately."""

    def send(self, picture: SpooledPicture, on_result: Callable[[SendResult], None]) -> None:
        on_result(SendResult(picture, None))

    def close(self) -> None:
        pass


def _open_channel() -> PictureChannel:
    return _MemoryChannel()


def compare_flush(
    folder: Path | None, pairs: int, seconds: float, connections: int, picture_bytes: int, report: Callable[[str], None]
) -> FlushComparison:
    """Measures the gateway with and without the flush, alternately, in 2 * `pairs` rounds.

    Each round takes `seconds`. The spool lies in `folder`. `connections` cameras upload at the same time. Each camera uploads its next
    picture as soon as the gateway has confirmed its last one.
    """
    with_flush: list[RoundFigures] = []
    without: list[RoundFigures] = []
    for number in range(pairs):
        for spool_class, figures in ((Spool, with_flush), (_UnflushedSpool, without)):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                figures.append(_measure_round(spool_class, Path(place), seconds, connections, picture_bytes))
        report(f"pair {number + 1} of {pairs}: {with_flush[-1].pictures_per_s:.0f} and {without[-1].pictures_per_s:.0f} pictures a second")
    ratios = [one.pictures_per_s / other.pictures_per_s for one, other in zip(with_flush, without, strict=True)]
    return FlushComparison(pairs, _median(with_flush), _median(without), median(ratios))


def _median(figures: list[RoundFigures]) -> RoundFigures:
    return RoundFigures(median(one.pictures_per_s for one in figures), median(one.p99_ms for one in figures))


def _measure_round(spool_class: type[Spool], place: Path, seconds: float, connections: int, picture_bytes: int) -> RoundFigures:
    spool = spool_class(place, _LINE, SpoolBudget(2**30))
    sender = Sender(spool, _open_channel, lambda: True, 64, ProgressWatchdog(30))
    settings = CameraSettings(kind="http")
    intake = Intake(settings, picture_bytes, spool, on_stored=sender.wake)
    camera, stopping = UploadCamera(), threading.Event()
    thread = threading.Thread(target=run_camera, args=(_LINE, camera, intake, Complaints(), stopping))
    intake.start()
    sender.start()
    thread.start()
    try:
        times_s, took_s = asyncio.run(_upload(camera, seconds, connections, picture_bytes))
    finally:
        stopping.set()
        thread.join()
        intake.stop(10)
        sender.stop(time.monotonic() + 5)
        sender.join(5)
        spool.close()
    return RoundFigures(len(times_s) / took_s, 1000 * (compute_percentile(times_s, 0.99) or 0.0))


async def _upload(camera: UploadCamera, seconds: float, connections: int, picture_bytes: int) -> tuple[list[float], float]:
    """Uploads pictures for `seconds`. Returns how long each upload took, and how long the whole measurement took, in seconds."""
    app = build_app({_LINE: LineEndpoint(_LINE, SecretStr(_TOKEN), camera, None, None)}, picture_bytes, SecretStr(""))
    runner, address = await start_site(app, "127.0.0.1", 0)
    headers = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": "image/jpeg"}
    numbers, times_s = count(), []
    began_s = time.monotonic() + _WARM_UP_S

    async with ClientSession() as session:

        async def upload_pictures() -> None:
            while (sent_s := time.monotonic()) < began_s + seconds:
                picture = b"\xff\xd8\xff" + str(next(numbers)).encode().ljust(picture_bytes - 3, b".")
                async with session.post(f"{address}/lines/{_LINE}/pictures", data=picture, headers=headers) as answer:
                    answer.raise_for_status()
                    await answer.read()
                if sent_s >= began_s:
                    times_s.append(time.monotonic() - sent_s)

        await asyncio.gather(*(upload_pictures() for _ in range(connections)))
    took_s = time.monotonic() - began_s
    await runner.cleanup()
    return times_s, took_s
