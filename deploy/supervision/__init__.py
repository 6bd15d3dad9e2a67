"""Starts, watches, restarts and stops the processes of one machine; the same for `castline demo` and `castline up`."""

from deploy.supervision.backoff import Backoff
from deploy.supervision.journal import Journal
from deploy.supervision.probes import Prober, Sight
from deploy.supervision.readiness import Gate, LinePrinted, PageReady, PathThere
from deploy.supervision.requests import StopRequests
from deploy.supervision.role import Role, State, castline_command
from deploy.supervision.supervisor import Supervisor

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
