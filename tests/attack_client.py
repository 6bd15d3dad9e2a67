"""Sends a mix of attacks over HTTP to a station and a gateway: 200 requests a second from eight addresses of the loopback interface.

`make campaign-attack` runs this program as one process of its own. The program reads its orders from standard input as JSON, and writes how
each kind of request was answered to standard output. With the argument `empty-server`, the program is a server that only reads requests.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import struct
import sys
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Literal
from urllib.parse import urlencode

Kind = Literal["unknown path", "oversized header", "oversized body", "slow body", "silent socket", "log-in", "bomb", "stream"]
Server = Literal["station", "gateway"]

# Share of each kind, in percent of all requests.
SHARES: dict[Kind, int] = {
    "unknown path": 35,
    "log-in": 15,
    "oversized header": 10,
    "oversized body": 10,
    "slow body": 10,
    "silent socket": 10,
    "bomb": 5,
    "stream": 5,
}
SOURCES = tuple(f"127.0.1.{number}" for number in range(1, 9))
LINE = "by-hand"
# The client gives a connection up after this time. The servers close silent sockets after 10 s, and slow bodies after 20 s.
_PATIENCE_S: dict[Kind, float] = {"slow body": 22.0, "silent socket": 12.0, "stream": 12.0}
_OTHER_PATIENCE_S = 10.0
_ACCOUNTS = 50
_OVERSIZED_HEADER_BYTES = 80 * 1024
_ANNOUNCED_BYTES = 2**30
_SENT_BYTES = 256 * 1024
# One picture has as many pixels as an upload may have, and is decoded. The other one is refused.
_DECODED_SIDE_PX, _REFUSED_SIDE_PX = 3_900, 7_000
_GZIP_BYTES = 64 * 2**20
_OPEN_FILES = 4096


@dataclass(frozen=True)
class Orders:
    """What the client is to do: `count` requests, `rate_per_s` of them a second, to the ports of a station and a gateway.

    `cookie` is the log-in session of an operator. `upload_token` is an API token of an account that may upload pictures, and `line_token`
    the token of the line LINE.
    """

    station_port: int
    gateway_port: int
    cookie: str
    upload_token: str
    line_token: str
    seed: int
    count: int
    rate_per_s: float

    def find_port(self, server: Server) -> int:
        return self.station_port if server == "station" else self.gateway_port


@dataclass(frozen=True)
class Attack:
    """One request: the bytes that are sent at once, and whether a byte follows every second until an answer comes."""

    kind: Kind
    server: Server
    source: str
    data: bytes
    is_slow: bool = False


@dataclass(frozen=True)
class ClientResult:
    """How the requests were answered.

    - `answers`: for each kind and server, such as `log-in at the station`, the number of each answer. An answer is an HTTP status,
      `closed` (without an answer), `not connected`, or `given up` (the server kept the connection open).
    - `began_s`, `ended_s`: the times of the first and the last request, in seconds since 1970.
    - `latest_s`: the longest delay of a request behind its time. If it is long, the client did not keep its rate.
    """

    answers: dict[str, dict[str, int]]
    began_s: float
    ended_s: float
    latest_s: float
    processor_s: float


def make_mix(seed: int, count: int) -> list[Kind]:
    """Returns the kinds of `count` requests in a random order. Each kind has its share of SHARES, rounded to whole requests."""
    bounds, total = [], 0
    for share in SHARES.values():
        total += share
        bounds.append(round(count * total / 100))
    numbers = [end - begin for begin, end in zip([0, *bounds[:-1]], bounds, strict=True)]
    kinds = [kind for kind, number in zip(SHARES, numbers, strict=True) for _ in range(number)]
    random.Random(seed).shuffle(kinds)
    return kinds


def make_attacks(orders: Orders) -> list[Attack]:
    """Returns all requests in their order. The requests of each kind go to the station and to the gateway in turns, if both know them."""
    numbers: Counter[Kind] = Counter()
    attacks = []
    for kind in make_mix(orders.seed, orders.count):
        number = numbers[kind]
        numbers[kind] += 1
        attacks.append(_make_attack(kind, number, orders))
    return attacks


def _make_attack(kind: Kind, number: int, orders: Orders) -> Attack:
    source = SOURCES[number // 2 % len(SOURCES)]
    server: Server = "gateway" if number % 2 else "station"
    pictures = f"/lines/{LINE}/pictures"
    posted = "/log-in/" if server == "station" else pictures
    with_token = f"Authorization: Bearer {orders.line_token}\r\n"
    if kind == "unknown path":
        return Attack(kind, server, source, _head("GET", f"/unknown/{orders.seed}/{number}"))
    if kind == "silent socket":
        return Attack(kind, server, source, b"")
    if kind == "oversized header":
        return Attack(kind, server, source, _head("GET", "/", f"X-Filler: {'x' * _OVERSIZED_HEADER_BYTES}\r\n"))
    if kind == "oversized body":
        head = _head("POST", posted, f"Content-Type: image/png\r\nContent-Length: {_ANNOUNCED_BYTES}\r\n" + with_token)
        return Attack(kind, server, source, head + bytes(_SENT_BYTES))
    if kind == "slow body":
        head = _head("POST", posted, "Content-Type: image/png\r\nContent-Length: 1000\r\n" + with_token)
        return Attack(kind, server, source, head + b"x", is_slow=True)
    if kind == "stream":
        return Attack(kind, "station", source, _head("GET", "/live/events", f"Cookie: {orders.cookie}\r\n"))
    if kind == "log-in":
        return Attack(kind, "station", source, _make_log_in(number))
    return Attack(kind, server, source, _make_bomb(number, server, orders.upload_token, with_token))


def _head(method: str, path: str, fields: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{fields}\r\n".encode()


def _make_log_in(number: int) -> bytes:
    token = "a" * 32
    form = urlencode({"username": f"person-{number % _ACCOUNTS}", "password": f"guess {number}", "csrfmiddlewaretoken": token}).encode()
    fields = f"Cookie: csrftoken={token}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n"
    return _head("POST", "/log-in/", fields) + form


def _make_bomb(number: int, server: Server, upload_token: str, with_token: str) -> bytes:
    """Returns an upload of few bytes that unpacks to many: a PNG file for the station, or a compressed body for the gateway."""
    if server == "gateway":
        body = _pack_zeros(_GZIP_BYTES)
        fields = f"Content-Type: image/bmp\r\nContent-Encoding: deflate\r\nContent-Length: {len(body)}\r\n"
        return _head("POST", f"/lines/{LINE}/pictures", fields + with_token) + body
    body = make_png(_DECODED_SIDE_PX if number % 4 else _REFUSED_SIDE_PX, number)
    fields = f"Content-Type: image/png\r\nContent-Length: {len(body)}\r\nAuthorization: Bearer {upload_token}\r\n"
    return _head("POST", "/api/inspections", fields) + body


@cache
def _pack_zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def make_png(side_px: int, number: int) -> bytes:
    """Returns a black square PNG with the comment `number`, so that no two files are equal. 3,900 px need 15 KB."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 0, 0, 0, 0)
    pixels = _pack_zeros((side_px + 1) * side_px)
    chunks = ((b"IHDR", header), (b"tEXt", b"Comment\0%d" % number), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in chunks)


