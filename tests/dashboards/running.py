"""A whole small plant and a real Prometheus that scrapes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from deploy.cli import main as cli
from streams.errors import CastlineError
from tests.debian import program

CASTLINE = Path(sys.executable).with_name("castline")


def castline_here(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `castline` does, says and ends with, within this process: without the second that its start takes.

    Of this process's environment `castline` sees nothing of its own but `environment`.
    """
    hidden = dict.fromkeys(name for name in os.environ if name.startswith(("CASTLINE_", "GRAFANA_", "REMOTE_WRITE")))
    done = CliRunner().invoke(cli.castline, arguments, env={**hidden, **environment}, standalone_mode=False)
    if isinstance(done.exception, CastlineError):
        return subprocess.CompletedProcess(arguments, 3, done.stdout, f"castline: {done.exception}\n")
    if done.exception is not None:
        raise done.exception
    status = done.return_value if isinstance(done.return_value, int) else 0
    return subprocess.CompletedProcess(arguments, status, done.stdout, done.stderr)


class Plant:
    """`castline demo` with its run folder below `folder`: broker, gateway, inspector, and a sorter and board a line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._output = (folder / "demo.txt").open("w+")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}
        self.process = subprocess.Popen(
            [sys.executable, str(CASTLINE), "demo", "--lines", "2", "--rate", "2", "--boards", "python", "--plain"],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**environment, "TMPDIR": str(folder)},
            start_new_session=True,
        )

    @property
    def said(self) -> str:
        return Path(self._output.name).read_text()

    @property
    def run_folder(self) -> Path:
        (found,) = self._folder.glob("castline-demo-*")
        return found

    def wait_until(self, done: Callable[[], bool], within_s: float) -> None:
        end = time.monotonic() + within_s
        while not done():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.2)

    def stop(self) -> None:
        """At once: what it would audit is another test's matter."""
        for _ in range(2):
            self.process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._output.close()


class Prometheus:
    """A real one on a free port of loopback, with what it keeps below `folder`."""

    def __init__(self, folder: Path, config: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'kept'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    @property
    def said(self) -> str:
        return Path(self._log.name).read_text()

    def get(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self.address}{path}?{urllib.parse.urlencode(parameters)}", timeout=20) as answer:
            return json.loads(answer.read())["data"]

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression returns now."""
        found: list[dict[str, Any]] = self.get("/api/v1/query", query=expression)["result"]
        return found

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


class HostedStack:
    """Takes samples by remote write; says 503 to the first `refusals` requests, as an overloaded stack does."""

    def __init__(self, refusals: int) -> None:
        self.refused, self.taken = 0, 0
        self.tokens: set[str] = set()
        stack = self

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                stack.tokens.add(self.headers.get("Authorization", ""))
                if stack.refused < refusals:
                    stack.refused += 1
                    self.send_response(503)
                else:
                    stack.taken += 1
                    self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Requests are not logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/api/prom/push"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
