"""Passes TCP connections on: `python -m tests.campaign.relay LISTEN_HOST LISTEN_PORT TARGET_HOST TARGET_PORT`.

The embedded broker listens on loopback only. Relays make it reachable at the same loopback address in the namespace of another machine.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

_PIECE_BYTES = 65536


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def serve(listen_host: str, listen_port: int, target_host: str, target_port: int) -> None:
    """Listens for ever. A connection ends when one of its two sides ends it, or if the target does not answer."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target_reader, target_writer = await asyncio.open_connection(target_host, target_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, target_writer), _pump(target_reader, writer))

    server = await asyncio.start_server(connect, listen_host, listen_port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