async def send_attacks(orders: Orders) -> ClientResult:
    """Sends each request at its time. Connections that are still open after the last request are given up."""
    attacks = make_attacks(orders)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    began_s, began_cpu_s, latest_s = time.time(), time.process_time(), 0.0
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    running: set[asyncio.Task[None]] = set()

    async def run(attack: Attack) -> None:
        answers[f"{attack.kind} at the {attack.server}"][await _send(attack, orders.find_port(attack.server))] += 1

    for number, attack in enumerate(attacks):
        await asyncio.sleep(max(0.0, start_s + number / orders.rate_per_s - loop.time()))
        latest_s = max(latest_s, loop.time() - start_s - number / orders.rate_per_s)
        task = asyncio.create_task(run(attack))
        running.add(task)
        task.add_done_callback(running.discard)
    ended_s = time.time()
    await asyncio.sleep(1)
    for task in running:
        task.cancel()
    await asyncio.gather(*running)
    counts = {name: dict(sorted(found.items())) for name, found in sorted(answers.items())}
    return ClientResult(counts, began_s, ended_s, latest_s, time.process_time() - began_cpu_s)


async def _send(attack: Attack, port: int) -> str:
    """Sends one request, and returns its answer as ClientResult describes it."""
    writer = None
    status = "given up"
    try:
        async with asyncio.timeout(_PATIENCE_S.get(attack.kind, _OTHER_PATIENCE_S)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(attack.source, 0))
            status = "closed"
            writer.write(attack.data)
            first = await _await_answer(attack, reader, writer)
            if first.startswith(b"HTTP/"):
                status = first.split(b" ", 2)[1].decode("latin-1")
            while await reader.read(65536):
                pass
    except (TimeoutError, asyncio.CancelledError):
        return status if status.isdigit() else "given up"
    except OSError:
        return status if writer else "not connected"
    finally:
        if writer is not None:
            writer.transport.abort()
    return status


async def _await_answer(attack: Attack, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Returns the first line of the answer, or b"" if the server closes the connection. A slow request sends a byte every second."""
    answer = asyncio.ensure_future(reader.readline())
    try:
        while attack.is_slow and not answer.done():
            await asyncio.wait([answer], timeout=1)
            writer.write(b"x")
        return await answer
    finally:
        answer.cancel()


async def serve_empty() -> None:
    """Serves on a free port, which is printed. Reads each request, answers 404, and closes the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            left = min(_SENT_BYTES, next((int(f[15:]) for f in head.split(b"\r\n") if f.startswith(b"Content-Length:")), 0))
            while left > 0 and (piece := await reader.read(min(left, 65536))):
                left -= len(piece)
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2 * _OVERSIZED_HEADER_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(arguments: Sequence[str]) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard), hard))
    if "empty-server" in arguments:
        asyncio.run(serve_empty())
        return
    orders = Orders(**json.load(sys.stdin))
    print(json.dumps(asdict(asyncio.run(send_attacks(orders)))))


if __name__ == "__main__":
    main(sys.argv[1:])
