"""The mechanism that the campaigns share: a broker of their own, and running roles that must stay sound while records go through them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w
from kafka import KafkaAdminClient

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.ports import free_ports
from streams.settings import Settings
from streams.topic_creation import create_topics
from tests.processes import CastlineProcess

# If no role makes any progress for so long, the campaign ends and says what is missing.
STALLED_AFTER_S = 120.0
# A busy machine may need long to end a process.
_MAX_STOP_S = 180.0


@contextmanager
def own_broker(folder: Path, sections: Mapping[str, Any]) -> Iterator[Settings]:
    """Starts a broker below `folder`, and yields its settings with `sections` added. The topics exist then."""
    settings = Settings.model_validate(
        {
            "broker": {"port": free_ports(2), "data_dir": folder / "kafka", "access": "open"},
            "service": {"run_dir": folder / "run", "log_format": "text"},
            "gateway": {"spool_dir": folder / "spool", "port": 0},
            "sorter": {"journal_dir": folder / "journal"},
            "store": {"url": str(folder / "store")},
            **sections,
        }
    )
    broker = EmbeddedBroker(settings)
    broker.start()
    try:
        admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
        create_topics(admin, settings)
        admin.close()
        yield settings
    finally:
        broker.stop(20)


class RunningRoles:
    """Processes of some roles. Everything that falls short is added to `shortcomings` as a sentence."""

    def __init__(self, settings: Settings, folder: Path, shortcomings: list[str]) -> None:
        self.shortcomings = shortcomings
        self._settings = settings
        self._folder = folder
        self._roles: dict[str, CastlineProcess] = {}

    def start(
        self,
        stack: ExitStack,
        commands: Mapping[str, tuple[str, ...]],
        line_values: Mapping[str, object],
        helpers: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        """Starts a process for each name with its command, and waits until it is ready.

        `line_values` are added to the settings of each line, such as its token. `helpers` are further commands without health pages, such
        as a simulated board.
        """
        file = self._folder / "castline.toml"
        values = self._settings.model_dump(mode="json", exclude_none=True)
        file.write_text(tomli_w.dumps(values | {"lines": [line | line_values for line in values["lines"]]}))
        for name, command in helpers.items():
            stack.enter_context(CastlineProcess(self._settings, self._folder / f"{name}.log", *command, file=file))
        for name, command in commands.items():
            process = CastlineProcess(self._settings, self._folder / f"{name}.log", *command, file=file)
            self._roles[name] = stack.enter_context(process)
        for process in reversed(self._roles.values()):
            process.wait_ready(180)

    def __getitem__(self, name: str) -> CastlineProcess:
        return self._roles[name]

    def is_sound(self) -> bool:
        """Checks that every role still runs in its first process and is healthy. Returns whether nothing has fallen short so far."""
        if self.shortcomings:
            return False
        for name, role in self._roles.items():
            if role.process.poll() is not None:
                self.shortcomings.append(f"The {name} ended with status {role.process.returncode}.")
            elif (health := role.page("/healthz"))[0] != 200:
                self.shortcomings.append(f"The {name} is not healthy: {health}.")
        return not self.shortcomings

    def wait(self, count_missing: Callable[[], int], what: str) -> None:
        """Returns when `count_missing` returns 0, when a role has ended, or when the number has not fallen for STALLED_AFTER_S."""
        least, deadline_s = count_missing(), time.monotonic() + STALLED_AFTER_S
        while least and all(role.process.poll() is None for role in self._roles.values()):
            time.sleep(0.1)
            if (missing := count_missing()) < least:
                least, deadline_s = missing, time.monotonic() + STALLED_AFTER_S
            if time.monotonic() > deadline_s:
                self.shortcomings.append(f"{least} {what} are missing, and nothing came for {STALLED_AFTER_S:.0f} s.")
                return

    def restart(self) -> None:
        """Stops and starts every role, because some readers read old records only at their start."""
        for role in self._roles.values():
            if role.process.poll() is None:
                role.stop(_MAX_STOP_S)
                role.start()
        for role in reversed(self._roles.values()):
            role.wait_ready(180)

    def stop(self) -> None:
        """Stops the roles. A role must end with the status 0, and its log must have no traceback."""
        for name, role in self._roles.items():
            if role.process.poll() is None and (status := role.stop(_MAX_STOP_S)) != 0:
                self.shortcomings.append(f"The {name} was told to stop and ended with status {status}.")
            if "Traceback" in (log := role.log()):
                self.shortcomings.append(f"The log of the {name} has a traceback: {log[log.index('Traceback') :][:2000]}")
