"""Starts a PostgreSQL server from Debian's packages for the tests, with a temporary data folder and a free port of this machine."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from deploy.supervisor.ports import free_ports

_PACKAGE = ["apt-get", "install", "--yes", "--no-install-recommends", "postgresql"]


def find_programs() -> Path:
    """Returns the folder of `initdb` and `postgres`, after installing them if this user may. Raises RuntimeError if they are missing."""
    if not (found := sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))) and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "--quiet"], env=environment, capture_output=True, check=False)
        subprocess.run(_PACKAGE, env=environment, capture_output=True, check=False)
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise RuntimeError(f"PostgreSQL is missing; on Debian or Ubuntu: sudo {' '.join(_PACKAGE)}")
    return found[-1].parent


class PostgreSQL:
    """A PostgreSQL server that accepts connections from this machine without a password."""

    def __init__(self) -> None:
        self._programs = find_programs()
        self._folder = Path(tempfile.mkdtemp(prefix="castline-postgres-"))
        self.port = free_ports()
        # PostgreSQL refuses to run as root, so it runs as the user that Debian's package has created.
        self._user = pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else os.geteuid()
        os.chown(self._folder, self._user, -1)
        subprocess.run(
            [self._programs / "initdb", "--auth=trust", "--username=castline", "--encoding=UTF8", "--no-sync", self._folder / "data"],
            user=self._user,
            cwd=self._folder,
            capture_output=True,
            check=True,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the server and waits until it answers. Does nothing if the server runs already."""
        if self.is_running:
            return
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                # PostgreSQL refuses to run as root, and a change of the user clears the signal that bound_command() asks the kernel for.
                ["setpriv", *self._as_user(), "--pdeathsig", "KILL", self._programs / "postgres", "-D", self._folder / "data", *options],
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        while subprocess.run([self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False).returncode:
            assert self.is_running, (self._folder / "log").read_text()[-2000:]

    def _as_user(self) -> list[str]:
        return ["--reuid", str(self._user)] if os.geteuid() == 0 else []

    def stop(self) -> None:
        """Stops the server at once, so that open transactions are lost as in a crash."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def create_database(self, name: str) -> str:
        """Creates an empty database and returns its address for the setting `station.database`."""
        with psycopg.connect(f"postgresql://castline@127.0.0.1:{self.port}/postgres", autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        return f"postgresql://castline@127.0.0.1:{self.port}/{name}"
