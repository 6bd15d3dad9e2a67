"""Reports of counted parts to a gateway that is away, refuses reports, or answers late."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime

from aiohttp import web
from prometheus_client import REGISTRY

from agents.gate.lane import PartCounted
from agents.sorter import part_reports
from agents.sorter.journal import CountedPart
from agents.sorter.part_reports import PartReports
from deploy.supervisor.ports import free_ports

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


class Gateway:
    """A web server that keeps the parts that it has accepted. `choose_status` decides about each report by its part number."""

    def __init__(self, port: int, choose_status: Callable[[int], int] = lambda part: 202) -> None:
        self.port = port
        self.parts: list[int] = []
        self._choose_status = choose_status
        app = web.Application()
        app.router.add_post("/lines/{line}/parts", self._accept)
        self._runner = web.AppRunner(app)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _accept(self, request: web.Request) -> web.Response:
        part = (await request.json())["part"]
        status = self._choose_status(part)
        if status < 300:
            self.parts.append(part)
        return web.json_response({}, status=status)

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.parts) < count:  # noqa: ASYNC110  The web server has no event for this.
                await asyncio.sleep(0.02)


def counted(part: int, age_s: float = 0.0) -> PartCounted:
    return PartCounted(1, part, NOW, age_s)


def read_failures(line: str) -> float:
    return REGISTRY.get_sample_value("castline_part_reports_failed_total", {"line": line}) or 0.0


def test_parts_that_were_counted_while_the_gateway_was_away_are_reported_when_it_is_back() -> None:
    async def run() -> None:
        gateway = Gateway(free_ports())
        async with PartReports(f"http://127.0.0.1:{gateway.port}", "away-1", "", in_time_s=0.3) as reports:
            for part in range(1, 101):
                reports.report(counted(part))
            async with asyncio.timeout(20):
                while read_failures("away-1") < part_reports._MAX_REQUESTS:  # noqa: ASYNC110  The metric has no event.
                    await asyncio.sleep(0.02)
            await gateway.start()
            await gateway.wait_for(100)
            assert sorted(gateway.parts) == list(range(1, 101)), "each part is reported once"
            finished: list[CountedPart] = []
            async with asyncio.timeout(20):
                # A report is finished when its answer has come. The gateway keeps the part a little earlier.
                while len(finished) < 100:
                    finished += reports.take_finished()
                    await asyncio.sleep(0.02)
            assert sorted(part.part for part in finished) == list(range(1, 101))
            assert read_failures("away-1") == 100, "all reports came too late for the gate"
        await gateway.stop()

    asyncio.run(run())


def test_a_report_that_the_gateway_refuses_is_not_repeated_and_a_full_spool_is_asked_again() -> None:
    async def run() -> None:
        tries: list[int] = []

        def choose_status(part: int) -> int:
            tries.append(part)
            return {1: 422, 2: 507 if tries.count(2) < 3 else 202}.get(part, 202)

        gateway = Gateway(free_ports(), choose_status)
        await gateway.start()
        async with PartReports(f"http://127.0.0.1:{gateway.port}", "away-2", "", in_time_s=30) as reports:
            for part in (1, 2, 3):
                reports.report(counted(part))
            await gateway.wait_for(2)
            assert sorted(tries) == [1, 2, 2, 2, 3]
            assert read_failures("away-2") == 1
        await gateway.stop()

    asyncio.run(run())


def test_a_gateway_that_answers_nothing_holds_up_neither_the_sorter_nor_its_end() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with PartReports(f"http://127.0.0.1:{silent.getsockname()[1]}", "away-3", "", in_time_s=0.3) as reports:
                for part in range(1, part_reports.MAX_REPORTS + 4):
                    reports.report(counted(part))
                dropped = reports.take_finished()
                assert [part.part for part in dropped] == [1, 2, 3], "the oldest reports make room"
                reports.send_again([CountedPart(1, 2000, NOW)])
                assert reports.take_finished() == [], "the part waits already"

    asyncio.run(run())


def test_a_late_report_that_the_gateway_then_refuses_counts_once() -> None:
    async def run() -> None:
        before, tries = read_failures("away-4"), 0

        def choose_status(part: int) -> int:
            nonlocal tries
            tries += 1
            return (408, 429, 503, 422)[tries - 1]

        gateway = Gateway(free_ports(), choose_status)
        await gateway.start()
        async with PartReports(f"http://127.0.0.1:{gateway.port}", "away-4", "", in_time_s=0.1) as reports:
            reports.report(counted(1))
            async with asyncio.timeout(20):
                while not reports.take_finished():  # noqa: ASYNC110  The report has no event.
                    await asyncio.sleep(0.02)
        assert (tries, read_failures("away-4")) == (4, before + 1)
        await gateway.stop()

    asyncio.run(run())
