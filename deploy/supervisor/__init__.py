"""Starts, watches, restarts and stops the processes of one machine; the same for `castline demo` and `castline up`."""

from deploy.supervisor.backoff import Backoff
from deploy.supervisor.journal import Journal
from deploy.supervisor.probes import Prober, Sight
from deploy.supervisor.readiness import Gate, LinePrinted, PageReady, PathThere
from deploy.supervisor.requests import StopRequests
from deploy.supervisor.role import Role, State, castline_command
from deploy.supervisor.supervisor import Supervisor

__all__ = [
    "Backoff",
    "Gate",
    "Journal",
    "LinePrinted",
    "PageReady",
    "PathThere",
    "Prober",
    "Role",
    "Sight",
    "State",
    "StopRequests",
    "Supervisor",
    "castline_command",
]
