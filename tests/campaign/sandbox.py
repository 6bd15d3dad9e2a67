"""Runs a program in namespaces of its own, so that no process, mount or network rule outlives it, however it ends. Linux only.

Also makes the networks of the simulated machines: each machine is a network namespace whose cable can be pulled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.supervisor.launch import bound_command

INSIDE_VARIABLE = "CAMPAIGN_SANDBOX"
# bash is the first process of the sandbox, because it collects the orphans that killed supervisors leave.
_FIRST_PROCESS = 'ip link set lo up && "$@"; exit $?'


def is_inside() -> bool:
    return os.environ.get(INSIDE_VARIABLE) == "1"


def run_inside(command: Sequence[str]) -> int:
    """Runs `command` in new namespaces for processes, mounts and network, and returns its exit status.

    All processes inside are killed when `command` ends, or when this process dies. Without root, a user namespace gives the needed rights.
    """
    options = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *(() if os.geteuid() == 0 else ("--map-root-user",))]
    bound = bound_command(["/usr/bin/unshare", *options, "/bin/bash", "-c", _FIRST_PROCESS, "campaign", *command])
    # Ctrl-C reaches the program inside, which then stops in order. A handler is not inherited, but an ignored signal would be.
    signal.signal(signal.SIGINT, lambda *_: None)
    return subprocess.run(bound, env=os.environ | {INSIDE_VARIABLE: "1"}, check=False).returncode


def run_tool(*command: str) -> None:
    """Runs a program of the operating system. Raises RuntimeError with its message if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")


@dataclass
class MachineNetwork:
    """The network namespace of one machine, which a cable connects to this one. `number` is different for each machine, 1 to 250.

    The broker of this namespace, at loopback port `broker_port`, is reachable at the same address on the machine.
    """

    number: int
    broker_port: int

    @property
    def host(self) -> str:
        """The address of the machine."""
        return f"10.77.{self.number}.2"

    @property
    def _gateway(self) -> str:
        return f"10.77.{self.number}.1"

    @property
    def _cable(self) -> str:
        return f"cable{self.number}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._holder = self._start(stack, ["/usr/bin/unshare", "--net", "/bin/sleep", "infinity"])
            own = Path("/proc/self/ns/net").readlink()
            while Path(f"/proc/{self._holder.pid}/ns/net").readlink() == own:
                time.sleep(0.01)
            run_tool("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", str(self._holder.pid))
            run_tool("ip", "address", "add", f"{self._gateway}/30", "dev", self._cable)
            run_tool("ip", "link", "set", self._cable, "up")
            run_tool(*self.enter("/usr/sbin/ip", "address", "add", f"{self.host}/30", "dev", "eth0"))
            for device in ("lo", "eth0"):
                run_tool(*self.enter("/usr/sbin/ip", "link", "set", device, "up"))
            port = str(self.broker_port)
            relay = [sys.executable, "-m", "tests.campaign.relay"]
            self._start(stack, [*relay, self._gateway, port, "127.0.0.1", port])
            self._start(stack, self.enter(*relay, "127.0.0.1", port, self._gateway, port))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    @staticmethod
    def _start(stack: ExitStack, command: Sequence[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(bound_command(command), start_new_session=True)
        stack.callback(process.wait)
        stack.callback(process.kill)
        return process

    def enter(self, *command: str) -> list[str]:
        """Returns the command that runs `command` on this machine."""
        return ["/usr/bin/nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *command]

    def pull_cable(self) -> None:
        """Cuts the machine off. Its packets and those to it are dropped."""
        run_tool("ip", "link", "set", self._cable, "down")

    def plug_cable(self) -> None:
        run_tool("ip", "link", "set", self._cable, "up")
