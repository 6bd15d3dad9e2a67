"""People at the wall, for a measurement: `python -m bench.viewers ADDRESS BROWSERS`, a process of its own, so that what they take of the
processor can be told from what the station takes.

A browser is a session that follows the wall's events and fetches, four at a time, the pictures of the cards as they are now: what a card
does not show any more is not fetched, as a real browser gives it up. The account is `bench`, its password STATION_PASSWORD. Says `ready`
when all are logged in; ends with its standard input and then says in JSON how many pictures and cards came.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Self

import requests

from deploy.supervisor.launch import bound_command
from streams.errors import CastlineError

ACCOUNT = "bench"
_AT_ONCE = 4  # of a browser's six connections to a station one carries the events
_PICTURE = re.compile(r'src="(/live/pictures/[^"]+)"')
_FORM_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
_PATIENCE_S = 120


class Browser:
    """One person who looks at the wall; `counts` says how many cards and pictures came."""

    def __init__(self, address: str, password: str) -> None:
        self.counts: Counter[str] = Counter()
        self._address = address
        self._news = threading.Condition()
        self._cards: dict[str, list[str]] = {}
        self._asked: set[str] = set()
        session = requests.Session()
        token = _FORM_TOKEN.search(session.get(f"{address}/log-in/", timeout=_PATIENCE_S).text)
        form = {"username": ACCOUNT, "password": password, "csrfmiddlewaretoken": token[1] if token else ""}
        session.post(f"{address}/log-in/", data=form, timeout=_PATIENCE_S).raise_for_status()
        self._cookies = session.cookies
        for what in (self._follow, *[self._fetch] * _AT_ONCE):
            threading.Thread(target=what, daemon=True).start()

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.cookies = self._cookies
        return session

    def _follow(self) -> None:
        """As a browser's EventSource, which asks again when the stream ends."""
        while True:
            with suppress(requests.RequestException):
                self._listen()
            time.sleep(1)

    def _listen(self) -> None:
        name = ""
        with self._session().get(f"{self._address}/live/events", stream=True, timeout=_PATIENCE_S) as events:
            card: list[str] = []
            for raw in events.iter_lines():
                line = raw.decode()
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line:
                    card += _PICTURE.findall(line)
                elif name != "status":
                    with self._news:
                        self._cards[name], card = card, []
                        self.counts["cards"] += 1
                        self._news.notify_all()

    def _fetch(self) -> None:
        session = self._session()
        while True:
            with self._news:
                while not (wanted := [one for card in self._cards.values() for one in card if one not in self._asked]):
                    self._news.wait()
                self._asked.add(wanted[0])
            for _ in range(2):  # as a browser: on another connection where the station had closed this one
                with suppress(requests.RequestException):
                    came = session.get(self._address + wanted[0], timeout=_PATIENCE_S).status_code == 200
                    with self._news:
                        self.counts["pictures"] += came
                    break


class Viewers:
    """The process, logged in when the block begins; `counts` says what came once it is over. Raises CastlineError."""

    def __init__(self, address: str, browsers: int, environment: dict[str, str]) -> None:
        self.counts: Counter[str] = Counter()
        self._process = subprocess.Popen(
            bound_command([sys.executable, "-m", "bench.viewers", address, str(browsers)]),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise CastlineError("expected the browsers to log in, they did not")
        return self

    def __exit__(self, *_: object) -> None:
        self.counts.update(json.loads(self._process.communicate("")[0]))


def main() -> int:
    """Exit status: 0."""
    address, browsers = sys.argv[1], int(sys.argv[2])
    people = [Browser(address, os.environ["STATION_PASSWORD"]) for _ in range(browsers)]
    print("ready", flush=True)
    sys.stdin.read()
    print(json.dumps(dict(sum((one.counts for one in people), Counter()))), flush=True)
    # The streams have no end of their own, and threads that wait for them none either.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
