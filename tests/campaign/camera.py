"""The cameras of the campaign: each trigger gives a picture, which is uploaded until the gateway has acknowledged it."""

from __future__ import annotations

import hashlib
import queue
import random
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import requests

from deploy.demo.foundry import render_castings
from tests.campaign.scene import is_defect, write_line

_RENDERED = 60
# A camera keeps at most this many pictures that are not acknowledged. Further triggers give no picture.
_MEMORY = 400
_CONNECTIONS = 6
_RETRY_S = 0.5
_TIMEOUT_S = 20.0
_SHUTTER_S = 0.02


class CastingPictures:
    """Rendered castings, good and defective. Each casting of the world gets a file with other bytes than all others."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        folder = render_castings(1, lambda done, total: None, count=_RENDERED)
        self._files = {is_bad: _read(folder, "def" if is_bad else "ok") for is_bad in (False, True)}

    def take(self, line: str, casting: int) -> bytes:
        """Returns the picture of a casting. It is the same for each call."""
        files = self._files[is_defect(self._seed, line, casting)]
        jpeg = files[random.Random(f"{self._seed}:{line}:{casting}:picture").randrange(len(files))]
        comment = f"campaign {self._seed} {line} {casting}".encode()
        # A JPEG comment behind the start marker makes the bytes, and so the checksum, unique.
        return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:]


def _read(folder: Path, prefix: str) -> list[bytes]:
    files = sorted(file for file in folder.glob(f"{prefix}*/*") if file.suffix in (".jpg", ".jpeg"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no rendered castings of the class {prefix}")
    return [file.read_bytes() for file in files]


class Camera:
    """One camera with a memory. It uploads its pictures over some connections, and repeats an upload without an acknowledgement.

    - `is_away`: takes no pictures, as if the camera had no power. What waits in the memory is lost.
    - `clock_error_s`: how fast the camera's clock is.
    """

    def __init__(self, line: str, url: str, token: str, pictures: CastingPictures, log: IO[str]) -> None:
        self.line = line
        self.is_away = False
        self.clock_error_s = 0.0
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
        self._pictures = pictures
        self._log = log
        self._log_lock = threading.Lock()
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(_MEMORY)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, name=f"camera-{line}", daemon=True) for _ in range(_CONNECTIONS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_S + 5)

    @property
    def waiting_count(self) -> int:
        return self._waiting.unfinished_tasks

    def trigger(self, facts: dict[str, Any]) -> None:
        """Takes a picture of the casting that `facts` name, unless the camera is away or its memory is full."""
        if not self.is_away:
            with suppress(queue.Full):
                self._waiting.put_nowait({**facts, "captured_at": facts["at"] + _SHUTTER_S + self.clock_error_s})

    def _run(self) -> None:
        with requests.Session() as session:
            while not self._stopping.is_set():
                try:
                    facts = self._waiting.get(timeout=0.2)
                except queue.Empty:
                    continue
                for _ in self._attempts():
                    if self._upload(session, facts, self._pictures.take(self.line, facts["casting"])):
                        break
                self._waiting.task_done()

    def _attempts(self) -> Iterator[None]:
        while not self._stopping.is_set() and not self.is_away:
            yield
            self._stopping.wait(_RETRY_S)

    def _upload(self, session: requests.Session, facts: dict[str, Any], picture: bytes) -> bool:
        """Uploads a picture once. Returns whether the camera is done with it, because the gateway has taken or refused it for good."""
        key = f"{facts['line']}-{facts['run']}-{facts['part']}-{facts['casting']}"
        return self.upload(session, picture, facts["captured_at"], key, {name: facts[name] for name in ("casting", "run", "part")})

    def upload(self, session: requests.Session, picture: bytes, captured_at_s: float, key: str, facts: dict[str, Any]) -> bool:
        """Uploads a file once, and logs the attempt with `facts`: the casting, its run and its part, or None for each.

        Returns whether the gateway has taken or refused the file for good.
        """
        captured_at = datetime.fromtimestamp(captured_at_s, UTC).isoformat()
        headers = {**self._headers, "X-Captured-At": captured_at, "Idempotency-Key": key}
        entry: dict[str, Any] = {"line": self.line, **facts, "sha256": hashlib.sha256(picture).hexdigest()}
        entry |= {"sent_at": time.time(), "status": None, "acknowledged_at": None}
        try:
            answer = session.post(self._url, data=picture, headers=headers, timeout=_TIMEOUT_S)
            entry["status"] = answer.status_code
            if answer.status_code == 201:
                entry["acknowledged_at"] = time.time()
                entry |= {name: answer.json()[name] for name in ("matched", "repeated")} | {"judged_part": answer.json()["part"]}
        except (requests.RequestException, ValueError) as error:
            entry["error"] = type(error).__name__
        with self._log_lock:
            write_line(self._log, entry)
        return entry["status"] is not None and entry["status"] not in (408, 429, 500, 502, 503, 504, 507)
