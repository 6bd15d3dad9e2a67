"""The station closes connections whose request, or whose reading of an answer, takes too long: a real server on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn

from station.http_protocol import LimitedProtocol
from streams.server_limits import ConnectionLimits
from tests.event_loop import wait_until

pytestmark = pytest.mark.asyncio

REQUEST = b"GET / HTTP/1.1\r\nHost: station\r\n\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers with 8 MiB, which is more than the buffers of a connection hold, or with nothing for HEAD."""
    body = bytes(2**23) if scope["method"] == "GET" else b""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(max_per_network: int = 100, read_bytes_per_s: float = 2**14) -> AsyncIterator[tuple[int, ConnectionLimits]]:
    """Serves the application. Yields the port and the limits. A header gets 0.4 s, and a pause in reading 0.4 s."""
    limits = ConnectionLimits(max_per_network, 100)

    class QuickProtocol(LimitedProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(limits, *args, header_time_s=0.4, read_pause_s=0.4, read_bytes_per_s=read_bytes_per_s, **kwargs)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(application, http=QuickProtocol, lifespan="off", log_config=None))
        task = asyncio.create_task(server._serve([listening]))
        await wait_until(lambda: server.started)
        yield listening.getsockname()[1], limits
        server.should_exit = True
        await task


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """Returns all bytes until the server closes the connection. Fails if it stays open for ten seconds."""
    content = b""
    async with asyncio.timeout(10):
        try:
            while part := await reader.read(2**16):
                content += part
        except ConnectionResetError:
            pass
    return content


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_a_silent_connection_and_a_header_that_trickles_are_closed() -> None:
    async with serving() as (port, limits), connected(port) as (silent, _), connected(port) as (slow, to_slow):

        async def trickle() -> None:
            for byte in REQUEST[:-2] * 10:
                to_slow.write(bytes([byte]))
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        assert await read_to_end(silent) == b""
        assert await read_to_end(slow) == b""
        trickling.cancel()
        await wait_until(lambda: len(limits) == 0)


async def test_a_connection_stays_open_between_two_requests() -> None:
    async with serving() as (port, _), connected(port) as (reader, writer):
        for _ in range(3):
            writer.write(REQUEST.replace(b"GET", b"HEAD"))
            assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            await asyncio.sleep(0.5)


async def test_a_client_that_does_not_read_its_answer_is_cut_off_and_one_that_reads_slowly_gets_it() -> None:
    async with serving() as (port, limits):
        async with connected(port) as (_, deaf):
            deaf.transport.pause_reading()  # type: ignore[attr-defined]  # a transport of sockets can read
            deaf.write(REQUEST)
            await wait_until(lambda: len(limits) == 1)
            await wait_until(lambda: len(limits) == 0)
        async with connected(port) as (reader, writer):
            writer.write(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            content = b""
            while part := await asyncio.wait_for(reader.read(2**20), 10):
                content += part
                await asyncio.sleep(0.02)
            assert len(content) > 2**23


async def test_a_client_that_reads_a_little_of_its_answer_again_and_again_is_cut_off() -> None:
    async with serving(read_bytes_per_s=2**22) as (port, limits), connected(port) as (reader, writer):
        writer.write(REQUEST)
        content = b""
        # The pauses are shorter than 0.4 s, but 8 MiB would take 20 s.
        async with asyncio.timeout(15):
            with suppress(ConnectionResetError):
                while part := await reader.read(2**15):
                    content += part
                    await asyncio.sleep(0.08)
        assert 0 < len(content) < 2**23
        await wait_until(lambda: len(limits) == 0)


async def test_a_connection_above_the_limit_takes_the_place_of_an_idle_one() -> None:
    async with serving(max_per_network=2) as (port, limits), AsyncExitStack() as stack:
        oldest, _ = await stack.enter_async_context(connected(port))
        await wait_until(lambda: len(limits) == 1)
        for _ in range(2):
            reader, writer = await stack.enter_async_context(connected(port))
        writer.write(REQUEST.replace(b"GET", b"HEAD"))
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert await read_to_end(oldest) == b""
        assert len(limits) <= 2
