"""A small plant, a real Prometheus that scrapes it, and a hosted stack that receives samples."""

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
from typing import Any, Self

from click.testing import CliRunner

from deploy.cli import main as cli
from streams.errors import CastlineError
from tests.debian import find_program

CASTLINE = Path(sys.executable).with_name("castline")


def run_castline(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `castline` inside this process, which saves the second that a start takes, and returns its output and exit status.

    The command sees the settings of `environment` and none of this process.
    """
    hidden = dict.fromkeys(name for name in os.environ if name.startswith(("CASTLINE_", "GRAFANA_", "REMOTE_WRITE")))
    result = CliRunner().invoke(cli.castline, arguments, env={**hidden, **environment}, standalone_mode=False)
    if isinstance(result.exception, CastlineError):
        return subprocess.CompletedProcess(arguments, 3, result.stdout, f"castline: {result.exception}\n")
    if result.exception is not None:
        raise result.exception
    status = result.return_value if isinstance(result.return_value, int) else 0
    return subprocess.CompletedProcess(arguments, status, result.stdout, result.stderr)


class DemoPlant:
    """Runs `castline demo` with two lines. Its run folder lies below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._output = (folder / "demo.txt").open("w+")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}
        self.process = subprocess.Popen(
            [sys.executable, str(CASTLINE), "demo", "--lines", "2", "--rate", "2", "--boards", "python", "--plain"],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={
                **environment,
                "TMPDIR": str(folder),
                "CASTLINE_INSPECTOR__LOCALISER_NICENESS": "0",
                # With LiteRT, neither the inspector nor the localiser imports TensorFlow.
                "CASTLINE_MODEL__RUNTIME": "litert",
            },
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        return Path(self._output.name).read_text()

    @property
    def run_folder(self) -> Path:
        (folder,) = self._folder.glob("castline-demo-*")
        return folder

    def wait_until(self, done: Callable[[], bool], within_s: float) -> None:
        end = time.monotonic() + within_s
        while not done():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.2)

    def stop(self) -> None:
        """Stops the demo at once. The second Ctrl-C skips the audit at its end."""
        for _ in range(2):
            self.process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._output.close()


class StallWatch:
    """Measures in a thread for how long this process got no processor at most. `longest_stall_s` is in seconds."""

    def __init__(self) -> None:
        self.longest_stall_s = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        began_s = time.monotonic()
        while not self._stopping.wait(0.05):
            now_s = time.monotonic()
            self.longest_stall_s = max(self.longest_stall_s, now_s - began_s - 0.05)
            began_s = now_s


class PrometheusServer:
    """Runs Prometheus on `port` of loopback. Its data lies below `folder`."""

    def __init__(self, folder: Path, config: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                find_program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'kept'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    @property
    def output(self) -> str:
        return Path(self._log.name).read_text()

    def get(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self.address}{path}?{urllib.parse.urlencode(parameters)}", timeout=20) as answer:
            return json.loads(answer.read())["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns the series that an expression has now."""
        series: list[dict[str, Any]] = self.get("/api/v1/query", query=expression)["result"]
        return series

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


class HostedStack:
    """Receives samples by remote write. Refuses the first `refusals` requests with status 503, as an overloaded stack does."""

    def __init__(self, refusals: int) -> None:
        self.refused, self.accepted = 0, 0
        self.tokens: set[str] = set()
        stack = self

        class RemoteWriteHandler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                stack.tokens.add(self.headers.get("Authorization", ""))
                if stack.refused < refusals:
                    stack.refused += 1
                    self.send_response(503)
                else:
                    stack.accepted += 1
                    self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Requests are not logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), RemoteWriteHandler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/api/prom/push"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
